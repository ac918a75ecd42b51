#!/usr/bin/env bash
# Installs the MCP servers of deploy/toolsets beside their lock files, every package pinned by hash: the named ones, or `all`;
# without a name all but monday. A stamp remembers what is installed. Run by setup.sh and `make toolsets`; needs .venv with uv.
set -euo pipefail
cd "$(dirname "$0")/../.."

# What runs inside the sandbox, where nothing but /usr is shown: not the Python of .venv. services/sandbox looks in this order.
python=/usr/bin/python3
[ -x "$python" ] || python=/usr/local/bin/python3

installed() { # is $2 of the toolset $1 what its stamp says?
  [ "$(cat "deploy/toolsets/$1/$2/.stamp" 2>/dev/null)" = "$3" ] || { echo "setup: installing the $1 MCP server" >&2; return 1; }
}

# Under root, tools run as another user, who has to be able to read their server whatever umask the operator has.
install() {
  local folder="deploy/toolsets/$1" stamp
  if [ -f "$folder/package-lock.json" ]; then
    stamp="$(sha256sum < "$folder/package-lock.json")"
    if ! installed "$1" node_modules "$stamp"; then
      npm ci --prefix "$folder" --ignore-scripts --no-audit --no-fund --loglevel=error
      chmod -R a+rX "$folder"
      echo "$stamp" > "$folder/node_modules/.stamp"
    fi
  fi
  if [ -f "$folder/requirements.txt" ]; then
    if [ ! -x "$python" ]; then
      echo "setup: the $1 MCP server is left out: it needs Python below /usr (Debian: apt-get install python3)" >&2
      return
    fi
    stamp="$(sha256sum < "$folder/requirements.txt") $("$python" --version)"
    if ! installed "$1" site-packages "$stamp"; then
      rm -rf "$folder/site-packages"
      # Compiled now, because the sandbox shows the folder read-only: a server would compile it anew at each start.
      .venv/bin/uv pip install --quiet --compile-bytecode --python "$python" --target "$folder/site-packages" \
        --no-deps --require-hashes --requirement "$folder/requirements.txt"
      chmod -R a+rX "$folder"
      echo "$stamp" > "$folder/site-packages/.stamp"
    fi
  fi
}

for folder in deploy/toolsets/*/; do
  name="$(basename "$folder")"
  case " ${*:-} " in
    *" all "* | *" $name "*) install "$name" ;;
    # 300 MB that few need: until somebody asks for it, that toolset is not ready and says so.
    "  ") [ "$name" = monday ] || install "$name" ;;
  esac
done
