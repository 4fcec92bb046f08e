#!/bin/sh
# Prepares a PostgreSQL server for faceward: roles, database, the extension `vector`, and the URLs in config.json.
# ./setup_postgres.sh --help tells the options. The work is done by scripts/postgres_setup, which needs Python only.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
for python in "${PYTHON:-}" "$here/.venv/bin/python" python3 python3.11 python3.12 python3.13 python3.14; do
    [ -n "$python" ] || continue
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
        exec "$python" "$here/scripts/postgres_setup" "$@"
    fi
done
echo "setup_postgres: Python 3.11 or newer is needed, and none was found on the PATH." >&2
echo "  Debian and Ubuntu: apt-get install python3, or name one: PYTHON=/path/to/python3 ./setup_postgres.sh" >&2
exit 1
