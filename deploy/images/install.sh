#!/bin/sh
# Makes /opt/venv from one hash-pinned list, and torch, pinned by version, with its bill of materials (CycloneDX). Runs while an
# image is built:
#   install.sh LIST [torch]
# Two build secrets, both optional, neither of which reaches the image: `ca` is a bundle of certificates to trust while building,
# `index` holds lines such as UV_INDEX_URL=… or NPM_CONFIG_REGISTRY=… for a mirror, and TORCH_SOURCE for wheels of torch.
set -eu
TORCH_VERSION=2.13.0

list="$1"
. "$(dirname "$0")/secrets.sh"

python3 -m venv /opt/tools
/opt/tools/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement tools.txt
python3 -m venv --without-pip /opt/venv
export VIRTUAL_ENV=/opt/venv UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
if [ "${2:-}" = torch ]; then
  # Unquoted: it is flags and their values.
  /opt/tools/bin/uv pip install --no-deps ${TORCH_SOURCE:-"--torch-backend=cpu"} "torch==$TORCH_VERSION"
fi
/opt/tools/bin/uv pip install --no-deps --require-hashes --requirement "$list.txt"
mkdir -p /opt/venv/share/sbom
/opt/tools/bin/cyclonedx-py environment --output-reproducible --output-format JSON \
  --output-file /opt/venv/share/sbom/python.cdx.json /opt/venv/bin/python
