PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= 2
PYTEST = $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal
CPU_INDEX := https://download.pytorch.org/whl/cpu

# TORCH=cpu: torch without CUDA, from PyTorch's own index; a version with +cpu comes before the same one without.
ifeq ($(TORCH),cpu)
EXTRA_INDEX := --extra-index-url $(CPU_INDEX)
else ifneq ($(TORCH),)
$(error TORCH=$(TORCH) is not known: leave it out, or TORCH=cpu)
endif

.PHONY: help venv demo test test-tools test-fast test-shuffled lint clean

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

venv: .venv/.made  ## the environment: .venv, from constraints.txt; TORCH=cpu for torch without CUDA

.venv/.made: constraints.txt setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "edge-trgl needs Python 3.10 or newer; try make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	@$(if $(EXTRA_INDEX),,$(BIN)/python -m tools.install.download_notice)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(EXTRA_INDEX) --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: venv  ## train on the bundled images under 230 MiB (more with a CUDA build of torch), export, check, report
	$(BIN)/edge-trgl train --budget-mb $$($(BIN)/python -m tools.install.demo_budget) --export

test: venv  ## the test suite, on two cores (WORKERS=2)
	$(PYTEST) -m 'not tool'

test-tools: venv  ## that the benchmarks under tools/ work, with tiny sizes
	$(PYTEST) -m tool

test-fast: venv  ## what takes a moment a test: for the everyday loop
	$(PYTEST) -m 'not slow and not data and not tool'

test-shuffled: SEED := $(shell date +%s)
test-shuffled: venv  ## all tests, file by file in the order of SEED, with examples drawn anew
	$(PYTEST) --random-order-bucket module --random-order-seed $(SEED) --hypothesis-profile drawn

lint: venv  ## ruff, mypy, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:  ## everything that make made, but no run
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
