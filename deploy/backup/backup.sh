#!/bin/sh
# backup.sh FOLDER PATH... (absolute): copies the paths, and PostgreSQL if MLFLOW_BACKEND_STORE_URI names
# one, to FOLDER/<UTC time>. Keeps the newest KEEP. A name that begins with a dot is no backup.
# With EVERY (minutes) it goes on and makes the next one when the newest is that old.
set -eu
umask 077
folder=$1
shift
mkdir -p "$folder"
cd "$folder"

while [ -n "${EVERY-}" ]; do
  [ -n "$(find . -maxdepth 1 -name '2*Z' -mmin "-$EVERY")" ] || EVERY='' sh "$0" "$folder" "$@"
  sleep 60
done

exec 9> .lock
flock 9
# An earlier run may have been killed.
rm -rf .new .old
mkdir .new
# The database comes first, so that everything it names is among the artifacts.
case ${MLFLOW_BACKEND_STORE_URI-} in
  postgresql*) pg_dump --format custom --file .new/mlflow.dump "postgresql://${MLFLOW_BACKEND_STORE_URI#*://}" ;;
esac
COPY="import sqlite3 as s, sys; s.connect(f'file:{sys.argv[1]}?mode=ro', uri=True).backup(s.connect(sys.argv[2]))"
for path; do
  if [ ! -e "$path" ]; then
    echo "$path is not there yet"
    continue
  fi
  case $path in
    # It may be written to meanwhile: SQLite gives one state of it.
    *.db) python -c "$COPY" "$path" ".new/${path##*/}" ;;
    *) cp -R "$path" .new/ ;;
  esac
done
sync
name=$(date -u +%Y%m%dT%H%M%SZ)
mv .new "$name"
echo "$folder/$name"

ls -dr 2*Z | tail -n "+$((${KEEP:-7} + 1))" | while read -r old; do
  mv "$old" .old
  rm -rf .old
done
