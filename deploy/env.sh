#!/bin/sh
# Writes .env, which git ignores, with new passwords for deploy/compose.yaml; leaves one that is there alone.
set -eu
cd "$(dirname "$0")/.."
[ ! -e .env ] || { echo ".env is there: remove it for new passwords (the database keeps its old one)"; exit 0; }
secret() { python3 -c 'import secrets; print(secrets.token_urlsafe(24))'; }
umask 077
cat > .env.new <<EOF
POSTGRES_PASSWORD=$(secret)
GRAFANA_PASSWORD=$(secret)
# Keys that callers of the service must send, comma-separated; everybody may call if empty.
API_KEYS=
EOF
mv .env.new .env
echo "wrote .env"
