# `make help` lists what there is. Everything runs in .venv, which the first target that needs it creates.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
SHELL := /bin/bash
TABLES := $(basename $(notdir $(wildcard conf/table/*.yaml)))
BUDGET ?= paper
JOBS ?= 1

.DEFAULT_GOAL := help
.PHONY: help install run test check smoke tables figures report status clean $(TABLES)

help: ## this list
	@grep -hE '^[a-z0-9_-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12
	@for table in $(TABLES); do printf '%s\t%s\n' $$table "trains what that table lacks and renders it: BUDGET=paper|short|smoke JOBS=1 MINUTES=" | expand -t 12; done

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("ssl_dgm needs Python 3.11 or newer; name one with PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

install: $(STAMP) ## .venv with the package and what its tests need

run: $(STAMP) ## M1+M2 on scikit-learn's digits, 100 labels, 5 seeds at once: a few minutes
	$(BIN)/python -m ssl_dgm.train data=digits labels=100 'seeds=[0,1,2,3,4]'

test: $(STAMP) ## the whole suite, a process per core, eight at most
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile

check: $(STAMP) ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

smoke: $(STAMP) ## the main job in seconds, in a temporary folder
	folder=$$(mktemp -d) && $(BIN)/python -m ssl_dgm.train budget=smoke 'seeds=[0,1]' runs=$$folder; code=$$?; rm -rf $$folder; exit $$code

$(TABLES): $(STAMP)
	$(BIN)/python -m ssl_dgm.table $@ --budget $(BUDGET) --jobs $(JOBS) $(if $(MINUTES),--minutes $(MINUTES))

tables: $(STAMP) ## every table, one after the other, as far as the data on this machine allow: BUDGET= JOBS= MINUTES=
	$(BIN)/python -m ssl_dgm.table all --budget $(BUDGET) --jobs $(JOBS) $(if $(MINUTES),--minutes $(MINUTES))

figures: $(STAMP) ## results/figures/: trains the runs that they lack and draws them: MINUTES=
	$(BIN)/python -m ssl_dgm.figures figure=all $(if $(MINUTES),minutes=$(MINUTES)) $(if $(filter-out file default,$(origin BUDGET)),budget=$(BUDGET))

report: $(STAMP) ## results/README.md and the results in README.md, of the rows that are there
	$(BIN)/python -m ssl_dgm.table --report

status: $(STAMP) ## how far the cells of every table are, at BUDGET
	$(BIN)/python -m ssl_dgm.table all --budget $(BUDGET) --status

clean: ## removes .venv and caches, never runs/ or results/
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis dist build *.egg-info
