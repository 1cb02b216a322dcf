# Two commands: `make run` and `make test`. They need python3 (3.11 or newer) and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help run ui test crash lint docs lineage bench clean

help:  ## Say what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

run: $(STAMP)  ## Set up, start PostgreSQL, migrate, load, build, check, and show the campaigns
	@$(BIN)/earmark run

ui: $(STAMP)  ## Open the Dagster UI with the sensors on
	@$(BIN)/earmark ui

test: $(STAMP)  ## Run the tests
	@$(BIN)/pytest -n auto --dist worksteal -q --durations=25 --durations-min=10

crash: $(STAMP)  ## Try to break it, at length: POINTS=1000 SEED=7 make crash (some of it is part of "make test")
	@EARMARK_CRASH_POINTS=$(or $(POINTS),200) EARMARK_CRASH_SEED=$(or $(SEED),0) $(BIN)/pytest -n auto --dist worksteal -q tests/crash

lint: $(STAMP)  ## Check style, types, SQL and dbt's deprecations
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/sqlfluff lint models dbt_project/tests
	$(BIN)/earmark dbt parse --no-partial-parse --warn-error-options '{"error": ["Deprecations"], "silence": ["UnsupportedConstraintMaterialization"]}'
	$(BIN)/dbt-bouncer run --config-file pyproject.toml

docs: $(STAMP)  ## Write what the docs repeat of models and seeds
	@$(BIN)/python docs/generate.py

lineage: $(STAMP)  ## Write a page that shows where each column comes from: target/lineage/index.html
	@test -x $(VENV)-lineage/bin/colibri || { $(PYTHON) -m venv $(VENV)-lineage \
		&& $(VENV)-lineage/bin/pip install -q --disable-pip-version-check dbt-colibri==0.3.7; }
	@$(BIN)/earmark dbt docs generate --quiet
	@$(VENV)-lineage/bin/colibri generate --manifest target/manifest.json --catalog target/catalog.json --output-dir target/lineage

bench: $(STAMP)  ## Print the figures of benchmarks/
	@for file in benchmarks/[a-z]*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

clean:  ## Stop the embedded server and remove what was set up, data included
	@if [ -x $(BIN)/earmark ]; then $(BIN)/earmark db stop; fi
	rm -rf $(VENV) $(VENV)-lineage .earmark target logs

# uv installs the pinned packages in seconds; where it cannot (a mirror that only pip is told of), pip does.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "earmark needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Set PYTHON=python3.12, say."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "python3 cannot make virtual environments: install its venv package (Debian: apt install python3-venv)."; exit 1; }
	@echo "Installing the pinned packages into $(VENV) ..."
	@if $(BIN)/pip install -q --disable-pip-version-check uv 2>/dev/null \
		&& VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install -q --compile-bytecode -c constraints.txt -e '.[dev]' 2>/dev/null; then :; \
	else $(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'; fi
	@touch $@
