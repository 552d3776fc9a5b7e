# make speedrun   set up, then train, time, judge and publish an entry on the nano track
# make test       the test suite
# make lint       ruff, mypy --strict
# make site       build the board into site/
# make test-all   the slow tests too
#
# PYTHON       the interpreter that makes .venv (3.11 to 3.13)
# TORCH_INDEX  a package index with CPU-only builds of torch, so that a laptop on Linux need not fetch CUDA
# ENTRY        what `make speedrun` submits

PYTHON      ?= python3
TORCH_INDEX ?=
ENTRY       ?= submissions/muon_tweak

VENV  := .venv
BIN   := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: speedrun test test-all lint site setup clean

speedrun: setup
	$(BIN)/speedrun submit $(ENTRY) --track nano

test: setup
	$(BIN)/pytest -m "not slow and not gpu"

test-all: setup
	$(BIN)/pytest -m "not gpu"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

site: setup
	$(BIN)/speedrun board build

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2] <= (3, 13); sys.exit(0 if ok else "make: Python 3.11 to 3.13 is needed; set PYTHON=python3.12, say")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(BIN)/pip install --disable-pip-version-check --quiet --index-url $(TORCH_INDEX) $(shell grep '^torch==' requirements.lock))
	$(BIN)/pip install --disable-pip-version-check --quiet --requirement requirements.lock
	$(BIN)/pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	touch $@

clean:
	rm -rf $(VENV) data site
