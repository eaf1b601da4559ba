# Everything here sets itself up first and is safe to repeat. ARGS goes to the command:
#   make demo ARGS="--listings 200 --json figures.json"
PYTHON ?= python3
ARGS ?=
RUN := .venv/bin/
# Tests use their own processes a worker; more workers than cores only make them wait.
WORKERS ?= 2

.PHONY: help install demo test test-unit check format proto docs lock locks-test chaos bench clean

help: ## show this
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: ## make .venv and install everything into it
	@$(PYTHON) locks/install.py

demo: install ## the whole loop on this machine, about four minutes
	@$(RUN)shashin demo $(ARGS)

test: install ## every test that needs no Docker, no root and no cluster
	$(RUN)pytest -n $(WORKERS) $(ARGS)

test-unit: install ## only the tests without Kafka, for quick feedback
	$(RUN)pytest -n $(WORKERS) tests/unit tests/contract $(ARGS)

check: install ## lint, types, imports, generated files
	$(RUN)ruff check .
	$(RUN)ruff format --check .
	$(RUN)mypy
	$(RUN)lint-imports
	$(RUN)python proto/generate.py --check
	$(RUN)python docs/generate_settings.py --check

format: install ## let ruff format and fix
	$(RUN)ruff check --fix .
	$(RUN)ruff format .

proto: install ## write shashin/v1 anew from proto/
	$(RUN)python proto/generate.py

docs: install ## write docs/settings.md anew from the settings classes
	$(RUN)python docs/generate_settings.py

lock: install ## resolve pyproject.toml into locks/ (ARGS=--upgrade for newer versions)
	$(RUN)python locks/lock.py $(ARGS)

locks-test: install ## start each service with nothing but its own lock, two minutes (ARGS="router ...")
	@$(RUN)python -m locks.test $(ARGS)

chaos: install ## kill every service at every boundary, at most 15 minutes (ARGS=--quick: 4)
	@$(RUN)python -m tests.chaos $(ARGS)

bench: install ## speed and memory, as JSON and a table
	@$(RUN)python -m bench $(ARGS)

clean: ## remove what was built, but neither .venv nor the state folder
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
