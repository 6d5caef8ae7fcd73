# Everything a newcomer needs: `make demo`, `make test`. Works with plain pip; uses uv when it is on PATH.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo up test chaos fuzz mutants bench oracle check lint types imports audit format lock clean

help:  ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/.installed: pyproject.toml constraints.txt
	@if command -v uv >/dev/null 2>&1; then \
	  uv venv -q --allow-existing --python $(PYTHON) .venv && uv pip install -q -p $(BIN)/python -c constraints.txt -e '.[dev]'; \
	else \
	  $(PYTHON) -m venv .venv || { echo "make: Python's venv module is missing; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }; \
	  $(BIN)/python -m pip install -q --disable-pip-version-check --root-user-action=ignore -c constraints.txt -e '.[dev]'; \
	fi
	@touch $@

demo: .venv/.installed  ## the whole story on the embedded stack, in one terminal
	@$(BIN)/byok demo

up: .venv/.installed  ## embedded stack + worker + beat + Flower, until Ctrl-C
	@$(BIN)/byok up

test: .venv/.installed  ## the whole test suite; starts the servers it needs
	@$(BIN)/python -m pytest

chaos: .venv/.installed  ## kill, stop, restart and cut off everything, under way; a table of what was lost (5 min)
	@$(BIN)/python -m tests.chaos

fuzz: .venv/.installed  ## a million damaged tokens and streams; nothing may open but what was made
	@$(BIN)/python -m tests.fuzz

mutants: .venv/.installed  ## take guards out of the code and see that a test notices (5 min)
	@$(BIN)/python -m tests.mutants

.venv/.bench: .venv/.installed
	@if command -v uv >/dev/null 2>&1; then \
	  uv pip install -q -p $(BIN)/python -c constraints.txt -e '.[dev,bench]'; \
	else \
	  $(BIN)/python -m pip install -q --disable-pip-version-check --root-user-action=ignore -c constraints.txt -e '.[dev,bench]'; \
	fi
	@touch $@

bench: .venv/.bench  ## encrypt and decrypt fields, against plain AES-GCM and other libraries (3 min)
	@$(BIN)/python -m benchmarks.fields

oracle: .venv/.installed  ## compare the AWS simulator with a second emulator; needs Python 3.12 or newer
	@$(BIN)/python -m tests.oracle

check: lint types imports audit  ## ruff, mypy, the import contracts, published weaknesses of dependencies

lint: .venv/.installed
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: .venv/.installed
	@$(BIN)/mypy

imports: .venv/.installed
	@$(BIN)/lint-imports --no-cache

audit: .venv/.installed
	@$(BIN)/python .ci/audit.py

format: .venv/.installed  ## rewrite the code in the house format
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

lock:  ## renew constraints.txt and requirements.lock (names, versions and hashes only; needs uv)
	uv pip compile -q --universal --extra dev --extra bench --no-annotate --no-header --no-emit-index-url --no-emit-find-links --upgrade pyproject.toml -o constraints.txt
	uv pip compile -q --universal --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links -c constraints.txt pyproject.toml -o requirements.lock

clean:  ## remove the environment, caches and the embedded stack's data
	rm -rf .venv .byok .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
