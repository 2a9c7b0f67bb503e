# Targets are the steps of the CI. All need Python 3.11 or newer, gcc, git, and a package index; nothing else.
#
#   make serve                       a mesh on http://127.0.0.1:8000 and gRPC 127.0.0.1:50051
#   make serve ARGS="--model DIR"    ... with flags of `radixmesh serve`
#   make test                        everything the CI checks: ruff, mypy, import-linter, pytest
#   make bench ARGS="--requests 64"  load the server that runs

NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13; do \
    $$python -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$python && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
ARGS ?=

.PHONY: help install serve test check ruff mypy lint-imports pytest test-gpu bench proto clean distclean

help:
	@sed -n '2,/^$$/s/^# \{0,1\}//p' Makefile

# One environment for all: what serves, and what checks it.
$(READY): pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name it by PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev]'
	touch $@

install: $(READY)

serve: $(READY)
	@exec $(BIN)/radixmesh serve $(ARGS)

test: check pytest

check: ruff mypy lint-imports

ruff: $(READY)
	$(BIN)/ruff check .

mypy: $(READY)
	$(BIN)/mypy

lint-imports: $(READY)
	$(BIN)/lint-imports

pytest: $(READY)
	$(BIN)/python -m pytest $(ARGS)

# Needs an accelerator.
test-gpu: $(READY)
	$(BIN)/python -m pytest -m gpu $(ARGS)

# Needs a server: start one by `make serve` in another terminal.
bench: $(READY)
	$(BIN)/radixmesh bench $(ARGS)

# Writes services/gateway/grpc/*_pb2* anew from the .proto file beside them. In an environment of its own: the
# generator is older than what the tests need (see generate.py).
proto:
	$(PYTHON) -m venv build/proto
	build/proto/bin/python -m pip install --quiet --disable-pip-version-check 'grpcio-tools==1.72.*'
	build/proto/bin/python services/gateway/grpc/generate.py

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find . -name '*.egg-info' -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
