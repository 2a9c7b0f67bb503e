# Targets are the steps of the CI. All need Python 3.11 or newer, gcc, git, and a package index; nothing else.
#
#   make serve                       a mesh on http://127.0.0.1:8000 and gRPC 127.0.0.1:50051
#   make serve ARGS="--model DIR"    ... with flags of `radixmesh serve`
#   make test                        everything the CI checks: ruff, mypy, import-linter, pytest and what it covers
#   make quick                       the tests that start no process and open no connection: a minute
#   make pytest ARGS="tests/e2e"     some tests, as pytest's own flags choose them
#   make test-latest                 pytest with the newest packages that pyproject.toml allows
#   make bench ARGS="--requests 64"  load the server that runs
#   make lock                        write constraints.txt anew: the versions that all of these but test-latest install

NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13; do \
    $$python -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$python && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
SERVING := $(VENV)/.serving
READY := $(VENV)/.ready
LOCK := constraints.txt
LOCKED = $(if $(LOCK),-c $(LOCK))
BACKEND := 'setuptools>=77,<86'
PIP := -m pip --disable-pip-version-check
ARGS ?=
COVERAGE := $(BIN)/python -m coverage
QUICK := not processes and not gpu
MESHES := tests/bundled tests/compose tests/e2e tests/serve
MODELS := tests/bundled tests/model_worker tests/parity

.PHONY: help install serve test check ruff mypy lint-imports coverage cover-meshes cover-services cover-models cover-others quick quick-models quick-others pytest test-latest test-gpu bench lock proto clean distclean

help:
	@sed -n '2,/^$$/s/^# \{0,1\}//p' Makefile

# pip's build isolation would fetch a build backend of its own, which no lock reaches.
define install
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name it by PYTHON=..." >&2; exit 1; }
	@echo "Installing $(2) into $(VENV), once: a minute or two, of which torch takes most."
	@echo "An index without a CPU build of torch gives its CUDA build, 3 GB more; name one that has it by PIP_EXTRA_INDEX_URL."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) install --quiet $(LOCKED) $(BACKEND)
	$(BIN)/python $(PIP) install --no-build-isolation $(LOCKED) -e '.[$(1)]'
endef

$(SERVING): pyproject.toml $(LOCK)
	$(call install,serve,what serving needs)
	@touch $@

$(READY): pyproject.toml $(LOCK)
	$(call install,dev,what serving and its tests need)
	@touch $(SERVING) $@

install: $(READY)

serve: $(SERVING)
	@exec $(BIN)/radixmesh serve $(ARGS)

test: check coverage

check: ruff mypy lint-imports

ruff: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

mypy: $(READY)
	$(BIN)/mypy

lint-imports: $(READY)
	$(BIN)/lint-imports

pytest: $(READY)
	$(BIN)/python -m pytest $(ARGS)

# Two parts at once: those with models, and all others.
quick: $(READY)
	$(MAKE) --jobs=2 --output-sync=target quick-models quick-others

quick-models: $(READY)
	$(BIN)/python -m pytest -m "$(QUICK) and not slow" $(MODELS)

quick-others: $(READY)
	$(BIN)/python -m pytest -m "$(QUICK) and not slow" $(addprefix --ignore=,$(MODELS))

# All tests in four parts, two at a time, as those with processes mostly wait for them. What they reach of the code, branches
# counted, is held to `fail_under` in pyproject.toml.
coverage: $(READY)
	$(COVERAGE) erase
	$(MAKE) --jobs=2 --output-sync=target cover-meshes cover-services cover-models cover-others
	$(COVERAGE) combine --quiet
	$(COVERAGE) report

cover-meshes: $(READY)
	$(COVERAGE) run -m pytest -m "processes and not gpu" $(MESHES)

cover-services: $(READY)
	$(COVERAGE) run -m pytest -m "processes and not gpu" $(addprefix --ignore=,$(MESHES))

cover-models: $(READY)
	$(COVERAGE) run -m pytest -m "$(QUICK)" $(MODELS)

cover-others: $(READY)
	$(COVERAGE) run -m pytest -m "$(QUICK)" $(addprefix --ignore=,$(MODELS))

# In an environment of its own, without the lock: what somebody gets who installs the package today.
test-latest:
	$(MAKE) VENV=build/latest LOCK= pytest

# Needs an accelerator.
test-gpu: $(READY)
	$(BIN)/python -m pytest -m gpu $(ARGS)

# Needs a server: start one by `make serve` in another terminal.
bench: $(SERVING)
	$(BIN)/radixmesh bench $(ARGS)

# The newest versions that pyproject.toml allows, resolved without installing them.
lock:
	$(PYTHON) -m venv build/lock
	build/lock/bin/python $(PIP) install --quiet $(BACKEND)
	build/lock/bin/python $(PIP) install --quiet --dry-run --ignore-installed --no-build-isolation \
	    --report build/lock/report.json -e '.[dev]' $(BACKEND)
	build/lock/bin/python .ci/lock.py build/lock/report.json

# Writes services/gateway/faces/grpc/*_pb2* anew from the .proto file beside them. In an environment of its own: the
# generator is older than what the tests need (see generate.py).
proto:
	$(PYTHON) -m venv build/proto
	build/proto/bin/python -m pip install --quiet --disable-pip-version-check 'grpcio-tools==1.72.*'
	build/proto/bin/python services/gateway/faces/grpc/generate.py

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find . -name '*.egg-info' -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
