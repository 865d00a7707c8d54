# Every target does its own set-up: a clone and Python 3.11 or newer are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-e2e faults soak test-gpu test-kernels check bench nano lock clean

help: ## Show what each target does
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(READY) ## Install labelmill and everything it needs into .venv, pinned by constraints.txt

$(READY): pyproject.toml constraints.txt $(wildcard model/*.c model/kernels/*.c)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "labelmill needs Python 3.11 or newer, but $(PYTHON) is $$($(PYTHON) --version 2>&1): make PYTHON=python3.12 setup"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
		|| { echo "creating $(VENV) failed; on Debian and Ubuntu: apt install python3-venv"; rm -rf $(VENV); exit 1; }
	@echo "installing into $(VENV) (the first time this takes some minutes) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup ## Label a few dozen images end to end on this machine, into labelmill-demo/
	@$(BIN)/labelmill demo

test: setup ## Run the tests (under 10 minutes on 2 cores)
	@$(BIN)/python -m pytest -n auto --dist loadfile

test-e2e: setup ## Do what the documents say, line by line, with clusters and browsers (some minutes)
	@$(BIN)/python -m pytest -m e2e -n auto --dist loadfile

faults: setup ## Kill processes and nodes, and let the store fail, in runs that must lose nothing (some minutes)
	@$(BIN)/python -m pytest -m faults -n auto tests/faults

soak: setup ## Kill processes at random for 15 minutes; the dataset must be that of an undisturbed run
	@$(BIN)/python -m pytest -m soak -s tests/faults

test-gpu: setup ## Run the tests that need a GPU
	@$(BIN)/python -m pytest -m gpu

test-kernels: setup ## Test the GPU kernels in Triton's interpreter, without a GPU (installs Triton, 1 GB)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[kernels]'
	@$(BIN)/python -m pytest tests/model/test_paged_latent_decode.py

check: setup ## Lint, check types and hold the import arrows
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache > $(VENV)/lint-imports.log || { cat $(VENV)/lint-imports.log; exit 1; }

bench: setup ## Measure images/s and tokens/s of the engine on this machine
	@$(BIN)/labelmill bench

nano: setup ## Train the built-in checkpoint anew, into build/nano (hours on 2 cores; a stopped run goes on)
	@$(BIN)/python -m model.nano.train --work build/nano

lock: ## Resolve constraints.txt anew from pyproject.toml (torch, pillow and ray stay as pinned here)
	@rm -rf $(VENV)-lock && $(PYTHON) -m venv $(VENV)-lock
	@printf 'torch==2.13.0\npillow==12.3.0\nray==2.60.0\n' > $(VENV)-lock/pins.txt
	@$(VENV)-lock/bin/pip install --quiet -c $(VENV)-lock/pins.txt -e '.[dev]'
	@{ grep '^#' constraints.txt; $(VENV)-lock/bin/pip freeze --exclude-editable | sed -E 's/\+cpu.*//; s/ @ .*//'; } > $(VENV)-lock/new
	@mv $(VENV)-lock/new constraints.txt && rm -rf $(VENV)-lock

clean: ## Remove what make and the demo have created
	rm -rf $(VENV) $(VENV)-lock labelmill-demo build *.egg-info
