#!/bin/sh
# Lists the benchmarks, each with the first line of its docstring. They are run by hand: some take many minutes.
set -eu

script_dir=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
cd "$script_dir/.."

echo "Each takes --json FILE, and --quick for a short run; --help tells the rest."
for file in benchmarks/[a-z]*.py; do
    [ -f "$file" ] || continue
    .venv/bin/python - "$file" <<'PYTHON'
import ast
import pathlib
import sys

path = pathlib.Path(sys.argv[1])
tree = ast.parse(path.read_text(encoding="utf-8"))
described = (ast.get_docstring(tree) or "").partition("\n")[0]
# What is imported by the others has no command line.
if any(isinstance(node, ast.If) and "__name__" in ast.unparse(node.test) for node in tree.body):
    print(f"  .venv/bin/python {path} --json FILE\n      {described}")
PYTHON
done
