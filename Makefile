# Everything runs in .venv, made by `make setup` from constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: setup demo test score bench ui lint

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "Installing into $(VENV): a minute or two the first time"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup
	$(BIN)/python -m experiments.demo

test: setup
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal

score: setup
	$(BIN)/python -m experiments.scoreboard detect --subset quick --strict

bench: setup
	$(BIN)/python -m experiments.bench

ui: setup
	$(BIN)/grad-callbacks ui

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
