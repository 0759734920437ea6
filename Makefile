# Everything here works in .venv, which is made on first use and brought up to date when pyproject.toml changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Where to take PyTorch from: pytorch.org names an index of CPU builds, without a GPU a tenth of the download.
# Left empty, pip's own indexes decide.
TORCH_INDEX ?=

.DEFAULT_GOAL := help
.PHONY: help venv demo test lint types format clean

help:  ## Show these lines.
	@sed -n 's/^\([a-z]*\):.*##  *\(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16
	@echo
	@echo "PYTHON=...        the Python (3.11 or newer) that makes .venv; now: $(PYTHON)"
	@echo "TORCH_INDEX=...   where to take PyTorch from; pytorch.org names the index of CPU builds"
	@echo "ARGS=...          more arguments for demo and test, such as ARGS='tests/laws -x'"

venv: $(INSTALLED)  ## Make .venv and install Tripel with its development tools into it.

demo: $(INSTALLED)  ## Watch a Transformer learn to translate, in minutes; no data needed. ARGS='--target fr' for French.
	$(BIN)/tripel demo $(ARGS)

test: $(INSTALLED)  ## Run the tests. With TRIPEL_DATA=<folder of data sets> those on real data run too.
	$(BIN)/python -m pytest $(ARGS)

lint: $(INSTALLED)  ## Check style and formatting.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)  ## Check types.
	$(BIN)/mypy

format: $(INSTALLED)  ## Put the code into its format.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove .venv, caches and built packages. Runs and data stay.
	rm -rf $(VENV) .pytest_cache .hypothesis .mypy_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Tripel needs Python 3.11 or newer; make it known with PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "The venv module is missing: on Debian and Ubuntu, install python3-venv"; exit 1; }

# pip is not told to upgrade, so a second run after a change of pyproject.toml only adds what is missing.
$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
ifneq ($(TORCH_INDEX),)
	$(BIN)/python -m pip install --index-url $(TORCH_INDEX) --constraint constraints.txt torch
endif
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	@touch $@
