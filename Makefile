# Every task of the project. `make help` lists them; each one sets up .venv first when needed.

PYTHON ?= python3
BIN := .venv/bin
ONLY ?=
SECONDS ?= 60
CHECKS := lint types contracts tests
FOLDERS := unit integration acceptance

# One more than the smallest machine that we support has cores: the long tests wait half of their time, for a
# beat, a grace, a start.
PYTEST_WORKERS ?= 3
# A worker gets the next file of tests when it is free, in the order of tests/conftest.py.
PYTEST := $(BIN)/pytest --numprocesses $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder

COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade \
	--no-annotate --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

# Start-up is measured and tested here, so Python may keep its compiled files whatever the caller's shell says.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo unplug test $(CHECKS) $(FOLDERS) faults-full fuzz bench format lock clean

help: ## List the tasks
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 16

setup: ## Create .venv from the pinned requirements (nothing to do when it is current)
	@$(PYTHON) scripts/setup.py

demo: setup ## Watch a real training job be matched, run, paid and receipted on this machine
	@$(BIN)/python scripts/demo.py

unplug: setup ## Watch a training job go on at another node after its own lost power
	@$(BIN)/python scripts/unplug.py

# Two at a time: mypy works on one core, and the tests, which follow the quick checks, leave of another.
test: setup ## Run every check and test; all of them run even when one fails
	@$(MAKE) --no-print-directory --keep-going --jobs=2 $(CHECKS)

lint: setup ## Check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## Check types
	$(BIN)/mypy

contracts: setup ## Check that imports point inwards
	$(BIN)/lint-imports

tests: setup .tools/runsc ## Run all tests, the longest first; or `make unit`, `integration`, `acceptance` alone
	$(PYTEST) tests

$(FOLDERS): setup .tools/runsc
	$(PYTEST) tests/$@

.tools/runsc:
	@$(PYTHON) scripts/newer_runsc.py .tools

faults-full: setup ## Cut the network for 60 s and for 20 min, with default periods; takes half an hour
	FAULTS_LENGTH=full $(BIN)/pytest tests/acceptance/faults/test_faults_cuts.py

fuzz: setup ## Fuzz every parser that faces a stranger (SECONDS=60 each, ONLY=receipt for one); needs atheris
	$(BIN)/uv pip install --quiet 'atheris>=3'
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(ONLY)

bench: setup .tools/runsc ## Measure; one JSON line a figure (ONLY=latency for one group)
	@$(BIN)/python -m benchmarks $(ONLY)

format: setup ## Format the code and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: setup ## Resolve and pin the requirements anew, with hashes
	$(COMPILE) requirements/pip.in --output-file requirements/pip.txt
	$(COMPILE) pyproject.toml requirements/build.in --extra dev --output-file requirements/dev.txt
	@! grep -nE '://|^torch' requirements/*.txt || { echo "a pinned file names an address"; exit 1; }

clean: ## Remove what the tasks made, .venv included
	rm -rf .venv .tools .perak-demo dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -rf .import_linter_cache .grimp_cache
	find src tests benchmarks examples scripts -name __pycache__ -type d -prune -exec rm -rf {} +
