#!/bin/sh
# Prints the command of a Python that can make .venv: $PYTHON where that is set, else the first that fits on the PATH.
set -eu

oldest=3.11

# Exit status: 0 fits, 3 too old, 4 can't make a virtual environment. Must parse in any Python.
probe='
import sys
if sys.version_info < (3, 11):
    sys.exit(3)
try:
    import ensurepip, venv
except ImportError:
    sys.exit(4)
'

version_of() {
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || echo unknown
}

status_of() {
    "$1" -c "$probe" >/dev/null 2>&1 && echo 0 || echo $?
}

explain_ensurepip() {
    echo "faceward: $1 (Python $2) has no ensurepip module, so it can't make a virtual environment."
    echo "  Debian and Ubuntu: apt-get install python$2-venv"
    echo "  Elsewhere: install the full Python of your system, or name another one: make PYTHON=/path/to/python3 ..."
} >&2

if [ -n "${PYTHON:-}" ]; then
    if ! command -v "$PYTHON" >/dev/null 2>&1; then
        echo "faceward: PYTHON=$PYTHON is no command here." >&2
        exit 1
    fi
    case $(status_of "$PYTHON") in
        0) printf '%s\n' "$PYTHON" ;;
        3)
            echo "faceward: PYTHON=$PYTHON is Python $(version_of "$PYTHON"); faceward needs $oldest or newer." >&2
            exit 1
            ;;
        4)
            explain_ensurepip "$PYTHON" "$(version_of "$PYTHON")"
            exit 1
            ;;
        *)
            echo "faceward: PYTHON=$PYTHON does not run as a Python interpreter." >&2
            exit 1
            ;;
    esac
    exit 0
fi

found=
incomplete=
for candidate in python3 python3.11 python3.12 python3.13 python3.14; do
    command -v "$candidate" >/dev/null 2>&1 || continue
    case $(status_of "$candidate") in
        0)
            printf '%s\n' "$candidate"
            exit 0
            ;;
        3) found="$found $candidate is $(version_of "$candidate")." ;;
        4) incomplete=${incomplete:-$candidate} ;;
        *) ;; # a pyenv shim of a version that is not installed
    esac
done

if [ -n "$incomplete" ]; then
    explain_ensurepip "$incomplete" "$(version_of "$incomplete")"
else
    echo "faceward: Python $oldest or newer is needed, and none was found on the PATH.$found" >&2
    echo "  Install one (Debian and Ubuntu: apt-get install python3 python3-venv), or name it:" >&2
    echo "  make PYTHON=/path/to/python3 ..." >&2
fi
exit 1
