# Everything runs in .venv, made by `make setup` from constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal
export MLFLOW_DISABLE_TELEMETRY := true

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all test-slow test-numerics score bench reliability syllabus ui docs site matrix lint

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{ printf "  make %-14s %s\n", $$1, $$2 }'

setup: $(VENV)/.installed ## install everything into .venv

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "Installing into $(VENV): a minute or two the first time"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup ## train 14 small networks, some guarded, and draw what happened
	$(BIN)/python -m experiments.demo

test: setup ## the quick tests of every folder: under 5 minutes on two cores
	$(PYTEST) -m "not slow and not gpu"

test-all: setup ## all tests: servers, kills, PostgreSQL, sharding, every config
	$(PYTEST)

test-slow: setup ## what neither `make test` nor `make test-numerics` has
	$(PYTEST) -m "(slow or gpu) and not numerics"

test-numerics: setup ## the tests of outcomes, under every rounding that this processor has
	$(BIN)/python -m tests.support.numerics

score: setup ## the scoreboard of the detection, on its quick part
	$(BIN)/python -m experiments.scoreboard detect --subset quick --strict

syllabus: setup ## every cause and every cure as runs, and the papers; a second call continues
	$(BIN)/python -m experiments.syllabus
	$(BIN)/python -m experiments.papers

bench: setup ## what the callback costs
	$(BIN)/python -m experiments.bench

reliability: setup ## what a journal survives: some 2000 faults, an hour; a second call continues
	$(BIN)/python -m experiments.reliability

ui: setup ## open the MLflow UI
	$(BIN)/grad-callbacks ui

docs: setup ## write docs/thresholds.md anew
	$(BIN)/python -m experiments.thresholds

site: setup ## build the documentation into build/site, strictly and without the network
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "To read it: $(BIN)/python -m http.server --bind 127.0.0.1 --directory build/site"

matrix: ## the smoke tests with every Python that is here, oldest to newest versions; names what was not run
	$(PYTHON) experiments/matrix.py

lint: setup ## style, types, the order of imports, docs/thresholds.md up to date
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m experiments.thresholds --check
