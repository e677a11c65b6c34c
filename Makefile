# One command each; `make` alone lists them. Needs python3 of 3.11 or newer, and nothing else.

# The first of these that is new enough and works: pyenv leaves shims that exist and fail.
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$python; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

# Without mosquitto the broker is iotcore. Packages install mosquitto in folders that are often not on the PATH.
MOSQUITTO := $(shell PATH="$$PATH:/usr/local/sbin:/usr/sbin:/opt/homebrew/sbin" command -v mosquitto)
BROKER := $(if $(MOSQUITTO),,$(INSTALLED)-broker)

# Everything is pinned with its hash, also what builds the source packages: setuptools is installed first, so that pip
# fetches no other for them. GRAPHITE_NO_PREFIX installs carbon into the environment instead of /opt/graphite.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes
PIP_INSTALL_ALL := PYTHONPATH="$(CURDIR)/deploy/local/build" GRAPHITE_NO_PREFIX=True $(PIP_INSTALL) --use-pep517 --no-build-isolation
PIP_INSTALL_PROJECT := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help run test test-docker test-npm test-root test-all lint chaos lock clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 20

run: $(INSTALLED)-run $(BROKER) ## run the whole pipeline here, without Docker, with a simulated gateway or ENVOY_HOST
	@exec $(BIN)/python -m deploy.local

# Two cores carry four processes: most tests wait for programs.
PYTEST := $(BIN)/python -m pytest --numprocesses 4 --dist loadscope --no-loadscope-reorder

test: $(INSTALLED)-dev $(INSTALLED)-broker ## run the tests that need nothing but Python, and Mosquitto and the like where installed
	@$(PYTEST) -m "not (docker or npm or root or recordings)" $(ARGS)

test-docker: $(INSTALLED)-dev ## run the tests of the compose stack (needs Docker)
	@CI=true $(PYTEST) -m docker $(ARGS)

test-npm: $(INSTALLED)-dev ## run the tests that use Node.js packages as validators (needs npm)
	@CI=true $(PYTEST) -m npm $(ARGS)

test-root: $(INSTALLED)-dev ## run the tests that fill disks and lose packets (needs root on Linux, iptables and Mosquitto)
	@CI=true $(PYTEST) -m root $(ARGS)

test-all: $(INSTALLED)-dev $(INSTALLED)-broker ## run every test as CI does, with coverage; what cannot run here fails
	@CI=true $(PYTEST) --cov --cov-report=term-missing:skip-covered $(ARGS)

lint: $(INSTALLED)-dev ## check style and types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

chaos: $(INSTALLED)-dev ## inject random faults for MINUTES=10 and count lost readings; SEED=... repeats a run
	@exec $(BIN)/python -m tests.faults.chaos --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED))

lock: ## pin the newest dependencies that pyproject.toml allows, with hashes (needs uv)
	@command -v uv >/dev/null || { echo "make lock needs uv: https://docs.astral.sh/uv/"; exit 2; }
	$(LOCK) pyproject.toml --extra simulator --output-file requirements.txt
	$(LOCK) pyproject.toml --extra run --output-file requirements-run.txt
	$(LOCK) pyproject.toml --extra broker --output-file requirements-broker.txt
	$(LOCK) pyproject.toml --extra dev --output-file requirements-dev.txt
	echo 'setuptools>=77' | $(LOCK) - --output-file requirements-build.txt

# Extras stay in the pins: pip 23 takes a newer release than the pinned one for `coverage[toml]`, and refuses it unhashed.
LOCK := uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-emit-find-links --no-strip-extras --no-annotate --custom-compile-command "make lock"

clean: ## remove the environment and caches; state/ stays
	rm -rf $(VENV) .coverage .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find services shared deploy tests benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# --- The environment. Stamp files mark what is installed; the tests' packages include those of the run. ---

$(INSTALLED)-venv: requirements-build.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer found: install python3, or name one with make PYTHON=..."; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv module is missing: apt install python3-venv"; exit 2; }
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP_INSTALL) -r requirements-build.txt
	@touch $@

$(INSTALLED)-run: $(INSTALLED)-venv requirements-run.txt pyproject.toml
	@echo "installing what the run needs (under a minute on a fresh machine)"
	@$(PIP_INSTALL_ALL) -r requirements-run.txt
	@$(PIP_INSTALL_PROJECT)
	@touch $@

$(INSTALLED)-dev: $(INSTALLED)-venv requirements-dev.txt requirements-run.txt pyproject.toml
	@echo "installing what the tests need (a minute on a fresh machine)"
	@$(PIP_INSTALL_ALL) -r requirements-dev.txt
	@$(PIP_INSTALL_PROJECT)
	@touch $(INSTALLED)-run $@

$(INSTALLED)-broker: $(INSTALLED)-venv requirements-broker.txt
	@echo "installing iotcore, the MQTT broker for machines without mosquitto"
	@$(PIP_INSTALL) -r requirements-broker.txt || { test -n "$(MOSQUITTO)" && echo "no iotcore for this machine: using mosquitto"; }
	@touch $@
