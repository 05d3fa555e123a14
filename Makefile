# `make demo` and `make test` each set everything up in .venv first.
VENV ?= .venv
BIN := $(VENV)/bin
TEST_PROCESSES ?= 2
# `datasets` reads what is written, in tests that are skipped without it.
EXTRAS ?= dev,datasets
# The first Python of a version that the tests were run with; a name that is there may still not start (pyenv).
PYTHON ?= $(shell for version in 3.11 3.12 3.13; do \
	"python$$version" -c 'import ensurepip' 2>/dev/null && echo "python$$version" && break; done)

#: Tests that train no network: what a change breaks first, in under a minute on one core.
FAST_TESTS := tests/test_architecture.py tests/test_attributes.py tests/test_errors.py tests/test_files.py \
	tests/test_labels.py tests/test_progress.py tests/test_runstore.py tests/test_settings.py \
	tests/cli/test_cli_parsing.py tests/cli/test_cli_terminal.py tests/simulate/test_simulate_plan.py \
	tests/search/test_search_pareto.py tests/search/test_search_metrics.py tests/balance/test_balance_plan.py

#: `make evidence BUDGET=full UTKFACE=folder` measures for hours, goes on where it stopped, and may run in several
#: processes; without UTKFACE the tables of photographs stay as they are.
BUDGET ?= quick
UTKFACE ?=

#: See setup.cfg for why it comes without what it asks for.
GRADIO := gradio==6.31.0

.PHONY: app demo evidence test test-fast coverage docs lint types audit setup clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    set up $(VENV) and run the whole job on the embedded world: out/demo/balanced/report.html"
	@echo "make test    set up $(VENV), run the tests and the examples in docstrings; make test-fast: under a minute"
	@echo "make evidence  the benchmark, to see that all works; BUDGET=full measures the tables of docs/evidence.md,"
	@echo "               with UTKFACE=folder also those of photographs"
	@echo "make app     add what \`vlbias app\`, the page in a browser, needs"
	@echo "make docs    the documentation as a site, out/site/index.html; make coverage: what the tests reach"
	@echo "make lint    ruff        make types   mypy        make clean   remove $(VENV) and out/"
	@echo "make audit   known holes in the packages that are installed, where their list can be reached"

$(VENV)/ready: setup.cfg pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	@touch $@

setup: $(VENV)/ready

app: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --no-deps $(GRADIO)

demo: $(VENV)/ready
	$(BIN)/vlbias demo out/demo

evidence: $(VENV)/ready
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/evidence.py measure out/evidence --budget $(BUDGET) \
		$(if $(UTKFACE),--utkface '$(UTKFACE)')
	$(BIN)/python benchmarks/evidence.py page $(if $(filter quick,$(BUDGET)),--check)

test: $(VENV)/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --doctest-modules vlbias \
		$$($(BIN)/python -m pip show --quiet gradio 2>/dev/null || echo --ignore=vlbias/app)

test-fast: $(VENV)/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(FAST_TESTS)

coverage: $(VENV)/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder --cov=vlbias --cov-report=term

docs: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Open out/site/index.html"

lint: $(VENV)/ready
	$(BIN)/ruff check vlbias tests examples benchmarks notebooks

types: $(VENV)/ready
	$(BIN)/mypy

audit: $(VENV)/ready
	@$(BIN)/python -m pip install --quiet pip-audit && $(BIN)/pip-audit --skip-editable --progress-spinner off \
		|| echo "make audit: see above: known holes in what is installed, or their list cannot be reached from here." >&2

clean:
	rm -rf $(VENV) out
