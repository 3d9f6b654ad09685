# `make help` lists what there is. Everything runs in .venv, which the first target that needs it creates.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
SHELL := /bin/bash

.DEFAULT_GOAL := help
.PHONY: help run test check smoke clean

help: ## this list
	@grep -hE '^[a-z0-9_-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("ssl_dgm needs Python 3.11 or newer; name one with PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

install: $(STAMP) ## .venv with the package and what its tests need

run: $(STAMP) ## M1+M2 on scikit-learn's digits, 100 labels, 5 seeds at once: a few minutes
	$(BIN)/python -m ssl_dgm.train data=digits labels=100 'seeds=[0,1,2,3,4]'

test: $(STAMP) ## the whole suite
	$(BIN)/python -m pytest

check: $(STAMP) ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

smoke: $(STAMP) ## the main job in seconds, in a temporary folder
	folder=$$(mktemp -d) && $(BIN)/python -m ssl_dgm.train budget=smoke 'seeds=[0,1]' runs=$$folder; code=$$?; rm -rf $$folder; exit $$code

clean: ## removes .venv and caches, never runs/ or results/
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis dist build *.egg-info
