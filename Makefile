# make demo   bundled clip -> data set -> two trained networks -> report -> upscaled clip, in a few minutes on 2 cores
# make check  the tests of a contributor before a commit: no SLURM, MPI or browser, no training beyond a few steps
# make test   all tests; TESTS="-k resum" chooses some
# make docs   the handbook, docs/_build/index.html
# make faults N=200   a campaign of faults and bad files: what survives, what is refused, what is lost
# All set up what they need in .venv, with the versions of constraints.txt. With PORTABLE=1 demo, check and test compute as
# on a processor without AVX-512 and bf16 (tests/portable.env).

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

LIMITS = $(if $(PORTABLE),env $(shell grep -v '^\#' tests/portable.env))

.PHONY: help setup demo check test docs faults lint clean

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
	$(LIMITS) $(BIN)/mpiexec -n $(RANKS) $(BIN)/python -m hpc_vsr.preprocess --recipe preprocess/diamond_sample.toml
	$(LIMITS) $(BIN)/python -m hpc_vsr.launch --config jobs/demo.toml --cluster local
	$(LIMITS) $(BIN)/python -m hpc_vsr.upscale --run runs/demo/compact --input preprocess/sample/diamond_lr.mkv --output runs/demo/upscaled.mp4 --compare

check: setup
	$(LIMITS) $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadscope -m 'not (slurm or mpi or browser or slow)'

test: setup
	$(LIMITS) $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadscope --no-loadscope-reorder --durations 20 $(TESTS)

docs: setup
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build
	@echo docs/_build/index.html

faults: setup
	$(BIN)/python campaign --number $(N) --seed $(SEED)

lint: setup
	$(BIN)/ruff check

clean:
	rm -rf $(VENV) data/diamond_sample runs/demo logs/demo docs/_build
