# `make demo` and `make test` each set everything up in .venv first.
VENV ?= .venv
BIN := $(VENV)/bin
TEST_PROCESSES ?= 2
# The first Python of a version that the tests were run with; a name that is there may still not start (pyenv).
PYTHON ?= $(shell for version in 3.11 3.12 3.13; do \
	"python$$version" -c 'import ensurepip' 2>/dev/null && echo "python$$version" && break; done)

.PHONY: demo test lint types setup clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    set up $(VENV) and run the whole job on the embedded world: out/demo/balanced/report.html"
	@echo "make test    set up $(VENV) and run the tests"
	@echo "make lint    ruff        make types   mypy        make clean   remove $(VENV) and out/"

$(VENV)/ready: setup.cfg pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

setup: $(VENV)/ready

demo: $(VENV)/ready
	$(BIN)/vlbias demo out/demo

test: $(VENV)/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(TEST_PROCESSES) --dist loadfile

lint: $(VENV)/ready
	$(BIN)/ruff check vlbias tests examples benchmarks

types: $(VENV)/ready
	$(BIN)/mypy

clean:
	rm -rf $(VENV) out
