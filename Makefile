# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Nothing calls home, in any process started from here.
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: setup demo test lint chaos bench fuzz clean

setup: $(VENV)/.installed

# torch goes first and through pip: a local CPU build is taken where there is one.
$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "insitu needs Python 3.11, 3.12 or 3.13; say which: make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

demo: setup
	rm -rf demo
	$(BIN)/insitu-sim demo --out demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/pytest --numprocesses auto -m "not federation"
	$(BIN)/pytest -m "federation and not chaos"

# What kills processes at many more points than `make test` does, and takes its time.
chaos: setup
	$(BIN)/pytest -m chaos

bench: setup
	$(BIN)/insitu-sim bench

# Every parser for SECONDS; what is found is left in build/fuzz. Nothing but this needs atheris: it is not in the lock.
SECONDS ?= 60
fuzz: setup
	$(BIN)/pip install --quiet atheris==3.0.0
	for target in $$($(BIN)/python tests/fuzzing/fuzz.py); do \
		echo "fuzzing $$target"; \
		OMP_NUM_THREADS=1 $(BIN)/python tests/fuzzing/fuzz.py $$target --seconds $(SECONDS) || exit 1; \
	done

# Everything that make and the tools have made here.
clean:
	rm -rf $(VENV) demo build dist *.egg-info .*_cache .hypothesis
