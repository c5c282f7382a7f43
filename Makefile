# make demo   bundled clip -> data set -> trained network -> report -> upscaled clip, in 4 minutes on 2 cores after installation
# make test   all tests
# make docs   the handbook, docs/_build/index.html
# make faults N=200   a campaign of faults and bad files: what survives, what is refused, what is lost
# All set up what they need in .venv, with the versions of constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
RANKS ?= 2
# Tests side by side: two groups mostly wait for SLURM, the third computes. 0 runs one test after the other.
WORKERS ?= 3

# Faults of each family, and which.
N ?= 100
SEED ?= 0

.PHONY: help setup demo test docs faults lint clean

help:
	@sed -n 's/^# //p' Makefile

setup: $(VENV)/installed

$(VENV)/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(if $(HASHED),$(PIP) $(shell grep ^torch== constraints.txt))
	$(if $(HASHED),$(PIP) --no-deps --require-hashes --requirement constraints-hashed.txt)
	$(PIP) $(if $(HASHED),--no-deps --no-build-isolation) --constraint constraints.txt --editable '.[mpi,fields,export,docs,dev]'
	touch $@

demo: setup
	$(BIN)/mpiexec -n $(RANKS) $(BIN)/python -m hpc_vsr.preprocess --recipe preprocess/diamond_sample.toml
	$(BIN)/python -m hpc_vsr.launch --config jobs/demo.toml --cluster local
	$(BIN)/python -m hpc_vsr.upscale --run runs/demo --input preprocess/sample/diamond_lr.mkv --output runs/demo/upscaled.mp4 --compare true

test: setup
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadscope --no-loadscope-reorder

docs: setup
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build
	@echo docs/_build/index.html

faults: setup
	$(BIN)/python tests/faults --number $(N) --seed $(SEED)

lint: setup
	$(BIN)/ruff check

clean:
	rm -rf $(VENV) data/diamond_sample runs/demo logs/demo docs/_build
