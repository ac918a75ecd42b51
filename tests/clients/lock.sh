#!/usr/bin/env bash
# Writes requirements/*.txt and agents_node/package-lock.json anew: what the client tests install, pinned by hash.
set -euo pipefail
cd "$(dirname "$0")/../.."
for clients in openai2 openai3; do
  .venv/bin/uv pip compile "tests/clients/requirements/$clients.in" --quiet --upgrade \
    --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes --no-annotate \
    --custom-compile-command "make lock" --output-file "tests/clients/requirements/$clients.txt"
done
rm -f tests/clients/agents_node/package-lock.json
npm install --prefix tests/clients/agents_node --package-lock-only --omit-lockfile-registry-resolved --ignore-scripts \
  --no-audit --no-fund --loglevel=error
