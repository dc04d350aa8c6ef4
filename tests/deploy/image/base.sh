#!/usr/bin/env bash
# base.sh OUT.tar: a stand-in for python:3.11-slim-bookworm, from Debian's packages and this machine's Python 3.11.
set -euo pipefail
out=$1
python=$(python3.11 -c 'import sys; print(sys.base_prefix)')
options=(--quiet --format=tar --variant=minbase --mode=root
  --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Check-Date "false"'
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*'
  --dpkgopt='path-exclude=/usr/share/locale/*')
if [ "$python" = /usr ]; then  # Debian's own: a venv over /usr/local, so that the paths match
  options+=(--include=ca-certificates,netbase,tzdata,python3,python3-venv
    --customize-hook='chroot "$1" sh -ec "rm -f /usr/lib/python3.11/EXTERNALLY-MANAGED; python3 -m venv --system-site-packages /usr/local"')
else
  export python
  options+=(--include=ca-certificates,netbase,tzdata,libssl3,libffi8,libsqlite3-0,libbz2-1.0,liblzma5,libreadline8,libncursesw6,libuuid1,libexpat1,libtirpc3,libnsl2,zlib1g
    --customize-hook='tar -C "$python" --exclude=lib/python3.11/site-packages --exclude=lib/python3.11/test --exclude=__pycache__ --exclude="*.a" -c bin/python3.11 include lib/python3.11 $(cd "$python" && ls -d lib/libpython3*.so*) | tar -x -C "$1/usr/local" --no-same-owner'
    --customize-hook='chroot "$1" sh -ec "ldconfig; cd /usr/local/bin; ln -s python3.11 python3; ln -s python3 python; mkdir -p /usr/local/lib/python3.11/site-packages; python3 -m ensurepip --default-pip >/dev/null; find /usr/local -name __pycache__ -prune -exec rm -rf {} +"')
fi
mmdebstrap "${options[@]}" bookworm "$out.part" /etc/apt/sources.list.d/debian.sources
mv "$out.part" "$out"
