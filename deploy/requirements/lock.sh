#!/usr/bin/env bash
# Writes local.txt and dev.txt, every package `make up` and `make test` install, and images/*.txt, pinned by hash. Run by `make lock`.
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

# One list per container image (deploy/images/*.Dockerfile), with the versions that the tests run on. Python 3.12 is what the official
# vLLM image has.
image() {
  local name="$1" python="$2"
  shift 2
  .venv/bin/uv pip compile "$@" --quiet --upgrade --constraint deploy/requirements/dev.txt \
    --python-version "$python" --python-platform x86_64-manylinux_2_28 --override deploy/requirements/overrides.txt \
    --generate-hashes --no-annotate --custom-compile-command "make lock" "${torch_source[@]}" \
    --no-emit-package torch --output-file "deploy/requirements/images/$name.txt"
}
inputs=deploy/requirements/images
image tools 3.11 "$inputs/tools.in"
image valkey 3.11 "$inputs/valkey.in"
image service 3.11 pyproject.toml --extra gateway --extra selector --extra arguments --extra callcache
image node 3.11 "$inputs/node.in"
image sandbox 3.11 pyproject.toml --extra sandbox
image trainer 3.11 pyproject.toml --extra trainer
image engine-cpu 3.11 pyproject.toml --extra engine "$inputs/engine-cpu.in"
image engine-gpu 3.12 pyproject.toml "$inputs/engine-gpu.in"

# The Python servers of deploy/toolsets. Their tools have to be pinned again then: python -m services.sandbox.pin NAME
for source in deploy/toolsets/*/requirements.in; do
  .venv/bin/uv pip compile "$source" --quiet --upgrade --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
    --generate-hashes --no-annotate --custom-compile-command "make lock" --output-file "${source%.in}.txt"
done
