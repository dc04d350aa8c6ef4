#!/bin/sh
# Writes the lock files from pyproject.toml. Arguments go to uv, such as --upgrade.
set -eu
cd "$(dirname "$0")/.."
for extra in serve train gpu dev; do
  # Both builds of TensorFlow own the same files, so the GPU's lock leaves the CPU's out.
  echo "$([ "$extra" = gpu ] && echo "tensorflow-cpu; python_version < '3'")" > requirements/.override
  ${UV:-uv} pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-header --no-annotate --extra "$extra" \
    --override requirements/.override --output-file "requirements/$extra.txt" "$@" pyproject.toml
  rm requirements/.override
done
