#!/usr/bin/env bash
# verify.sh [BUNDLE OTHER]: builds the Dockerfile as it stands, with Buildah on a local stand-in for its base, and
# runs it with Podman: check.py says what must hold. As root on Debian; needs no registry and no Docker.
# BUNDLE and OTHER are folders of models in the repository. WORK keeps the base and the images.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
root=$(realpath "$here/../../..")
bundle=${1:-models/champion} other=${2:-models/runs/1}
base=docker.io/library/python:3.11-slim-bookworm
export WORK=${WORK:-$root/build/image}
mkdir -p "$WORK/conf"
for file in "$bundle" "$other"; do
  [ -s "$root/$file/model.tflite" ] || { echo "error: no model in $file: make repro" >&2; exit 1; }
done
[ -s "$WORK/base.tar" ] || bash "$here/base.sh" "$WORK/base.tar"

# Podman and Buildah with settings, images and containers of their own.
cat > "$WORK/conf/storage.conf" <<C
[storage]
driver = "overlay"
graphroot = "$WORK/graph"
runroot = "$WORK/run"
C
cat > "$WORK/conf/containers.conf" <<C
[containers]
default_ulimits = ["nofile=16384:16384", "nproc=16384:16384"]
cgroups = "disabled"
cgroupns = "host"
netns = "host"
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
[network]
network_backend = "netavark"
C
echo 'unqualified-search-registries = []' > "$WORK/conf/registries.conf"
echo '{}' > "$WORK/conf/auth.json"
export CONTAINERS_CONF=$WORK/conf/containers.conf CONTAINERS_STORAGE_CONF=$WORK/conf/storage.conf
export CONTAINERS_REGISTRIES_CONF=$WORK/conf/registries.conf REGISTRY_AUTH_FILE=$WORK/conf/auth.json

# This machine's settings for pip, lent to the build: nothing of them stays in the image.
{
  printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\ntimeout = 180\n'
  python3 -m pip config list |
    sed -n "s/^\(global\|:env:\)\.\(index-url\|extra-index-url\|find-links\)='\(.*\)'$/\2 = \3/p" |
    sort -u -t= -k1,1
} > "$WORK/conf/pip.conf"
certificates=/etc/ssl/certs/ca-certificates.crt
lent=(--secret "id=pipconf,src=$WORK/conf/pip.conf" -v "$certificates:$certificates:ro")
for folder in $(sed -n 's#^.* = \(file://\)\?\(/[^ ]*\)$#\2#p' "$WORK/conf/pip.conf"); do
  folder=${folder%/simple}
  [ ! -d "$folder" ] || lent+=(-v "$folder:$folder:ro")
done

build() {  # TARGET TAG OPTION...
  # Layers: what has not changed is not installed again. (A last WORKDIR that is not there would not be made.)
  ENGINE=buildah bash "$here/namespaces.sh" "$root/deploy/image/build.sh" "$1" --pull-never \
    --layers --isolation chroot --network host --quiet "${lent[@]}" --tag "$2" "${@:3}"
}

bash "$here/namespaces.sh" podman image exists "$base" ||
  bash "$here/namespaces.sh" podman import --quiet --change 'CMD ["python3"]' \
    --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' "$WORK/base.tar" "$base"
seconds() { echo "    $1: $SECONDS s"; SECONDS=0; }
SECONDS=0
build trainer localhost/digits:trainer &  # most of it is waiting for packages
trainer=$!
build serve localhost/digits:registered
build serve localhost/digits:baked --build-arg "MODEL_DIR=$bundle"
wait $trainer
seconds "built"
bash "$here/namespaces.sh" --net "$root/.venv/bin/python" "$here/check.py" "$base" \
  localhost/digits:registered localhost/digits:baked localhost/digits:trainer "$root/$bundle" "$root/$other"
seconds "checked"
