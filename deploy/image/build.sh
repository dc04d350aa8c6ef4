#!/bin/sh
# build.sh [serve|trainer] [OPTION]...: the image, by whichever of Docker, Podman and Buildah is there.
# Options go to it, such as --build-arg MODEL_DIR=models/champion (or models/runs/2), which bakes the model in.
set -eu
cd "$(dirname "$0")/../.."
target=${1:-serve}
[ $# = 0 ] || shift
name=digit-platform
[ "$target" = serve ] || name=$name-$target
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
commit=$(git rev-parse HEAD 2>/dev/null || echo unknown)
# What .dockerignore lets in.
for option; do
  case $option in
    MODEL_DIR=* | --build-arg=MODEL_DIR=*) folder=${option##*MODEL_DIR=} ;;
    *) continue ;;
  esac
  case $folder in
    *..*) ;;
    models/* | .demo/champion*) [ ! -s "$folder/model.tflite" ] || [ ! -s "$folder/model.json" ] || continue ;;
  esac
  echo "error: MODEL_DIR=$folder must have model.tflite and model.json, and be under models/ or .demo/champion" >&2
  exit 1
done
for engine in ${ENGINE:-docker podman buildah}; do
  ! command -v "$engine" >/dev/null || break
  engine=
done
[ -n "$engine" ] || { echo "error: needs Docker, Podman or Buildah" >&2; exit 1; }
# The other format that those two know has no HEALTHCHECK.
[ "$engine" = docker ] || set -- --format docker "$@"
"$engine" build --target "$target" --build-arg "VERSION=$version" --build-arg "COMMIT=$commit" \
  --tag "$name:$version" "$@" .
