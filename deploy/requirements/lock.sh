#!/usr/bin/env bash
# Writes local.txt and dev.txt: every package `make up` and `make test` install, pinned by hash. Run by `make lock`.
# torch is resolved but left out of them: it comes from a local folder of wheels or from PyTorch's CPU index (see setup.sh).
set -euo pipefail
cd "$(dirname "$0")/../.."
torch_source=(--torch-backend cpu)
[ -n "${PIP_FIND_LINKS:-}" ] && torch_source=(--find-links "$PIP_FIND_LINKS")
for extra in local dev; do
  .venv/bin/uv pip compile pyproject.toml --extra "$extra" --quiet --upgrade \
    --python-version 3.11 --python-platform x86_64-manylinux_2_28 --override deploy/requirements/overrides.txt \
    --generate-hashes --no-annotate --custom-compile-command "make lock" "${torch_source[@]}" \
    --no-emit-package torch --output-file "deploy/requirements/$extra.txt"
done
