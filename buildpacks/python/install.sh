# Dependencies of a Python app, from whichever file names them. Sourced by bin/compile.

setup_uv() {
  uv=${STARPHLEET_TOOLS:+$STARPHLEET_TOOLS/uv}
  [[ $uv && -x $uv ]] || uv=$(command -v uv) || refuse 'there is no uv on this ship'
  export UV_CACHE_DIR=$cache/uv UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
  export UV_NO_PROGRESS=1 UV_PROJECT_ENVIRONMENT=$build/.venv
  unset VIRTUAL_ENV CONDA_PREFIX PYTHONHOME PYTHONPATH
}

install_dependencies() {
  if [[ -e .venv || -L .venv ]]; then note 'The .venv in the repository is replaced'; fi
  if [[ -f requirements.txt ]]; then
    from_requirements
  elif [[ -f pyproject.toml && -f uv.lock ]]; then
    from_uv_lock
  elif [[ -f pyproject.toml && -f poetry.lock ]]; then
    from_poetry_lock
  elif [[ -f pyproject.toml ]]; then
    from_project
  elif [[ -f setup.py ]]; then
    fresh_venv
    step 'Installing the project (setup.py)'
    install_project
  elif [[ -f Pipfile ]]; then
    refuse 'a Pipfile alone is not read; run `pipenv requirements > requirements.txt` and commit it'
  else
    refuse 'manage.py is there, but neither requirements.txt nor pyproject.toml names what it needs'
  fi
}

# with_tree NAME FUNCTION FILE...: the tree kept for these files, else made by FUNCTION and kept.
with_tree() {
  local name=$1 make=$2
  shift 2
  tree_key "$pack_version" "$version" "$python" "$make" -- "$@"
  if tree_restore "$key" "$build/.venv"; then
    step "Using cached dependencies ($name unchanged)"
    return
  fi
  fresh_venv
  step "Installing dependencies ($name)"
  "$make"
  tree_save "$key" "$build/.venv"
}

fresh_venv() {
  rm -rf -- "$build/.venv"
  attempt 'uv could not make .venv' \
    "$uv" venv --quiet --relocatable --no-project --python "$python" "$build/.venv"
}

pip_install() { "$uv" pip install --python "$build/.venv/bin/python" "$@"; }

# uv takes a project's built wheel from its cache unless these files are newer.
install_project() {
  touch -c pyproject.toml setup.py setup.cfg
  attempt 'uv could not install the project' pip_install "$@" .
}

from_requirements() {
  files=() local_sources=
  read_requirements requirements.txt
  if [[ $local_sources ]]; then
    note "Installed anew at each push: requirements name files of the app itself ($local_sources)"
    fresh_venv
    step 'Installing dependencies (requirements.txt)'
    make_requirements --refresh
    relocate_sources
  else
    with_tree requirements make_requirements "${files[@]}"
  fi
}

# What is installed in place (-e) is found by an absolute path, and the app will run elsewhere.
relocate_sources() {
  local app=${STARPHLEET_APP:-$build} file
  for file in "$build"/.venv/lib/python*/site-packages/{*.pth,__editable__*.py}; do
    if [[ -f $file && $app != "$build" ]]; then sed -i "s|$build|$app|g" "$file"; fi
  done
}

# uv takes a part of the app from its cache by the age of pyproject.toml alone: hence --refresh.
make_requirements() {
  attempt 'uv could not install requirements.txt' pip_install "$@" -r requirements.txt
}

# Adds FILE and what it includes to `files`; a line that names a part of the app itself, whose
# contents no key knows, goes to `local_sources`.
read_requirements() {
  local file=$1 line included
  [[ " ${files[*]} " != *" $file "* ]] || return 0
  [[ -f $file ]] || refuse "requirements include $file, which is not there"
  files+=("$file")
  while IFS= read -r line || [[ $line ]]; do
    line=${line%$'\r'}
    line=${line#"${line%%[![:space:]]*}"}
    if [[ $line =~ ^(-r|-c|--requirement|--constraint)[=[:space:]]*([^[:space:]#]+) ]]; then
      included=${BASH_REMATCH[2]}
      [[ $included == *://* ]] && continue
      [[ $included == /* || $file != */* ]] || included=${file%/*}/$included
      read_requirements "$included"
    elif [[ $line =~ ^(-e|--editable|\.|/|file:) || $line =~ [[:space:]]@[[:space:]]*(file:|\.|/) ]]; then
      local_sources=$line
    elif [[ $line && $line != [#-]* && -e ${line%%[[ ;#]*} ]]; then
      local_sources=$line
    fi
  done <"$file"
}

from_uv_lock() {
  with_tree uv.lock make_uv_lock uv.lock pyproject.toml
  if grep -qE 'source = \{ (editable|directory) =' uv.lock; then
    step 'Installing the project'
    touch -c pyproject.toml
    attempt 'uv could not install the project' uv_sync --no-editable --inexact
  fi
}

make_uv_lock() {
  attempt 'uv could not install uv.lock' \
    uv_sync --no-install-project --no-install-workspace --no-install-local
}

uv_sync() { "$uv" sync --frozen --no-dev --python "$python" "$@"; }

# uv cannot read Poetry's lock: Poetry itself, fetched by uv, writes it out as requirements.
from_poetry_lock() {
  with_tree poetry.lock make_poetry_lock poetry.lock pyproject.toml
}

make_poetry_lock() {
  note 'Reading poetry.lock with Poetry, fetched by uv'
  attempt 'Poetry could not export poetry.lock' \
    "$uv" tool run --quiet --python "$python" --from 'poetry>=2,<3' \
    --with 'poetry-plugin-export>=1.9,<2' poetry --no-interaction --no-ansi \
    export --output "$cache/poetry.$$.txt"
  attempt 'uv could not install poetry.lock' pip_install -r "$cache/poetry.$$.txt"
  rm -f -- "$cache/poetry.$$.txt"
}

from_project() {
  with_tree pyproject.toml make_project pyproject.toml
  if grep -q '^\[build-system\]' pyproject.toml; then
    step 'Installing the project'
    install_project --no-deps
  fi
}

make_project() {
  attempt 'uv could not install the dependencies of pyproject.toml' pip_install -r pyproject.toml
}
