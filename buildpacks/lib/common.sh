# Shared by the provided packs (bash 4.4 or later). Few forks: a build that finds everything in its
# cache is waited for by a person.

step() { printf -- '-----> %s\n' "$*"; }
note() { printf '%s\n' "$*"; }

# The last line that begins with " ! " is the reason that the pusher reads.
refuse() {
  printf ' !     %s\n' "$*"
  exit 1
}

# attempt WHAT COMMAND...: the command's own output, and if it fails WHAT and its status.
attempt() {
  local what=$1
  shift
  "$@" || refuse "$what (exit $?)"
}

# The app's variables, one file each, but for those that would break the build itself.
export_env_dir() {
  local _file _name _value
  [[ -d ${1:-} ]] || return 0
  for _file in "$1"/*; do
    _name=${_file##*/}
    [[ -f $_file && $_name =~ ^[A-Za-z_][A-Za-z0-9_]*$ ]] || continue
    case $_name in
      PATH | HOME | PWD | TMPDIR | IFS | ENV | LANG | UID | EUID | PPID | SHELLOPTS | BASH* | PS4) continue ;;
      LD_* | CPATH | LIBRARY_PATH | GIT_DIR | STACK | REQUEST_ID | STARPHLEET_TOOLS | STARPHLEET_APP) continue ;;
    esac
    _value=
    IFS= read -r -d '' _value <"$_file" || :
    while [[ $_value == *$'\n' ]]; do _value=${_value%$'\n'}; done
    export "$_name=$_value"
  done
}

# begin BUILD CACHE [ENV_DIR]: sets `build` and `cache`, cwd is BUILD. HOME is in the cache, so that
# what tools leave there is neither served nor thrown away.
begin() {
  export_env_dir "${3:-}"
  build=$1 cache=$2
  export HOME=$cache/home
  if [[ -L $build/.profile.d || -L $build/.built ]]; then
    refuse '.profile.d and .built must not be symbolic links'
  fi
  mkdir -p "$HOME" "$cache/trees" "$build/.profile.d" "$build/.built"
  cd "$build"
}

# yaml TEXT: as a quoted YAML scalar, in `quoted`.
yaml() { quoted="'${1//\'/\'\'}'"; }

# default_web COMMAND [NAME VALUE]...: what bin/release will print.
default_web() {
  local quoted release=
  if (($# > 1)); then release=$'config_vars:\n'; fi
  local web=$1
  shift
  while (($# > 1)); do
    yaml "$2"
    release+="  $1: $quoted"$'\n'
    shift 2
  done
  if [[ $web ]]; then
    yaml "$web"
    release+="default_process_types:"$'\n'"  web: $quoted"$'\n'
  fi
  printf '%s' "$release" >"$build/.built/release.yml"
}
