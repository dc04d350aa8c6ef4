#!/bin/sh
# Writes the lock files from pyproject.toml. Arguments go to uv, such as --upgrade.
set -eu
cd "$(dirname "$0")/.."
# The widest first: the others hold to its versions, so that what is tested is what is deployed.
for extra in dev train serve gpu policy kserve; do
  extras="--extra $extra"
  case $extra in
    dev | policy | kserve) ;;  # the latter two are for themselves
    *) extras="$extras --constraint requirements/dev.txt" ;;
  esac
  : > requirements/.override
  # Both builds of TensorFlow own the same files, so the GPU's lock leaves the CPU's out. It is
  # installed in place of dev's, so it holds that too.
  if [ "$extra" = gpu ]; then
    extras="$extras --extra dev"
    echo "tensorflow-cpu; python_version < '3'" > requirements/.override
  fi
  ${UV:-uv} pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-header --no-annotate $extras \
    --override requirements/.override --output-file "requirements/$extra.txt" "$@" pyproject.toml
  rm requirements/.override
done
