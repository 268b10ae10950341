# Two commands do everything: `make serve` and `make test`. Settings of `sonde` pass through the environment (SONDE_…) or ARGS.
PYTHON ?= python3
PORT ?= 8000
ARGS ?=
JOBS ?= 4
FAST_JOBS ?= 3
VENV := .venv
BIN := $(VENV)/bin
AUDIT := .venv-audit

# JOBS processes take a file of tests each, and compute on one core each: four on two cores, since tests also wait. The
# fast ones wait less, and each process takes some seconds to start: three (FAST_JOBS).
# JOBS=0 runs all in this one, as --pdb needs it.
# Bytecode is kept whatever the environment says: hundreds of processes start in the tests. Tests also sync and remove
# thousands of small files, which is cheaper in memory: TESTS_TMP is /dev/shm where that has 4 GiB to spare.
TESTS_TMP := $(shell df -k --output=avail /dev/shm 2>/dev/null | awk 'NR > 1 && $$1 > 4194304 {print "/dev/shm"}')
PYTEST = $(TESTS_TMP:%=TMPDIR=%) PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

.PHONY: setup setup-dev serve check test test-fast test-properties lint format bench campaign docs lock clean

setup: $(VENV)/.ready
setup-dev: $(VENV)/.ready-dev

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# pip's own bars on a terminal, and nothing of it elsewhere.
QUIET := $(shell [ -t 2 ] || echo --quiet)

$(VENV)/.ready: requirements.lock pyproject.toml | $(VENV)/bin/python
	@echo "Setting up $(VENV): PyTorch and $$(grep -c == requirements.lock) packages, about 2 GB on disk, in some minutes." >&2
	$(BIN)/pip install $(QUIET) --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.ready-dev: requirements-dev.lock $(VENV)/.ready
	$(BIN)/pip install --quiet --requirement requirements-dev.lock
	touch $@

serve: setup          ## set up and serve on 127.0.0.1:$(PORT)
	exec $(BIN)/sonde up --port $(PORT) $(ARGS)

test: setup-dev       ## set up and run the whole suite
	$(PYTEST) $(ARGS)

test-fast: JOBS = $(FAST_JOBS)
test-fast: setup-dev  ## what runs without weights and other processes
	$(PYTEST) -m "not slow and not real and not long" $(ARGS)

test-properties: setup-dev  ## property tests on examples drawn anew, a thousand each
	$(PYTEST) -m hypothesis --hypothesis-profile free $(ARGS)

check: setup-dev      ## lint, types, contracts and the fast tests side by side, in a minute and a half
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target lint test-fast

lint: setup-dev       ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup-dev     ## put the code in shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup-dev      ## benchmarks/RESULTS.md on this machine, in about a quarter of an hour
	$(BIN)/python -m benchmarks.infinity
	$(BIN)/python -m benchmarks.roofline --write
	$(BIN)/python -m benchmarks.forward --write
	$(BIN)/python -m benchmarks.serving --write
	$(BIN)/python -m benchmarks.fairness --write

campaign: setup-dev $(AUDIT)/.ready  ## attack a service for some hours (ARGS="--quick": minutes; "--only poison": a check)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.campaign $(ARGS)

$(AUDIT)/.ready: tests/campaign/audit.txt
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/pip install --quiet --requirement tests/campaign/audit.txt
	touch $@

docs: setup-dev       ## build the documentation into site/, with all links checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Plain pins without index hosts; torch without its local version, so that pip's own settings choose a CPU or a CUDA build.
COMPILE := $(BIN)/pip-compile --quiet --strip-extras --allow-unsafe --no-header --no-annotate
lock: setup-dev       ## resolve pyproject.toml into the lock files (UPGRADE=--upgrade takes newer releases)
	$(COMPILE) $(UPGRADE) --all-build-deps --output-file requirements.lock pyproject.toml
	$(COMPILE) $(UPGRADE) --extra grpc --constraint requirements.lock --output-file requirements-grpc.lock pyproject.toml
	$(COMPILE) $(UPGRADE) --extra dev --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml
	sed -i -e '/^--/d' -e '/^$$/d' -e 's/^\(torch==[0-9.]*\)+.*/\1/' requirements.lock requirements-grpc.lock requirements-dev.lock

clean:
	rm -rf $(VENV) .venv-infinity .venv-rivals $(AUDIT) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist site *.egg-info
