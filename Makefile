# The way in: `make up`, then `make test`. Each target is one command of a tool you could run yourself.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
include versions.env

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
CLUSTER ?=
NAMESPACE ?= daca
IMAGE_REGISTRY ?=
USER_ID ?=
export CLUSTER NAMESPACE IMAGE_REGISTRY

PACKAGES := common chat-service agent-memory-service offline-model
SERVICES := chat-service agent-memory-service offline-model
# A lock file names no package index: uv.lock does, so the pins with their hashes are requirements files.
COMPILE := $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-annotate --custom-compile-command 'make lock' $(PACKAGES:%=--no-emit-package %) --no-emit-package daca-common

$(VENV)/.ready: requirements.txt versions.env $(PACKAGES:%=images/%/pyproject.toml)
	@bash cluster/venv.sh "$(PYTHON)" "$(VENV)" "$(UV_VERSION)"

.PHONY: setup
setup: $(VENV)/.ready ## the Python environment that every other target uses

.PHONY: lock
lock: setup ## pin every dependency again, with hashes
	$(COMPILE) pyproject.toml --group dev --upgrade -o requirements.txt
	for service in $(SERVICES); do \
	  $(COMPILE) images/$$service/pyproject.toml -c requirements.txt -o images/$$service/requirements.txt; done
