# Every target installs what it needs first and is idempotent. ARGS is passed to the command:
#   make demo ARGS="--listings 200 --json figures.json"
PYTHON ?= python3
ARGS ?=
RUN := .venv/bin/
# Where it is set, each of the many processes that start compiles all that it imports, and takes twice as long.
unexport PYTHONDONTWRITEBYTECODE
# Each test worker runs its own processes; more workers than cores do not help.
WORKERS ?= 2
# Tests on a cluster mostly wait for pods.
CLUSTER_WORKERS ?= 4

.PHONY: compose-check compose-up compose-test help install demo test test-unit check format proto docs lock locks-test cluster-test chaos browser-test fuzz screenshots drills year bench bench-peers images clean

help: ## show this help
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: ## create .venv and install everything into it
	@$(PYTHON) locks/install.py

demo: install ## run the whole pipeline on this machine, about four minutes
	@$(RUN)shashin demo $(ARGS)

test: install ## run all tests that need no Docker, no root and no cluster
	$(RUN)pytest -n $(WORKERS) $(ARGS)

test-unit: install ## run only the tests without Kafka, for quick feedback
	$(RUN)pytest -n $(WORKERS) tests/unit tests/contract $(ARGS)

check: install ## check lint, types, imports and generated files
	$(RUN)ruff check .
	$(RUN)ruff format --check .
	$(RUN)mypy
	$(RUN)lint-imports
	$(RUN)python proto/generate.py --check
	$(RUN)python docs/generate_settings.py --check
	$(RUN)python docs/generate_metrics.py --check
	$(RUN)python k8s/generate_crds.py --check
	$(RUN)python -m monitoring --check

format: install ## format and fix with ruff
	$(RUN)ruff check --fix .
	$(RUN)ruff format .

proto: install ## regenerate shashin/v1 from proto/
	$(RUN)python proto/generate.py

docs: install ## regenerate docs/settings.md, docs/metrics.md, docs/custom-resources.md, k8s/crds, rules and dashboards
	$(RUN)python docs/generate_settings.py
	$(RUN)python docs/generate_metrics.py
	$(RUN)python k8s/generate_crds.py
	$(RUN)python -m monitoring

lock: install ## resolve pyproject.toml into locks/ (ARGS=--upgrade to upgrade)
	$(RUN)python locks/lock.py $(ARGS)

locks-test: install ## start each service with only its own lock, two minutes (ARGS="router ...")
	@$(RUN)python -m locks.test $(ARGS)
	@$(RUN)python -m locks.client

cluster-test: install ## test the parts and then the whole system on the Kubernetes of SHASHIN_TEST_KUBECONFIG
	@$(RUN)python -m tests.on_kubernetes.images
	$(RUN)pytest -n $(CLUSTER_WORKERS) tests/cluster
	@$(RUN)python -m tests.on_kubernetes $(ARGS)

chaos: install ## kill every service at every failpoint, up to 15 minutes (ARGS=--quick: 4)
	@$(RUN)python -m tests.chaos $(ARGS)

fuzz: install ## look for inputs that crash decoding, filters and queries, 10 minutes (ARGS="--seconds 60")
	@$(RUN)python -m tests.fuzz $(ARGS)

browser-test: install ## test the search page in Chromium (SHASHIN_TEST_CHROMIUM=/path/to/chromium)
	$(RUN)pytest -n $(WORKERS) tests/browser $(ARGS)

screenshots: install ## take screenshots of the search page into build/screenshots, to be looked at
	@PYTHONPATH=.:catalogue $(RUN)python -m tests.browser.screenshots

drills: install ## cause each alert in a running system that a Prometheus watches, 20 minutes (ARGS="-k ShashinGhosts")
	$(RUN)pytest tests/drills $(ARGS)

year: install ## replay a year of listing events on a clock of its own, up to 12 minutes (ARGS=--quick: 3)
	@$(RUN)python -m tests.year $(ARGS)

bench: install ## measure speed and memory, as a table and JSON
	@$(RUN)python -m bench $(ARGS)

bench-peers: install ## install what `make bench` compares searches with, if it is there
	@$(PYTHON) locks/install.py --bench

REGISTRY ?= shashin
TAG ?= latest
SERVICES ?= builds canary controller downloader embedder image-builder index-server indexer router
images: ## build a container image per service, and one for builds (REGISTRY=..., TAG=..., SERVICES="router ...")
	@set -e; for service in $(SERVICES); do \
		case $$service in embedder|builds) target=$$service ;; *) target=service ;; esac; \
		echo "$(REGISTRY)/$$service:$(TAG)"; \
		docker build --quiet --target $$target --tag $(REGISTRY)/$$service:$(TAG) \
			--build-arg SERVICE=$$service \
			--build-arg MODULE=$$(test $$service = builds || echo $$service | tr - _) \
			--build-arg REVISION=$$(git rev-parse HEAD) . >/dev/null; \
	done

compose-check: ## say what keeps docker-compose.yml from running here; starts nothing
	@$(PYTHON) compose/stack.py check

compose-up: ## check, build and start docker-compose.yml, and wait until it is ready
	@$(PYTHON) compose/stack.py up

compose-test: install ## bring docker-compose.yml up from nothing, kill its containers, and lose nothing
	@$(RUN)python -m tests.compose $(ARGS)

clean: ## remove build outputs and caches, but not .venv or the state folder
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
