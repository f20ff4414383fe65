# Gems by bundler, and what Rails wants. Sourced by bin/compile.

check_ruby() {
  local found
  bundle=$(command -v bundle) || refuse 'there is a Gemfile, but no bundler on this ship'
  if [[ $(<Gemfile) =~ (^|$'\n')[[:space:]]*ruby[[:space:]\(] ]]; then
    found=$("$ruby" "$pack/check.rb") || refuse "${found:-the Gemfile cannot be read}"
  fi
}

install_gems() {
  local name=Gemfile files=(Gemfile)
  [[ ! -f Gemfile.lock ]] || name=Gemfile.lock files+=(Gemfile.lock)
  tree_key "$pack_version" "$version" -- "${files[@]}"
  rm -rf -- .bundle
  mkdir .bundle
  if [[ ! -d $cache/trees/$key ]] && local_gems "$name"; then return; fi
  own_gems "$name"
}

# Debian packages gems too: where they satisfy the Gemfile nothing needs to be fetched. Bundler wants
# a directory of gems that it could write to all the same.
local_gems() {
  bundle_config "$1"
  if GEM_HOME=$HOME/gems "$bundle" install --local --quiet >"$cache/local.$$" 2>&1; then
    rm -f -- "$cache/local.$$"
    step "Using the ship's own gems ($1)"
    return
  fi
  rm -f -- "$cache/local.$$"
  return 1
}

own_gems() {
  bundle_config "$1" 'BUNDLE_PATH: "vendor/bundle"' 'BUNDLE_CLEAN: "true"'
  if tree_restore "$key" "$build/vendor/bundle"; then
    step "Using cached dependencies ($1 unchanged)"
    # A Gemfile without a lock: the versions that were chosen are kept with their gems.
    [[ -f Gemfile.lock ]] || cp -- vendor/bundle/Gemfile.lock .
    return
  fi
  step "Installing gems ($1)"
  attempt "bundler could not install the $1" "$bundle" install --jobs 4 --retry 3
  mkdir -p vendor/bundle
  cp -- Gemfile.lock vendor/bundle/
  tree_save "$key" "$build/vendor/bundle"
}

# Written by hand, since each call of `bundle config` takes a quarter of a second.
bundle_config() {
  {
    printf '%s\n' '---' 'BUNDLE_WITHOUT: "development:test"' 'BUNDLE_SILENCE_ROOT_WARNING: "true"'
    [[ $1 != Gemfile.lock ]] || echo 'BUNDLE_FROZEN: "true"'
    printf '%s\n' "${@:2}"
  } >.bundle/config
}

# The secret is kept with the cache: sessions outlive a deploy.
rails() {
  local secret
  if [[ ! -s $cache/secret_key_base ]]; then
    (umask 077 && od -An -vtx1 -N64 /dev/urandom | tr -d ' \n' >"$cache/secret.$$")
    mv -n -- "$cache/secret.$$" "$cache/secret_key_base"
    rm -f -- "$cache/secret.$$"
  fi
  secret=$(<"$cache/secret_key_base")
  if [[ $lock =~ \ (sprockets|propshaft)-?[a-z]*\ \( && ! -e public/assets ]]; then
    step 'Precompiling assets'
    RAILS_ENV=${RAILS_ENV:-production} SECRET_KEY_BASE=${SECRET_KEY_BASE:-$secret} \
      attempt 'assets:precompile failed' "$bundle" exec rake assets:precompile
  fi
  default_web 'bin/rails server -b 0.0.0.0 -p $PORT -e $RAILS_ENV' \
    RAILS_ENV production RACK_ENV production RAILS_LOG_TO_STDOUT enabled \
    RAILS_SERVE_STATIC_FILES enabled SECRET_KEY_BASE "$secret"
}
