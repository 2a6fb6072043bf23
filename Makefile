# make demo: environment and the main job; make test: environment and all tests.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STUDY ?= configs/demo.yaml

.PHONY: demo test lint bench env clean

demo: env
	$(BIN)/topocal run $(STUDY)

test: env
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: env
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The peers that it compares with are installed for it alone.
bench: env
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable ".[bench]"
	$(BIN)/python -m benchmarks

env: $(VENV)/.installed

# The lock file pins every version; a CPU or GPU build of torch that is already there is kept.
$(VENV)/.installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable ".[train,report,trees,farm,xrootd,dev]"
	touch $@

clean:
	rm -rf $(VENV) runs build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
