#!/bin/sh
# Makes .venv from the lock: venv.sh runtime|dev
#
# A stamp in .venv, written last, says for which checkout, pyproject.toml and lock it was finished. Where it is true
# there is nothing to do and nothing is fetched. Where there is none, .venv was interrupted and is made anew. Where it
# speaks of an older lock, .venv is brought up to date in place.
set -eu

wanted=${1:?usage: venv.sh runtime|dev}
script_dir=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
cd "$script_dir/.."
checkout=$(pwd)
log=.venv/install.log

say() {
    printf 'faceward: %s\n' "$*"
}

stamp_of() {
    printf '%s/.faceward-%s\n' .venv "$1"
}

# What a finished .venv of this set was made from.
key_of() {
    printf '%s %s\n' "$(cat pyproject.toml "requirements/$1.txt" scripts/venv.sh | cksum)" "$checkout"
}

# The version of .venv's Python, and a failure where it does not run or does not know faceward.
venv_python() {
    .venv/bin/python -I -c '
import sys
from importlib.util import find_spec
if find_spec("faceward") is None:
    sys.exit(1)
print("%d.%d" % sys.version_info[:2])
' 2>/dev/null
}

# The dev set contains the runtime set.
is_finished() {
    for name in "$wanted" dev; do
        stamp=$(stamp_of "$name")
        if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(key_of "$name")" ]; then
            version=$(venv_python) || return 1
            if [ -n "${PYTHON:-}" ]; then
                [ "$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>&1)" = "$version" ] || return 1
            fi
            return 0
        fi
    done
    return 1
}

# A finished .venv of this same place, whatever lock it was made from.
can_be_updated() {
    for name in runtime dev; do
        stamp=$(stamp_of "$name")
        [ -f "$stamp" ] || continue
        case $(cat "$stamp") in
            *" $checkout")
                version=$(venv_python) || return 1
                [ "$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" = "$version" ]
                return
                ;;
        esac
    done
    return 1
}

# Passes pip's lines to the log, and says what takes time.
show_progress() {
    while IFS= read -r line; do
        printf '%s\n' "$line" >>"$log"
        case $line in
            *Downloading*.whl*' MB)')
                size="(${line##*\(}"
                file=${line#*Downloading }
                file=${file##*/}
                rest=${file#*-}
                say "  fetching ${file%%-*} ${rest%%-*} $size"
                ;;
            'Installing collected packages:'*,*) say '  unpacking' ;;
        esac
    done
}

# The status goes through a file: a POSIX pipeline has only that of its last command.
pip_install() {
    echo 1 >.venv/pip-status
    {
        status=0
        .venv/bin/python -u -m pip install --no-input --progress-bar off --retries 2 "$@" 2>&1 || status=$?
        echo "$status" >.venv/pip-status
    } | show_progress
    return "$(cat .venv/pip-status)"
}

explain_failure() {
    grep '^ERROR' "$log" | sort -u | tail -n 4 | sed 's/^/  /' || true
    if grep -E -q 'NewConnectionError|NameResolution|name resolution|ConnectTimeout|ProxyError|Network is unreachable' "$log"; then
        say "no package index can be reached from here."
    fi
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    say "pip could not install what $1 names. The whole log: $log"
    say "without a network: on a machine that has one, with this kind of system and Python $version, run in this checkout"
    say "  python$version -m pip download --only-binary :all: --require-hashes -d wheels -r $1"
    say "then copy the folder wheels/ into $checkout and run make again."
} >&2

make_it() {
    requirements=requirements/$wanted.txt
    if can_be_updated; then
        say "bringing .venv up to date with $requirements"
        rm -f "$(stamp_of runtime)" "$(stamp_of dev)"
    else
        [ ! -e .venv ] || say ".venv is not complete or was made elsewhere; making it anew"
        rm -rf .venv
        say "making .venv with $("$python" -V)"
        if ! output=$("$python" -m venv .venv 2>&1); then
            printf '%s\n' "$output" >&2
            say "$python -m venv failed; its words are above." >&2
            exit 1
        fi
    fi
    : >"$log"

    set -- --only-binary :all: --require-hashes -r "$requirements"
    if ls wheels/*.whl >/dev/null 2>&1; then
        say "installing from the folder wheels/ ($requirements)"
        set -- --no-index --find-links wheels "$@"
    else
        say "installing the locked packages ($requirements); the first time, some 200 MB are fetched"
    fi
    if ! pip_install "$@"; then
        explain_failure "$requirements"
        exit 1
    fi
    if ! pip_install --no-index --no-deps --no-build-isolation -e .; then
        tail -n 15 "$log" >&2
        say "faceward itself could not be installed; the end of $log is above." >&2
        exit 1
    fi
    if ! .venv/bin/python -m pip check >>"$log" 2>&1; then
        tail -n 5 "$log" >&2
        say "the lock does not fit pyproject.toml; 'make lock' makes it again." >&2
        exit 1
    fi
    key_of "$wanted" >.venv/stamp.new
    mv .venv/stamp.new "$(stamp_of "$wanted")"
}

if is_finished; then
    exit 0
fi
python=$(sh scripts/find_python.sh)

# Settings of the caller's Python and pip that would install somewhere else.
unset PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX PIP_ROOT PIP_DRY_RUN
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1

if [ "${2:-}" != --locked ]; then
    # The kernel gives the lock back however this ends, so none is ever stale; sh has no such lock of its own.
    exec "$python" -c '
import fcntl, os, sys
lock = os.open(".venv.lock", os.O_RDWR | os.O_CREAT, 0o644)
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("faceward: another make is at work on .venv; waiting for it", flush=True)
    fcntl.flock(lock, fcntl.LOCK_EX)
os.set_inheritable(lock, True)
os.execv("/bin/sh", ["/bin/sh", *sys.argv[1:]])
' "$script_dir/venv.sh" "$wanted" --locked
fi

started=$(date +%s)
make_it
say ".venv is ready ($(($(date +%s) - started)) s)"
