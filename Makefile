# memr in two commands: `make quickstart` trains a model, `make test` checks everything. Both set up .venv first,
# from the lock file, and re-use it when it is there.
# The first Python that works and that the lock file is for.
PYTHON ?= $(shell for python in python3.11 python3.12 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info[:2] not in {(3, 11), (3, 12)})' 2>/dev/null && command -v $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(shell cat requirements.lock pyproject.toml | cksum | cut -d' ' -f1)

.PHONY: help setup quickstart test test-long lint bench clean
help:
	@echo "make quickstart   set up, train SmolLM2-135M on this machine, remember every answer, write a report"
	@echo "make test         set up, run every check (ruff, mypy, import-linter, pytest)"
	@echo "make test-long    the long property and crash tests"
	@echo "make lint         the static checks alone"
	@echo "make bench        the benchmarks behind README's numbers (long)"
	@echo "make clean        remove .venv and caches; runs/ stays"

setup: $(STAMP)

# torch first and with its dependencies: where pip finds a CPU build it needs none, elsewhere it brings what it needs.
# The rest is pinned completely, so nothing is resolved.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in {(3, 11), (3, 12)})' 2>/dev/null || \
		{ echo "the lock file is for Python 3.11 and 3.12, which were not found: install one, or name it with make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "setting up $(VENV): about 2 minutes and 3.6 GB, once"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check "$$(grep '^torch==' requirements.lock)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/.installed-* && touch $@

quickstart: setup
	@$(BIN)/memr train configs/quickstart.toml

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# Three files at a time, on two cores too: half of the time is waiting for processes that start. In the order of the folders: the long files first.
test: lint
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

# What ran, how long it took and on what machine stays in the project: docs/long_tests.txt.
test-long: SHELL := bash
test-long: setup
	@set -o pipefail; { echo "commit $$(git describe --always --dirty), $$(date -u +%F), $$($(BIN)/python -c 'from benchmarks.results_table import machine; print(machine())')"; \
		$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m long --timeout 3600 --durations=0 --durations-min=0.5; } | tee docs/long_tests.txt

bench: setup
	$(BIN)/python -m benchmarks.all

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
