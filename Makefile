# Kestrel on one machine. `make help` lists what there is; the work is done by infra/local.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON_ENV := .venv/bin/python
LOCAL := $(PYTHON_ENV) -m infra.local
# No shell stays between make and the command: a signal for make reaches who ends all that the command has started.
RUN := exec $(LOCAL) run

# Only what stands on make's own command line counts: DATA, SOURCE and NAMESPACE are common names in an environment.
given = $(if $(filter command,$(firstword $(origin $(1)))),$(or $(value $(1)),$(error $(1)= is empty: give it a value or leave it out)))
export KESTREL_ARG_DATA = $(call given,DATA)
export KESTREL_ARG_SOURCE = $(call given,SOURCE)
export KESTREL_ARG_NAMESPACE = $(call given,NAMESPACE)
export KESTREL_ARG_CUTOFF = $(call given,CUTOFF)
export KESTREL_ARG_PART = $(call given,PART)
export KESTREL_ARG_YES = $(call given,YES)
export KESTREL_ARG_ALL = $(call given,ALL)
export KESTREL_ARG_GRPC = $(call given,GRPC)
export KESTREL_ARG_REST = $(call given,REST)
export KESTREL_ARG_FULL = $(call given,FULL)
export KESTREL_ARG_FOLDER = $(call given,FOLDER)
unexport PYTHONDONTWRITEBYTECODE VIRTUAL_ENV

# Tests wait now and then, so that two cores have room for a third process, where there is memory for it (kB).
TEST_PROCESSES := $(shell awk '/^MemTotal:/ {print ($$2 > 12000000) ? 3 : 2}' /proc/meminfo)

.PHONY: help setup demo check fix test test-unit test-zoo lint up down status logs reset bench-data bench-lists bench-models bench-serving bench-stream

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Make the environment (the other commands do so by themselves)
	@PYTHON="$(call given,PYTHON)" infra/local/setup

demo: setup ## Run the whole loop and report; DATA=<folder, zip or file> SOURCE=<yaml> NAMESPACE=<name> CUTOFF=<date>
	@$(LOCAL) demo

check: setup ## In a minute: style, types, imports, the lock, and the unit tests that your changes can reach
	@$(RUN) --toolchain-only -- $(PYTHON_ENV) -m infra.local.check

fix: setup ## Write the code in the project's style, and mend what can be mended by itself
	@$(PYTHON_ENV) -m ruff check --fix --quiet || true
	@$(PYTHON_ENV) -m ruff format

test-unit: setup ## Run the tests that start neither Spark, nor Redis, nor a server; ARGS="-k name" chooses
	@$(RUN) --toolchain-only -- $(PYTHON_ENV) -m pytest -m "not zoo" -n 2 --dist loadfile --no-loadscope-reorder tests/unit tests/architecture tests/contract tests/dags $(ARGS)

test: setup ## Run every test but the zoo's; ARGS="-k name" chooses
	@$(RUN) --toolchain-only -- $(PYTHON_ENV) -m pytest -m "not zoo" -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

test-zoo: setup ## Fit every ranking model several times: seeds, planted interactions, serving; ARGS="-k name" chooses
	@$(RUN) --toolchain-only -- $(PYTHON_ENV) -m pytest -m zoo -n $(TEST_PROCESSES) --dist loadgroup tests/unit/models $(ARGS)

lint: setup ## Check style, types, imports and the lock
	@$(PYTHON_ENV) -m ruff check
	@$(PYTHON_ENV) -m ruff format --check
	@$(PYTHON_ENV) -m mypy
	@$(dir $(PYTHON_ENV))lint-imports
	@$(LOCAL) run --toolchain-only -- uv lock --check

up: setup ## Start the stack, or what is missing of it, and wait until it is healthy
	@$(LOCAL) up

down: ## Stop the stack; no process is left, whatever state it was in
	@if [ -x $(PYTHON_ENV) ]; then $(LOCAL) down; else echo "Nothing to stop: there is no environment yet."; fi

status: setup ## Show what runs, since when, where, and how much memory it takes
	@$(LOCAL) status

logs: setup ## Follow the logs; PART=<name> chooses one
	@$(LOCAL) logs

reset: setup ## Stop the stack and delete its state (asks; YES=1 does not; ALL=1 deletes downloads and tools too)
	@$(LOCAL) reset

bench-data: setup ## Measure features, joins and materialisation at 2 M and 20 M events; FOLDER=<dir> to work in, ARGS="--events n --rounds n"
	@$(RUN) --toolchain-only -- $(PYTHON_ENV) -m infra.bench.data $(ARGS)

bench-lists: setup ## Measure the lists that users would be shown; DATA, SOURCE as for demo, ARGS="--origins n --seeds n", FOLDER=<dir>
	@$(RUN) --toolchain-only -- $(PYTHON_ENV) -m infra.bench.lists $(ARGS)

bench-models: setup ## Compare all ranking models at random and by time; DATA, SOURCE as for demo, FULL=1 all folds and peers, FOLDER=<dir>
	@$(RUN) --toolchain-only -- $(PYTHON_ENV) -m infra.bench.models $(ARGS)

bench-serving: setup ## Measure the model server with the demo's ranker; GRPC=<host:port> REST=<url> FOLDER=<dir>: a server that runs
	@$(RUN) -- $(PYTHON_ENV) -m infra.bench.serving $(ARGS)

bench-stream: setup ## Measure how soon an event is in its user's online features, with the demo's data; NAMESPACE=<name>
	@$(RUN) -- $(PYTHON_ENV) -m infra.bench.stream $(ARGS)
