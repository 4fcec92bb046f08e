# On a fresh machine with Python 3.11 or newer: `make demo`, `make test`.
# Variables: PYTHON=python3.12 (the Python of .venv), PYTEST_ARGS='-k region -x', PYTEST_WORKERS=0 (no parallel runs),
# DEMO_ARGS=..., SERVE_ARGS='--port 9000', LOCK_ARGS=--upgrade

SHELL = /bin/sh
PYTEST_WORKERS = 2
PYTEST_ARGS =
DEMO_ARGS =
SERVE_ARGS =
LOCK_ARGS =

.PHONY: help demo serve test check bench lock clean venv-runtime venv-dev

help:
	@echo 'make demo    enroll and recognise people by region, on real photos (installs what is needed)'
	@echo 'make serve   run the HTTP service on the embedded database, with a key and three calls to try it'
	@echo 'make test    run the tests'
	@echo 'make check   run ruff, mypy and import-linter'
	@echo 'make bench   list the benchmarks'
	@echo 'make lock    make the locked versions again (LOCK_ARGS=--upgrade: the newest)'
	@echo 'make clean   remove .venv and every cache; enrolled data and models stay'

demo: venv-runtime
	@.venv/bin/faceward demo $(DEMO_ARGS)

serve: venv-runtime
	@.venv/bin/faceward serve --trial $(SERVE_ARGS)

test: venv-dev
	@.venv/bin/python -m pytest -n $(PYTEST_WORKERS) --dist worksteal $(PYTEST_ARGS)

check: venv-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	MYPYPATH=scripts/postgres_setup .venv/bin/mypy scripts/postgres_setup
	.venv/bin/lint-imports

bench: venv-dev
	@sh scripts/benchmarks.sh

lock:
	@sh scripts/lock.sh $(LOCK_ARGS)

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist demo-output
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

venv-runtime:
	@sh scripts/venv.sh runtime

venv-dev:
	@sh scripts/venv.sh dev
