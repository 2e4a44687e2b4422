# make help lists what there is.

PYTHON ?= python3
PYTHON_OLDEST ?= python3.10
VENV := .venv
BIN := $(VENV)/bin

# Flower: no telemetry, no update check, no installation of its own, and a home of this checkout.
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION := 1
export RAY_USAGE_STATS_ENABLED := 0
export FLWR_HOME := $(CURDIR)/.flwr

.PHONY: help setup run flower test test-quick test-oldest lint docs proto check-release clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 15

setup: $(VENV)/.installed ## make .venv and install what a run needs

run: setup ## train over 20 simulated Jetsons, and compare with random selection at MAXN
	@$(BIN)/wattfed simulate --against random:maxn

flower: $(VENV)/.installed-dev ## the same run on Flower's Simulation Runtime (Ray)
	@$(BIN)/wattfed flower

# files are run as tests/conftest.py sorts them; what one process has compiled, the others need not
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder

# four workers for two cores: tests of real processes wait much
test: $(VENV)/.installed-dev ## the whole test suite
	@$(PYTEST) -n 4

test-quick: $(VENV)/.installed-dev ## fewer examples, no tests that start programs, no studies
	@HYPOTHESIS_PROFILE=quick $(PYTEST) -n 2 -m "not processes and not studies"

test-oldest: .venv-oldest/.installed ## its Flower part on Flower 1.30, the newest for JetPack 6
	@.venv-oldest/bin/python -m pytest tests/strategies tests/client tests/server

lint: $(VENV)/.installed-dev ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

docs: $(VENV)/.installed-dev ## the documentation site, in build/docs
	@$(BIN)/python -m sphinx -q -W --keep-going docs build/docs
	@echo build/docs/index.html

# The generated code is committed, so that installing needs no compiler. It must not be newer than
# the protobuf that the oldest supported Flower allows (1.30: 5.28), and older is accepted for one
# major version: so the last grpcio-tools makes it that writes 5.27.
proto: ## the agent's messages, anew from its agent.proto (needs Python 3.11)
	@python3.11 -m venv build/proto && build/proto/bin/pip install -q grpcio-tools==1.67.1 setuptools
	@build/proto/bin/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. \
	  wattfed/client/agent/proto/agent.proto

check-release: $(VENV)/.installed ## build the wheels, and install them in a fresh environment for each extra
	@PYTHON=$(BIN)/python release/check.sh

clean: ## remove the environment and caches, not the results
	rm -rf $(VENV) .venv-oldest .flwr .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist

# both distributions of this tree, and torchvision
OURS := -e release/powerctl -e '.[vision]'

$(VENV)/.installed: pyproject.toml release/powerctl/pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "wattfed needs Python 3.11 or newer here; try: make PYTHON=python3.11 ..."; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip uninstall -qqy wattfed # when one that held powerctl leaves, so does powerctl
	@echo "installing into $(VENV), which takes about a minute"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(OURS)
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	  -e release/powerctl -e '.[sim,dev,docs]'
	@touch $@

.venv-oldest/.installed: pyproject.toml release/powerctl/pyproject.toml constraints-oldest.txt
	@test -x .venv-oldest/bin/python || $(PYTHON_OLDEST) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check \
	  -c constraints-oldest.txt $(OURS) pytest pytest-timeout hypothesis
	@touch $@
