# Sources the file $2 in the directory $1 and tells on descriptor 3 what comes of it, in records that
# end with a NUL each. $3 are the names of the commands; $4… are NAME=VALUE of variables that the file
# finds, and that are exported only if it does so. A command of the headquarters is "call", its line,
# the number of its words with its name, and they; a command that is none is "unknown", its line, its
# name. In the end comes "env", a NAME=VALUE for all that is exported, "end" and the exit status.
exec 3>&1 1>&2
cd "$1" || exit
__starphleet_file=$2
__starphleet_commands=$3
shift 3
for __starphleet_name; do
  [ -v "${__starphleet_name%%=*}" ] || printf -v "${__starphleet_name%%=*}" %s "${__starphleet_name#*=}"
done
set --

__starphleet_call() {
  builtin printf '%s\0' call "${BASH_LINENO[1]}" "$#" "$@" >&3
}

for __starphleet_name in $__starphleet_commands; do
  eval "$__starphleet_name() { __starphleet_call $__starphleet_name \"\$@\"; }"
done
stop-before-autodeploy() { __starphleet_call stop_before_autodeploy "$@"; }

command_not_found_handle() {
  builtin printf '%s\0' unknown "${BASH_LINENO[0]}" "$1" >&3
  return 127
}

__starphleet_end() {
  local __starphleet_status=$?
  mapfile -t __starphleet_names <<< "$(compgen -e)"
  builtin printf 'env\0' >&3
  for __starphleet_name in "${__starphleet_names[@]}"; do
    builtin printf '%s\0' "$__starphleet_name=${!__starphleet_name}" >&3
  done
  builtin printf '%s\0' end "$__starphleet_status" >&3
}
trap __starphleet_end EXIT

source "$__starphleet_file"
exit 0
