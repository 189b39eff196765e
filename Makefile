# make demo            the whole way on synthetic images; make demo DATA=folder on your own class folders
# make test            all tests
# Each creates the environment .venv first, from the lock file, with nothing but Python 3.11 to 3.13 and a package index.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test lint types format docs lock reference quality leakage equality chaos chaos-score elastic overhead case-study clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "dermaray needs Python 3.11 to 3.13. Received: $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12"; exit 2; }
	@echo "Creating the environment in $(VENV) (about 2 minutes)"
	@$(PYTHON) -m venv $(VENV)
	@awk '/^[^ ]/ { wanted = /^uv==/ } wanted' requirements-dev.lock > $(VENV)/uv.txt
	@$(PIP) --require-hashes -r $(VENV)/uv.txt
	@$(BIN)/uv pip install --quiet --no-config --python $(BIN)/python --require-hashes -r requirements-dev.lock || \
		$(PIP) --no-compile --require-hashes -r requirements-dev.lock # pip may know of a mirror that uv is not told of
	@$(PIP) --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -q -j 0 -x /tests/ $(VENV)/lib > $(VENV)/compiled.txt || true # by all cores, which pip does by one
	@touch $@

demo: $(READY) ## Run the whole system once: images to model to report, scores and a live answer (DATA=folder: on your images)
	@$(BIN)/dermaray demo $(if $(DATA),--data "$(DATA)")

test: $(READY) ## Run all tests
	$(BIN)/pytest --numprocesses 2 --no-loadscope-reorder

lint: $(READY) ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## Check types
	$(BIN)/mypy

format: $(READY) ## Mend style where that can be done by machine
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY) ## Write docs/configuration.md anew, from the docstrings of the keys
	$(BIN)/python -m tests.configuration_page

lock: ## Pin every dependency anew (needs uv)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet -o requirements-dev.lock
	uv pip compile pyproject.toml -c requirements-dev.lock --universal --python-version 3.11 --generate-hashes --no-header \
		--no-emit-index-url --no-emit-find-links --quiet -o requirements.lock

reference: $(READY) ## Make the reference model again, and its figures (HAM10000 under DERMARAY_DATA; see docs/results.md)
	benchmarks/reference.sh

quality: $(READY) ## Make the tables of docs/data-quality.md again (about 2 minutes)
	$(BIN)/python benchmarks/data_quality.py

leakage: $(READY) ## Measure what a leak does to an accuracy, for docs/data-quality.md (about an hour on 2 cores)
	$(BIN)/python benchmarks/leakage.py

equality: $(READY) ## Compare two and three training workers with one, for docs/training.md (about 18 minutes on 2 cores)
	$(BIN)/python -m benchmarks.equality

chaos: $(READY) ## Kill training at ten steps, for docs/training.md (about 25 minutes on 2 cores)
	$(BIN)/python -m benchmarks.chaos_train

chaos-score: $(READY) ## Kill bulk scoring at sixty moments, for docs/scoring.md (about 45 minutes on 2 cores)
	$(BIN)/python -m benchmarks.chaos_score

elastic: $(READY) ## Train on a cluster that shrinks and grows, for docs/training.md (about 8 minutes on 2 cores)
	$(BIN)/python -m benchmarks.elastic

overhead: $(READY) ## Measure what Ray and dermaray add to training, for docs/training.md (about an hour on 2 cores)
	$(BIN)/python -m benchmarks.training step
	$(BIN)/python -m benchmarks.training fit

case-study: $(READY) ## Train the case study's models and tune one, for docs/results.md (two to three hours on 2 cores)
	$(BIN)/python -m benchmarks.case_study

clean: ## Remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
