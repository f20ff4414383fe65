# Dependencies of a Node app by npm, yarn or pnpm. Sourced by bin/compile, which has set `plan`.

setup_manager() {
  export npm_config_cache=$cache/npm npm_config_fund=false npm_config_audit=false
  export npm_config_update_notifier=false npm_config_progress=false
  export YARN_CACHE_FOLDER=$cache/yarn YARN_GLOBAL_FOLDER=$cache/berry YARN_ENABLE_TELEMETRY=0
  export YARN_NODE_LINKER=node-modules
  node_env=${NODE_ENV:-production}
  unset NODE_ENV npm_config_production
  manager_home=
  if [[ ${plan[tool]} ]]; then fetch_manager; fi
  export PATH=$build/node_modules/.bin:${manager_home:+$manager_home/node_modules/.bin:}$PATH
}

# yarn or pnpm of the right release: the one on the ship if it is that, else from npm, kept.
fetch_manager() {
  local name=${plan[tool]##*/} wanted=${plan[tool]##*@} have fresh
  name=${name%@*}
  have=$(cd / && "$name" --version 2>/dev/null) || have=
  [[ $have != "$wanted" && $have != "$wanted".* ]] || return 0
  manager_home=$cache/tools/${plan[tool]//\//+}
  [[ ! -d $manager_home ]] || return 0
  note "Fetching ${plan[tool]}"
  mkdir -p "$cache/tools"
  fresh=$(mktemp -d "$cache/tools/new.XXXXXX")
  (cd "$fresh" && attempt "npm could not fetch ${plan[tool]}" \
    "$npm" install --prefix "$fresh" --no-save --ignore-scripts --loglevel=error "${plan[tool]}")
  mv -T -- "$fresh" "$manager_home" 2>/dev/null || rm -rf -- "$fresh"
}

install_dependencies() {
  local lock=${plan[lock]:-package.json} copy=link
  if [[ -e node_modules || -L node_modules ]]; then
    note "The node_modules in the repository is replaced by what $lock says"
    rm -rf -- node_modules
  fi
  if [[ ! ${plan[dependencies]}${plan[install_scripts]} ]]; then
    step 'No dependencies to install'
    return
  fi
  [[ -z ${plan[build_script]} ]] || copy=copy
  if [[ ${plan[uncached]} ]]; then
    note "Installed anew at each push: ${plan[uncached]}"
  elif tree_restore "${plan[key]}" "$build/node_modules" "$copy"; then
    step "Using cached dependencies ($lock unchanged)"
    return
  fi
  step "Installing dependencies ($lock)"
  attempt "${plan[manager]} could not install $lock" "install_with_${plan[manager]}"
  [[ ! -d node_modules || ${plan[uncached]} ]] || tree_save "${plan[key]}" "$build/node_modules"
}

# The build script needs the development dependencies; without one they are never installed.
install_with_npm() {
  local scope=--omit=dev verb=install
  [[ -z ${plan[build_script]} ]] || scope=--include=dev
  [[ -z ${plan[lock]} ]] || verb=ci
  [[ ${plan[lock]} ]] || set -- --no-package-lock
  "$npm" "$verb" "$scope" "$@" "${npm_flags[@]}"
}

install_with_yarn() {
  [[ ${plan[build_script]} ]] || set -- --production
  [[ ! ${plan[lock]} ]] || set -- "$@" --frozen-lockfile
  yarn install --non-interactive --no-progress --mutex "file:$cache/yarn.mutex" "$@"
}

install_with_berry() {
  [[ ! ${plan[lock]} ]] || set -- --immutable
  yarn install "$@"
}

install_with_pnpm() {
  [[ ${plan[build_script]} ]] || set -- --prod
  [[ ! ${plan[lock]} ]] || set -- "$@" --frozen-lockfile
  CI=1 pnpm install --store-dir "$cache/pnpm" --package-import-method copy --reporter append-only "$@"
}

run_script() {
  step "Running the $1 script"
  NODE_ENV=$node_env attempt "the $1 script failed" "$npm" run "$1"
}

prune() {
  [[ ${plan[dev]} && ${NPM_CONFIG_PRODUCTION:-true} != false ]] || return 0
  step 'Removing development dependencies'
  attempt "${plan[manager]} could not remove development dependencies" "prune_with_${plan[manager]}"
}

prune_with_npm() {
  local keep=--no-package-lock
  [[ -z ${plan[lock]} ]] || keep=--package-lock
  "$npm" prune --omit=dev --ignore-scripts "$keep" "${npm_flags[@]}"
}
prune_with_yarn() {
  yarn install --production --ignore-scripts --frozen-lockfile --prefer-offline \
    --non-interactive --no-progress --mutex "file:$cache/yarn.mutex"
}
prune_with_berry() { yarn workspaces focus --all --production; }
prune_with_pnpm() { CI=1 pnpm prune --prod --ignore-scripts; }

# A command that calls yarn or pnpm finds it at run time too, where the cache is not.
keep_manager() {
  local commands=$1
  [[ $manager_home ]] || return 0
  if [[ -f Procfile ]]; then commands+=" $(<Procfile)"; fi
  [[ $commands =~ (^|[^[:alnum:]_/-])(yarn|pnpm)([^[:alnum:]_/-]|$) ]] || return 0
  rm -rf -- "$build/.built/manager"
  cp -a -- "$manager_home" "$build/.built/manager"
}
