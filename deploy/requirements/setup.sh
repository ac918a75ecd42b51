#!/usr/bin/env bash
# Makes .venv and installs what `make up` (local) or `make test` (dev) needs, every package pinned by hash; only torch by version, as
# its wheel comes from PyTorch's own index or from a folder of yours. Does nothing when it has been done: a stamp in .venv remembers
# which requirement files are installed.
set -euo pipefail
cd "$(dirname "$0")/../.."
extra="${1:-local}"
requirements="deploy/requirements/$extra.txt"
installer="deploy/requirements/images/tools.txt"
TORCH_VERSION=2.13.0

fail() { printf '\nsetup: %s\n  Next step: %s\n' "$1" "$2" >&2; exit 1; }

python="${PYTHON:-python3}"
command -v "$python" >/dev/null || fail "Python is not installed (no $python on PATH)" "install Python 3.11 or newer"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$("$python" --version) is too old" "install Python 3.11 or newer, or set PYTHON to one"
newer_node="install Node.js 20 or newer, such as 22 from nodejs.org/en/download (Debian 12's own is 18), and put it first on PATH"
for program in node npm; do
  command -v "$program" >/dev/null || fail "Node.js is not installed (no $program on PATH)" "$newer_node"
done
node_version="$(node --version || true)"
[[ "$node_version" =~ ^v([0-9]+)\. && "${BASH_REMATCH[1]}" -ge 20 ]] || fail "Node.js ${node_version:-of unknown version} is too old" "$newer_node"

if [ ! -x .venv/bin/python ]; then
  echo "setup: making .venv"
  "$python" -m venv .venv || fail "a virtual environment cannot be made" "install it (Debian: apt-get install python3-venv)"
fi
stamp="$(cat "$requirements" "$installer" deploy/requirements/setup.sh | sha256sum | cut -c1-64)"
if [ "$(cat ".venv/$extra.stamp" 2>/dev/null)" != "$stamp" ]; then
  # uv and its hashes only: pip does nothing where it is installed.
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
    --requirement <(sed -n '/^uv==/,/[^\\]$/p' "$installer")
  # The CPU build of torch: from a local folder of wheels where there is one, else from PyTorch's own index.
  torch_source=(--torch-backend cpu)
  if compgen -G "${PIP_FIND_LINKS:-/nonexistent}/torch-$TORCH_VERSION*.whl" >/dev/null; then
    torch_source=(--find-links "$PIP_FIND_LINKS")
  fi
  echo "setup: installing torch $TORCH_VERSION (CPU)"
  VIRTUAL_ENV=.venv .venv/bin/uv pip install --no-deps "${torch_source[@]}" "torch==$TORCH_VERSION"
  echo "setup: installing $(grep -c == "$requirements") pinned packages"
  VIRTUAL_ENV=.venv .venv/bin/uv pip install --no-deps --require-hashes --requirement "$requirements"
  echo "$stamp" > ".venv/$extra.stamp"
fi

bash deploy/requirements/toolsets.sh
