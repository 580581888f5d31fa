# Needs make and Python 3.11 or newer with venv; everything else comes from PyPI.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TEST_PROCESSES ?= 4
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help screenshots demo test check audit lock bench chaos coverage endings mutants nightly format build clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# On Python 3.11 everybody installs what CI tests with, by hash; the lock fits no other version. LOCK= takes what is newest.
LOCK ?= requirements/ci.txt

# The stamp is written last, so that an installation that was interrupted is repeated.
$(READY): pyproject.toml requirements/ci.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pgjobs needs Python 3.11 or newer; make PYTHON=python3.12")'
	@echo "Setting up $(VENV) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@if [ -n "$(LOCK)" ] && $(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $(LOCK) && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .; \
	else \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'; \
	fi
	@touch $@

demo: $(READY) ## Watch a queue at work, on an embedded PostgreSQL
	@$(BIN)/pgjobs demo

test: $(READY) ## Run the tests, on an embedded PostgreSQL (PGJOBS_PG_BIN or PGJOBS_TEST_URL for another)
	@$(BIN)/python -m pytest -q -n $(TEST_PROCESSES)

check: $(READY) ## Lint, check the format, the types and the directions of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports

audit: $(READY) ## Ask the advisory database about the locked releases; SKIPPED where it is out of reach
	@$(BIN)/python requirements/audit.py $(BIN) requirements/ci.txt

lock: $(READY) ## Write requirements/ci.txt anew, from pyproject.toml; on Python 3.11
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-tools
	@$(BIN)/python requirements/lock.py requirements/ci.txt

bench: $(READY) ## Take the figures of docs/performance.md: an hour, with other queues beside ours (Redis from apt)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check matplotlib
	@$(BIN)/python -m benchmarks
	@$(BIN)/python -m benchmarks.flat
	@$(BIN)/python -m benchmarks.reports
	@$(BIN)/python -m benchmarks.peers

chaos: $(READY) ## Inject faults under load for two minutes, and see what became of every job (SEED=7 repeats a run)
	@$(BIN)/python -m tests.chaos --jobs 60000 --seed $(or $(SEED),1)

# On 3.11 a traced thread spins at its next call for as long as a signal, or an exception raised from another thread, waits for a thread.
coverage: $(READY) ## Say which branches of the core the tests take, in all processes (95 % at least); needs Python 3.12
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 12) and "a trace hangs on Python 3.11; make coverage PYTHON=python3.13 VENV=.venv-traced")'
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest -q -n $(TEST_PROCESSES) --timeout 300 -W "ignore:unclosed database:ResourceWarning"; failed=$$?; \
		$(BIN)/coverage combine --quiet && $(BIN)/coverage report --fail-under 95 && exit $$failed

endings: $(READY) ## Take the table of docs/endings.md
	@$(BIN)/python -m tests.endings

screenshots: $(READY) ## Draw the pictures of info and top in docs/img anew, on an embedded PostgreSQL
	@$(BIN)/python -m tests.screenshots

mutants: $(READY) ## Break the protocol in some hundred places, see which test notices, and keep it in docs/reliability.md
	@$(BIN)/python -m tests.mutants --write

nightly: $(READY) ## Run the tests with what takes longer, and a million jobs under faults
	@PGJOBS_LONG_S=60 $(BIN)/python -m pytest -q -n $(TEST_PROCESSES)
	@$(BIN)/python -m tests.chaos --jobs 1000000 --seed $(or $(SEED),1)
	@$(BIN)/python -m tests.chaos --jobs 1000000 --calm
	@$(BIN)/python -m tests.mutants

format: $(READY) ## Format the code
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

build: $(READY) ## Build the wheel and the source distribution into dist/
	@$(BIN)/python -m build

clean: ## Remove what was built and cached; the virtual environment stays
	@rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
