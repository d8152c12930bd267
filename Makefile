# narrun_async: every target sets itself up (a virtual environment in .venv with the pinned packages).
# make reports every failing command as its own exit status 2; where the exit code matters,
# call `.venv/bin/narrun` or `bin/run-production`, which keep it.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RUN_ENV  := $(VENV)/.installed
DEV_ENV  := $(VENV)/.installed-dev
ANALYSIS_ENV := $(VENV)/.installed-analysis
REAL_ENV := $(VENV)/.installed-real
UNSET_PYTHON := env -u PYTHONPATH -u PYTHONHOME

CONFIG ?=
ARGS   ?=
JOBS   ?= 2

.DEFAULT_GOAL := help
.PHONY: help analysis demo run resume test test-r test-r-exports test-crash test-desktop test-real reliability soak mutations check lint types layers format bench bench-auto lock clean

help: ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(RUN_ENV): requirements.lock pyproject.toml
	$(UNSET_PYTHON) $(PYTHON) bin/check-python
	$(UNSET_PYTHON) $(PYTHON) -m venv $(VENV)
	$(UNSET_PYTHON) $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(UNSET_PYTHON) $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV_ENV): requirements-dev.lock $(RUN_ENV)
	$(UNSET_PYTHON) $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

$(ANALYSIS_ENV): requirements-analysis.lock $(RUN_ENV)
	$(UNSET_PYTHON) $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-analysis.lock
	@touch $@

$(REAL_ENV): requirements-real.lock $(DEV_ENV)
	$(UNSET_PYTHON) $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-real.lock
	@touch $@

analysis: $(ANALYSIS_ENV) ## install what metrics, report, further export formats and browse need

demo: $(ANALYSIS_ENV) ## a simulated experiment and its report, in demo/ (half a minute after the set-up)
	@bin/demo

run: $(RUN_ENV) ## run an experiment (CONFIG=file.yaml, ARGS="--concurrency 16"; default: the simulated smoke run)
	@$(BIN)/python -m narrun_async run $(CONFIG) $(ARGS)

resume: $(RUN_ENV) ## continue an experiment: RESUME=1 EXPERIMENT_ID=<id|latest> make resume
	@RESUME=1 $(BIN)/python -m narrun_async run $(CONFIG) $(ARGS)

test: $(DEV_ENV) ## run the test suite (JOBS=2 tests at a time)
	@$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal $(ARGS)

test-r: $(DEV_ENV) ## the old R readers, run by real R over their files and ours (needs R with RSQLite; two minutes)
	@$(BIN)/python -m pytest -s -o pythonpath=tests/crash tests/r/old_readers.py $(ARGS)
test-r-exports: $(DEV_ENV) ## exports and the R snippet, read by real R (haven, readxl, jsonlite, RSQLite)
	@$(BIN)/python -m pytest -s tests/r/exports_in_r.py $(ARGS)

test-crash: $(DEV_ENV) ## the long campaigns: 200 kills in each of five ways, every crash point, a minute of outage (an hour or so)
	@$(BIN)/python -m pytest tests/crash tests/acceptance --long -s $(ARGS)

test-desktop: $(DEV_ENV) ## files opened in LibreOffice and in a browser, which are installed where that is possible
	@bin/install-test-tools
	@$(BIN)/python -m pytest tests/desktop $(ARGS)

test-real: $(REAL_ENV) ## against llama.cpp's own server with a tiny random model (a minute or two)
	@$(BIN)/python -m pytest tests/real -s $(ARGS)

reliability: $(DEV_ENV) ## the whole suite with its long campaigns; writes docs/reliability.md
	@$(BIN)/python -m pytest --long --reliability -s $(ARGS)

soak: $(DEV_ENV) ## an hour of kill campaigns, ways and seeds drawn anew (ARGS="--soak 5" for five minutes)
	@$(BIN)/python -m pytest tests/crash/test_kill_campaign.py -k soak -s --soak 60 $(ARGS)

mutations: $(DEV_ENV) ## break the program in one place at a time and see the tests go red (docs/mutations.md)
	@$(BIN)/python tests/mutations.py $(ARGS)

check: lint types layers test test-desktop test-real ## everything that CI runs

lint: $(DEV_ENV) ## ruff: lint and format
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(DEV_ENV) ## mypy --strict
	@$(BIN)/mypy

layers: $(DEV_ENV) ## import-linter: the rooms of the house
	@$(BIN)/lint-imports --no-cache

format: $(DEV_ENV) ## rewrite the code in the house format
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: $(DEV_ENV) ## measure the worker against a simulated endpoint (bench/README.md)
	@$(BIN)/python -m bench.run $(ARGS)

bench-auto: $(DEV_ENV) ## --concurrency auto beside fixed numbers, over sockets (twenty minutes)
	@$(BIN)/python -m bench.auto_sockets $(ARGS)

COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links

lock: ## pin the dependencies again (needs uv on the PATH)
	$(COMPILE) --all-extras --group dev --group real pyproject.toml -o .all.lock
	$(COMPILE) --all-extras --group dev -c .all.lock pyproject.toml -o requirements-dev.lock
	$(COMPILE) --extra build -c .all.lock pyproject.toml -o requirements.lock
	$(COMPILE) --extra build --extra analysis --extra formats --extra browse -c .all.lock pyproject.toml \
	    -o requirements-analysis.lock
	$(COMPILE) --extra build --group real -c .all.lock pyproject.toml -o requirements-real.lock
	rm .all.lock

clean: ## remove the virtual environment and caches (never databases, logs or exports)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
