# The way in: `make up`, then `make test`. Each target is one command of a tool you could run yourself.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
include versions.env

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# Settings, also from the environment: kind, minikube, bare or current; a registry and a values file of your own; offline
# or gemini; the number of bare nodes; anything for a plan that is only printed.
CLUSTER ?=
NAMESPACE ?=
IMAGE_REGISTRY ?=
MODEL ?=
VALUES ?=
NODES ?=
DRY_RUN ?=
# Of a load test: `python -m cluster load --help` says what each takes.
SCENARIO ?=
SHAPE ?=
USERS ?=
RUN_TIME ?=
WORKERS ?=
CLASSES ?=
LOAD_OPTIONS ?=
# Of the bench: BENCH_OPTIONS=--help lists them.
BENCH_OPTIONS ?=
export CLUSTER NAMESPACE IMAGE_REGISTRY MODEL VALUES NODES DRY_RUN
export SCENARIO SHAPE USERS RUN_TIME WORKERS CLASSES LOAD_OPTIONS BENCH_OPTIONS

PACKAGES := common chat-service agent-memory-service offline-model placement-relay
SERVICES := chat-service agent-memory-service offline-model
# A lock file names no package index: uv.lock does, so the pins with their hashes are requirements files.
COMPILE := $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-annotate --custom-compile-command 'make lock' $(PACKAGES:%=--no-emit-package %) --no-emit-package daca-common --no-emit-package daca-load-tests

$(VENV)/.ready: requirements.txt versions.env $(PACKAGES:%=images/%/pyproject.toml)
	@bash cluster/venv.sh "$(PYTHON)" "$(VENV)" "$(UV_VERSION)"

.PHONY: setup
setup: $(VENV)/.ready ## the Python environment that every other target uses

.PHONY: lock
lock: setup ## pin every dependency again, with hashes
	$(COMPILE) pyproject.toml --group dev --upgrade -o requirements.txt
	for service in $(SERVICES); do \
	  $(COMPILE) images/$$service/pyproject.toml -c requirements.txt -o images/$$service/requirements.txt; done
	$(COMPILE) load-tests/pyproject.toml -c requirements.txt -o load-tests/requirements.txt
	$(COMPILE) --group reload -c requirements.txt --upgrade -o images/requirements-dev.txt

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9_-]+:.*## / { printf "make %-17s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: up
up: setup ## a cluster, Dapr, the bundle, and a first conversation: CLUSTER= MODEL= NODES= DRY_RUN= ...
	@$(RUN) -m cluster up

.PHONY: local
local: setup ## without Kubernetes: the services with their sidecars on this machine, until Ctrl-C: MODEL=
	@$(RUN) -m cluster local

.PHONY: down
down: setup ## remove what `make up` made
	@$(RUN) -m cluster down

.PHONY: status
status: setup ## what runs, and where it answers
	@$(RUN) -m cluster status

# USER: make takes it from the command line, else from the environment, where it is the login name.
.PHONY: chat
chat: setup ## talk to it in the terminal: USER=
	@$(RUN) -m cluster chat

.PHONY: inspect
inspect: setup ## a user's session actor (host, activation, state): USER=
	@$(RUN) -m cluster inspect

.PHONY: load
load: setup ## load from inside the cluster, and a report: SCENARIO= or SHAPE=, USERS= RUN_TIME= WORKERS= CLASSES= LOAD_OPTIONS=
	@$(RUN) -m cluster load

.PHONY: faults
faults: setup ## one part after the other fails under load, and a report says what that cost: USERS= LOAD_OPTIONS=
	@SCENARIO=faults $(RUN) -m cluster load

.PHONY: bench
bench: setup ## ours and a chat without Dapr, side by side: turns/s, latency, CPU by process: BENCH_OPTIONS=
	@$(RUN) -m cluster bench

.PHONY: bench-activations
bench-activations: setup ## 100,000 actors activated with a write, deactivated, read again: rates, memory: BENCH_OPTIONS=
	@$(RUN) -m cluster bench-activations

.PHONY: bench-long
bench-long: setup ## what a turn takes at message 10,000 of a session, and beside 100,000 users: BENCH_OPTIONS=
	@$(RUN) -m cluster bench-long

.PHONY: bench-capacity
bench-capacity: setup ## what `make capacity` works with, half an hour on a quiet machine: BENCH_OPTIONS=
	@$(RUN) -m cluster bench-capacity

.PHONY: capacity
capacity: setup ## what many users take, and what ends first, from measured runs: docs/capacity.md: BENCH_OPTIONS=
	@$(RUN) -m cluster capacity

# Tools that tests use are built before them: that may take longer than a test may.
built = @for tool in $(1); do $(RUN) -m cluster which $$tool >/dev/null; done

# More processes than cores: many of the tests wait for what they have started.
.PHONY: check
check: setup ## lint, types, unit and chart tests; needs no cluster
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy cluster $(PACKAGES:%=images/%) charts/generate_schema.py charts/daca/files load-tests tests
	PYTHONPATH=load-tests $(VENV)/bin/lint-imports --no-logo --no-cache
	for folder in $(PACKAGES:%=images/%); do $(VENV)/bin/deptry --config $$folder/pyproject.toml $$folder/src; done
	$(VENV)/bin/deptry --config load-tests/pyproject.toml load-tests
	$(VENV)/bin/deptry .
	$(VENV)/bin/yamllint --strict .
	$(VENV)/bin/biome lint --error-on-warnings .
	$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/ci.yaml
	git ls-files -z -co --exclude-standard '*.sh' .ci/run | xargs -0 $(VENV)/bin/shellcheck
	git ls-files -z -co --exclude-standard '*Dockerfile' | xargs -0 $(VENV)/bin/hadolint --failure-threshold info
	for helm in helm3 helm; do "$$($(RUN) -m cluster which $$helm)" lint --strict --quiet charts/daca charts/load-tests; done
	$(call built,kind skaffold chromium)
	$(VENV)/bin/pytest -m "not e2e" -n 4 --dist worksteal

.PHONY: coverage
coverage: setup ## which lines the unit and chart tests run
	$(call built,kind skaffold chromium)
	$(VENV)/bin/pytest -m "not e2e" -n 4 --dist worksteal --cov --cov-report=term

.PHONY: e2e
e2e: setup ## the tests that need the cluster of `make up`
	$(call built,daprd placement skaffold)
	$(VENV)/bin/pytest -m "e2e and not long" --durations=20

.PHONY: e2e-long
e2e-long: setup ## those of them that take many minutes
	$(VENV)/bin/pytest -m long

.PHONY: kind-node
kind-node: setup ## for developers without an engine: kind's node image and all that is in it, into the cache; as root
	@$(RUN) -m cluster.kind_on_podman images

.PHONY: kind-test
kind-test: setup ## README's ways to kind, tried on Podman in namespaces of their own; nothing is left; as root
	@$(RUN) -m cluster.kind_on_podman run bash cluster/kind_on_podman/test.sh

.NOTPARALLEL:
.PHONY: test
test: check up e2e ## everything: the checks, then a cluster and the tests on it
