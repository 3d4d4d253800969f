# Everything a fresh machine needs: `make study` and `make test` make their own environment in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: study test check docs fuzz faults clean

study: $(READY)  ## The main job on the embedded model: edit, fine-tune, report. Writes runs/quick.
	$(BIN)/indelible study quick --out runs/quick

test: $(READY)  ## All tests, those on the real model included.
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist worksteal

check: $(READY)  ## Lint, formatting, strict types, and the one-way order of imports.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

fuzz: $(READY)  ## Damaged and hostile input for every reader: 60,000 cases; FUZZ="--seed N --case TARGET:NUMBER" for one.
	PYTHONPATH=tools:tests $(BIN)/python -m fuzz $(FUZZ)

faults: $(READY)  ## Studies killed, short of disk and damaged, thousands of times: is anything lost, done twice or silent?
	$(BIN)/python benchmarks/faults.py $(FAULTS)

docs: $(VENV)/.docs  ## The site, in site/. Search needs a server: python -m http.server -d site
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=tools $(BIN)/mkdocs build --strict

clean:  ## Remove the environment and finished runs.
	rm -rf $(VENV) runs site

# torch comes first and alone: resolved with the rest, pip might prefer a newer build with gigabytes of CUDA packages.
$(READY): pyproject.toml constraints.txt
	@echo "Making the environment in $(VENV), which takes a few minutes."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

$(VENV)/.docs: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@
