# What a Python app runs by default, and Django's static files. Sourced by bin/compile.

# Sets `web` ('' if nothing is known): Django, then an ASGI application, then a WSGI one.
find_web() {
  web=
  if [[ -f manage.py ]]; then
    django_web
    return
  fi
  local file
  for file in main.py app.py asgi.py server.py api.py wsgi.py {app,src,api}/{main,app}.py; do
    if [[ -f $file ]] && framework_of "$file"; then
      framework_web "$file"
      [[ ! $web ]] || return 0
    fi
  done
  if [[ -f wsgi.py && -x .venv/bin/gunicorn ]]; then
    web='gunicorn --bind 0.0.0.0:$PORT wsgi'
  fi
}

# Sets `framework` and `variable` from the first line like `app = Flask(...)`, or from a factory.
framework_of() {
  local line factory= known='FastAPI|Starlette|Litestar|Quart|Flask'
  framework= variable=
  while IFS= read -r line; do
    if [[ $line =~ ^([A-Za-z_][A-Za-z0-9_]*)[[:space:]]*(:[^=]+)?=[[:space:]]*([a-z_]+\.)?($known)\( ]]; then
      variable=${BASH_REMATCH[1]} framework=${BASH_REMATCH[4]}
      return 0
    elif [[ $line =~ ^[[:space:]]+.*=[[:space:]]*([a-z_]+\.)?Flask\( && $factory ]]; then
      variable="$factory()" framework=Flask
      return 0
    elif [[ $line =~ ^def[[:space:]]+(create_app|make_app)\( ]]; then
      factory=${BASH_REMATCH[1]}
    fi
  done <"$1"
  return 1
}

framework_web() {
  local module=${1%.py}
  module=${module//\//.}
  if [[ $framework != Flask ]]; then
    [[ ! -x .venv/bin/uvicorn ]] ||
      web="uvicorn $module:$variable --host 0.0.0.0 --port \$PORT"
  elif [[ -x .venv/bin/gunicorn ]]; then
    quote_call "$module:$variable"
    web="gunicorn --bind 0.0.0.0:\$PORT $quoted_call"
  elif [[ -x .venv/bin/flask ]]; then
    quote_call "$module:$variable"
    web="flask --app $quoted_call run --host 0.0.0.0 --port \$PORT"
  fi
}

# A factory's parentheses mean something to the shell.
quote_call() { if [[ $1 == *\(* ]]; then quoted_call="'$1'"; else quoted_call=$1; fi; }

django_web() {
  local file module=
  for file in wsgi.py */wsgi.py */*/wsgi.py; do
    if [[ -f $file && $file != .* ]]; then
      module=${file%.py}
      break
    fi
  done
  if [[ $module && -x .venv/bin/gunicorn ]]; then
    web="gunicorn --bind 0.0.0.0:\$PORT ${module//\//.}"
  else
    web='python manage.py runserver 0.0.0.0:$PORT --noreload'
    ! settings_have 'django\.contrib\.staticfiles' || web+=' --insecure'
  fi
}

settings_have() {
  grep -rqsE --include='*.py' --exclude-dir=.venv --exclude-dir=node_modules -- "$1" .
}

collect_static() {
  [[ -f manage.py && ${DISABLE_COLLECTSTATIC:-0} == 0 ]] || return 0
  settings_have '^[[:space:]]*STATIC_ROOT\b' || return 0
  step 'Collecting static files (manage.py collectstatic)'
  attempt 'collectstatic failed; DISABLE_COLLECTSTATIC=1 skips it' \
    python manage.py collectstatic --noinput
}
