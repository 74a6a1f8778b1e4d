# `make` alone lists the targets. Needs Python 3.10 or newer; everything else goes into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# two test workers fit two cores; networks in tests are tiny
WORKERS ?= 2
FUZZ ?= 300
NNDET ?=
NNDET_VENV ?= .venv-nndet
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install test test-nndet attack lint format demo bench clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/'

install: $(STAMP) ## create .venv and install the package with its test and lint tools

# Needed again only when dependencies change; pip's cache makes a second environment quick.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	rm -rf *.egg-info
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test,lint]'
	@touch $@

test: $(STAMP) ## run the test suite; fails below 92 % of the lines
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --cov --cov-report=term:skip-covered --cov-fail-under=92

attack: $(STAMP) ## hostile and damaged files of every format, for longer than the suite does (FUZZ tries a kind)
	NNDET_PSMA_FUZZ=$(FUZZ) $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup tests/attack

# An environment of its own, as nnDetection needs old releases; NNDET is a clone of nnDetection at 97a58f3.
test-nndet: ## make the environment of docs/nndetection.md and run tests/hosts/nndetection against the clone NNDET=DIR
	@test -f "$(NNDET)/nndet/conf/config.yaml" || { echo "NNDET=DIR: a clone of nnDetection is needed"; exit 2; }
	$(PYTHON) -m venv $(NNDET_VENV)
	$(NNDET_VENV)/bin/python -m pip install --quiet 'pip<24.1' 'setuptools<80'
	$(NNDET_VENV)/bin/python -m pip install --quiet -c constraints.txt -e '.[test]'
	$(NNDET_VENV)/bin/python -m pip install --quiet --no-deps -r requirements-nndet.txt
	$(NNDET_VENV)/bin/python -m pip install --quiet -c constraints.txt -r requirements-nndet-rest.txt
	PYTHONPATH="$(NNDET)" OMP_NUM_THREADS=1 $(NNDET_VENV)/bin/python -m pytest -rs tests/hosts/nndetection

lint: $(STAMP) ## format check, lint and type check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP) ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

demo: $(STAMP) ## the whole way on a phantom task, about eleven minutes on two cores
	$(BIN)/nndet_psma demo

bench: $(STAMP) ## time and memory of every stage of the demonstration
	$(BIN)/python benchmarks/demo_stages.py

clean: ## remove what demo and tests leave behind; keeps .venv
	rm -rf demo .pytest_cache .ruff_cache .mypy_cache .hypothesis
