#!/bin/sh
# Makes requirements/runtime.txt and requirements/dev.txt again from pyproject.toml and requirements/build.in: every
# version and hash, for every platform and Python at once. Versions that still fit are kept; `lock.sh --upgrade` takes
# the newest. Needs the network; uv is only used here and lands in a folder that is removed at the end.
set -eu

script_dir=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
cd "$script_dir/.."
python=$(sh scripts/find_python.sh)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"$python" -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install --quiet --disable-pip-version-check 'uv==0.13.9'

compile() {
    output=$1
    shift
    "$scratch/venv/bin/uv" pip compile --quiet --universal --generate-hashes --python-version 3.11 \
        --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' \
        --output-file "$output" "$@" pyproject.toml requirements/build.in
}

compile requirements/runtime.txt "$@"
# The pins of the first are constraints of the second, so that a demo and a test run the same versions.
compile requirements/dev.txt --all-extras --constraint requirements/runtime.txt "$@"
echo "faceward: requirements/runtime.txt and requirements/dev.txt are made anew"
