.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

.PHONY: install
install: $(INSTALLED) ## create .venv with the exact pinned versions

.PHONY: demo
demo: $(INSTALLED) ## distil a small model from two teachers, offline
	$(BIN)/stella run demo

.PHONY: demo-retrieval
demo-retrieval: $(INSTALLED) ## a dense student, late interaction and a reranker from the same pairs, offline
	$(BIN)/stella run demo_retrieval

.PHONY: demo-api
demo-api: $(INSTALLED) ## distil from three teachers behind APIs on this machine, offline
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo-api]'
	$(BIN)/python -m tests.api_server.demo

.PHONY: test
test: $(INSTALLED) ## run the tests of every subject, some minutes
	$(BIN)/python -m pytest

.PHONY: test-slow
test-slow: $(INSTALLED) ## run the long tests: kills, whole graphs, launchers, object stores
	$(BIN)/python -m pytest -m slow

.PHONY: browser
browser: $(INSTALLED) ## materialise the demo in the UI with a headless Chromium; screenshots go to var/screenshots
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[browser]'
	$(BIN)/python -m pytest --numprocesses=0 tests/browser

.PHONY: check
check: $(INSTALLED) ## lint, format, types, import order, declared dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .

.PHONY: docs
docs: $(INSTALLED) ## write the tables of docs/recipe.md from the recipe's models
	$(BIN)/python -m stella_assets.recipe.reference

.PHONY: ui
ui: $(INSTALLED) ## the Dagster UI on 127.0.0.1:3000
	$(BIN)/stella ui

.PHONY: bench
bench: $(INSTALLED) ## all benchmarks, about an hour; DATA=folder with corpus/ and eval/ adds those on real texts
	$(BIN)/python -m pytest -m bench
	$(BIN)/python -m benchmarks.relative_similarity
	$(BIN)/python -m benchmarks.snapshot_layout
	$(BIN)/python -m benchmarks.training_reads
	$(BIN)/python -m benchmarks.store_scale
	$(BIN)/python -m benchmarks.kills
	$(BIN)/python -m benchmarks.api_throughput
	$(BIN)/python -m benchmarks.seeds
	$(BIN)/python -m benchmarks.year
	$(BIN)/stella run demo && $(BIN)/python -m benchmarks.evaluation
	$(BIN)/python -m benchmarks.commands
	$(BIN)/stella reproduce demo
	$(if $(DATA),$(BIN)/python -m benchmarks.corpus steps --data $(DATA))
	$(if $(DATA),$(BIN)/python -m benchmarks.corpus copies --data $(DATA))
	$(if $(DATA),$(BIN)/python -m benchmarks.corpus planted --data $(DATA))
	$(if $(DATA),$(BIN)/python -m benchmarks.corpus semantic --data $(DATA))
	$(if $(DATA),$(BIN)/python -m benchmarks.training --data $(DATA)/corpus)
	$(if $(DATA),$(BIN)/python -m benchmarks.closed_form --data $(DATA)/corpus)
	$(if $(DATA),$(BIN)/python -m benchmarks.encoding --data $(DATA)/corpus)
	$(if $(DATA),$(BIN)/python -m benchmarks.increment --data $(DATA)/corpus)
