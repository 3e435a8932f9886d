# `make demo` and `make test` do all set-up themselves: a virtual environment in .venv with the
# exact versions of constraints.txt. `make PYTHON=python3.12 test` chooses another Python.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test nightly bench lint setup clean

demo: $(STAMP)
	$(BIN)/python -m examples.demo

test: $(STAMP) lint
	$(BIN)/python -m pytest

# An hour on two cores: random and damaged models, random layers, whole networks in the Verilog.
nightly: $(STAMP)
	$(BIN)/python -m pytest -m nightly

bench: $(STAMP)
	$(BIN)/python -m examples.bench

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

setup: $(STAMP)

# --no-deps: all that is needed is in constraints.txt, so nothing else can slip in.
$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "neuflow needs Python 3.11 or newer; name one: make PYTHON=python3.12" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "cannot make $(VENV); install the venv module of $(PYTHON)" >&2; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
	  --no-build-isolation --editable .
	@touch $@

clean:
	rm -rf build dist sim_build .pytest_cache .mypy_cache .ruff_cache
