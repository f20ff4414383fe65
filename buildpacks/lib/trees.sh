# Finished dependency trees, kept in CACHE/trees/KEY. A tree is made elsewhere and renamed, so what
# is there is whole; its files are read-only, because a build may share them by hard links. Builds
# of two branches may use one cache at once: whoever takes or gives holds the lock meanwhile.

trees_kept=3

# tree_key WORD... -- FILE...: sets `key` from the words and the files' names and contents.
tree_key() {
  local words=()
  while [[ $1 != -- ]]; do
    words+=("$1")
    shift
  done
  shift
  key=$({
    printf '%s\n' "${words[@]}"
    if (($#)); then sha256sum -- "$@"; fi
  } | sha256sum)
  key=${key%% *}
}

# tree_restore KEY DEST [copy]: lays the tree at DEST, or returns 1. `copy` makes it writable.
tree_restore() {
  local tree=$cache/trees/$1 dest=$2 lock
  [[ -d $tree ]] || return 1
  exec {lock}>"$cache/trees/.lock"
  flock -s "$lock"
  if [[ ! -d $tree ]]; then
    exec {lock}>&-
    return 1
  fi
  : >"$tree.used"
  _tree_copy "$tree" "$dest" "${3:-link}"
  exec {lock}>&-
}

# Hard links do not cross a mount point, even on one disk: one try tells.
_tree_copy() {
  rm -rf -- "$2"
  if [[ $3 == link ]] && ln -- "$1.used" "$2.link" 2>/dev/null; then
    rm -f -- "$2.link"
    cp -al -- "$1" "$2"
  else
    cp -a -- "$1" "$2"
    if [[ $3 == copy ]]; then chmod -R u+w -- "$2"; fi
  fi
}

# tree_save KEY SOURCE: keeps a copy of SOURCE under KEY, and the newest trees only.
tree_save() {
  local trees=$cache/trees fresh lock
  fresh=$(mktemp -d "$trees/new.XXXXXX")
  cp -a -- "$2" "$fresh/tree"
  find "$fresh/tree" -type f -exec chmod a-w {} +
  exec {lock}>"$trees/.lock"
  flock -x "$lock"
  : >"$trees/$1.used"
  [[ -d $trees/$1 ]] || mv -T -- "$fresh/tree" "$trees/$1"
  _tree_prune "$fresh"
  exec {lock}>&-
  rm -rf -- "$fresh"
  find "$trees" -maxdepth 1 -name 'new.*' -mmin +120 -exec rm -rf {} +
}

# Old trees move into the directory $1, which is removed after the lock is given back.
_tree_prune() {
  local used number=0 trees=$cache/trees
  while read -r used; do
    ((++number > trees_kept)) || continue
    rm -f -- "$trees/$used"
    used=${used%.used}
    [[ ! -d $trees/$used ]] || mv -- "$trees/$used" "$1/"
  done < <(cd "$trees" && ls -t -- *.used)
}
