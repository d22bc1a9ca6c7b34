# Everything runs in .venv, which is made here with nothing but Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One thread a test process: two of them share two cores better than four threads do. Test processes have no terminal,
# so its width is given.
PYTEST_WORKERS ?= 2
PYTEST := COLUMNS=120 OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/pytest

.DEFAULT_GOAL := help
.PHONY: help demo test slow lint types docs clean venv

help:
	@echo 'make demo    install torchloom and train five kinds of network on real data'
	@echo 'make test    install what tests need and run them'
	@echo 'make slow    run the tests that make test leaves out for their time'
	@echo 'make lint    style, docstrings and layers'
	@echo 'make types   mypy'
	@echo 'make docs    write docs/reference.md from the registry'
	@echo 'make clean   remove what building and testing leave behind'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

venv: $(BIN)/python

# What an earlier build left in build/ would otherwise go into the wheel too.
demo: venv
	rm -rf build
	$(BIN)/pip install --quiet .
	$(BIN)/torchloom train -m sweep=demo

.PHONY: install-test install-dev
install-test: venv
	$(BIN)/pip install --quiet --editable '.[test]'

install-dev: venv
	$(BIN)/pip install --quiet --editable '.[dev]'

test: install-test
	$(PYTEST) -n $(PYTEST_WORKERS) --dist worksteal --cov --cov-report=term -m 'not slow and not gpu and not tpu'

slow: install-test
	$(PYTEST) -m 'slow and not gpu and not tpu'

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: install-dev
	$(BIN)/mypy

docs: install-test
	$(BIN)/python docs/make_reference.py

clean:
	rm -rf build dist .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -path ./$(VENV) -prune -o -name '__pycache__' -type d -exec rm -rf {} +
	rm -rf ./*.egg-info core/*.egg-info plugins/*.egg-info
