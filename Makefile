# Needs Python 3.11 or newer, git and make. Uses uv when it is there, else venv and pip.
RECENT := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for each in python3.11 python3.12 python3.13 python3; do $$each -c '$(RECENT)' 2>/dev/null && command -v $$each && break; done)
BIN := .venv/bin
LOCK := --quiet --generate-hashes --no-header --no-emit-index-url --no-annotate --python-version 3.11 pyproject.toml --extra embedded

ifneq ($(shell command -v uv 2>/dev/null),)
VENV = uv venv --quiet --allow-existing --python "$(PYTHON)"
# Compiled once here, rather than by eight processes of the demo at the same moment.
INSTALL := uv pip install --quiet --compile-bytecode --python $(BIN)/python
else
VENV = "$(PYTHON)" -m venv
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
endif

.PHONY: demo test check crash crash-engine chaos sim mutants mutation bench proto docs lock clean

demo: .venv/run.stamp  ## the whole of Tern on this machine; KEEP=1 leaves it running until Ctrl-C
	$(BIN)/tern demo $(if $(KEEP),--keep)

test: .venv/dev.stamp
	$(BIN)/pytest -n 2

check: .venv/dev.stamp
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports && $(BIN)/buf lint
	generated=$$(mktemp -d) && $(BIN)/python proto/generate.py $$generated && diff -r -x __pycache__ $$generated tern/wire/generated && rm -r $$generated

crash: .venv/dev.stamp  ## every boundary of every story, every lost answer, and samples of what is left: five minutes
	CRASH=all $(BIN)/pytest -n 2 tests/faults/test_crash_points.py

crash-engine: .venv/dev.stamp  ## every round trip of an engine, for each kind of change, under load: a quarter of an hour
	CRASH=all $(BIN)/pytest -n 2 tests/engine/test_crash_points.py

chaos: .venv/dev.stamp  ## everything is killed while people work: make chaos SECONDS=300
	$(BIN)/python -m tests.faults.chaos --seconds $(or $(SECONDS),60)

sim: .venv/dev.stamp  ## every single fault, on PostgreSQL; SIM_SHARE=3/10 a tenth of them, PAIRS=1 draws a second one behind each, SEEDS=1000 walks at random
	$(BIN)/python -m tests.simulation $(if $(PAIRS),--pairs $(PAIRS)) $(if $(SEEDS),--seeds $(SEEDS))

mutants: .venv/dev.stamp  ## planted bugs, each of which some test must find
	$(BIN)/python -m tests.faults.mutants

mutation: .venv/mutation.stamp  ## every small change of what decides, each of which some test must find; FILES=… for some
	$(BIN)/python -m tests.faults.mutation $(FILES)

bench: .venv/bench.stamp  ## figures, each beside a baseline measured in the same run; ONLY=dispatch,poll for some
	$(BIN)/python -m benchmarks $(if $(ONLY),--only $(ONLY))

proto: .venv/dev.stamp
	$(BIN)/python proto/generate.py

docs: .venv/dev.stamp  ## docs/tables.md, made of what the tables say of themselves
	$(BIN)/python -m tests.house.tables

lock:
	uv pip compile $(LOCK) --group build --output-file requirements/run.txt
	uv pip compile $(LOCK) --group dev --output-file requirements/dev.txt
	uv pip compile $(LOCK) --group bench --constraint requirements/dev.txt --output-file requirements/bench.txt
	uv pip compile $(LOCK) --group mutation --constraint requirements/dev.txt --output-file requirements/mutation.txt

clean:  ## removes the environment, and the embedded servers' data wherever it lives
	rm -rf "$$(readlink -f .tern/shelter)" .tern .venv .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# A stamp per locked set: the second run installs nothing.
.venv/%.stamp: requirements/%.txt pyproject.toml
	@"$(PYTHON)" -c '$(RECENT)' 2>/dev/null || { echo 'Tern needs Python 3.11 or newer: make PYTHON=/path/to/python3.11' >&2; exit 1; }
	@echo 'Installing what requirements/$*.txt locks'
	@$(VENV) .venv
	@$(INSTALL) --require-hashes --requirement requirements/$*.txt
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@
