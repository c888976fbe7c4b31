# medianserve: `make run` and `make test` do everything on a machine with Python 3.11 and make.
# `make help` lists the rest.

PYTHON ?= $(shell command -v python3.11 || command -v python3 || command -v python)
PORT_OFFSET ?= 0
# Bring your own model: see the README.
WEIGHTS ?= model_store/inefficient_model.pt
MODEL_CONFIG ?= handler/model-config.yaml
INCLUDE ?=
# make chaos: a seed repeats a schedule.
ROUNDS ?= 6
SEED ?=
SECONDS_BETWEEN ?= 1
# How much `make fuzz` tries; a long run: make fuzz BODIES=1000000 REQUESTS=50000
BODIES ?= 20000
REQUESTS ?= 8000

VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime-installed
DEV := $(VENV)/.dev-installed
BENCH := $(VENV)/.bench-installed

# Install the project with pip; a failure is one sentence, pip's own words are in the log.
install = $(BIN)/python -m pip install --disable-pip-version-check \
  --constraint constraints.txt --editable '$(1)' > $(VENV)/install.log 2>&1 || \
  { echo "error: pip could not install the dependencies ($$(grep -im1 error: $(VENV)/install.log | \
    sed 's/^ *//'); all of it: $(VENV)/install.log); check the network and run make again" >&2; exit 1; }

.DELETE_ON_ERROR:
.PHONY: help run demo model test test-page test-compose test-observe chaos fuzz screenshots bench-setup bench bench-engine check format clean FORCE

help:  ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

run: $(RUNTIME) model  ## set up everything and run the stack until Ctrl-C
	@$(BIN)/python -m stack run --port-offset $(PORT_OFFSET)

demo: $(RUNTIME) model  ## run the stack, load it for 10 s, verify every user's median, stop
	@$(BIN)/python -m stack demo --port-offset $(PORT_OFFSET)

model: model_store/scorer.mar  ## build the default weights and the archive, when missing or stale

test: $(DEV) model  ## set up everything and run every test
	@$(BIN)/python -m pytest --numprocesses 3 --dist loadgroup  # they wait more than they work

test-page: $(DEV)  ## look at the live page as a visitor does (needs Chromium)
	@command -v chromium chromium-browser google-chrome >/dev/null || \
	  { echo "error: there is no Chromium; install it (Debian: apt-get install chromium)" >&2; exit 1; }
	@$(BIN)/python -m pytest tests/dashboard

test-compose: $(DEV)  ## build, run and break the compose stack (needs Docker with Compose)
	@docker info >/dev/null 2>&1 || \
	  { echo "error: no Docker engine answers; install and start Docker, or point DOCKER_HOST at one" >&2; exit 1; }
	@docker compose version >/dev/null 2>&1 || \
	  { echo "error: this Docker has no Compose; install the plugin docker-compose 2.24 or newer" >&2; exit 1; }
	@$(BIN)/python -m pytest tests/compose --timeout 600  # building counts to the first test

test-observe: $(DEV) model  ## provoke the alerts before a real Prometheus (needs prometheus and promtool)
	@command -v prometheus >/dev/null && command -v promtool >/dev/null || \
	  { echo "error: no prometheus here; install it (Debian: apt-get install prometheus)" >&2; exit 1; }
	@$(BIN)/python -m pytest tests/alerts --numprocesses 2

chaos: $(RUNTIME) model  ## break the stack under load, count what is lost (ROUNDS, SEED, SECONDS_BETWEEN)
	@$(BIN)/python -m chaos --rounds $(ROUNDS) --seconds-between $(SECONDS_BETWEEN) $(addprefix --seed ,$(SEED))

fuzz: $(DEV) model  ## give the decoders and a running stack hostile input (BODIES=, REQUESTS=)
	@$(BIN)/python -m fuzzing bodies --count $(BODIES)
	@$(BIN)/python -m fuzzing servers --count $(REQUESTS)

screenshots: $(DEV) model  ## take the pictures in docs/ from a running stack under load (needs Chromium)
	@$(BIN)/python -m docs.make_screenshots

bench-setup: $(BENCH)  ## install what the benchmarks compare with

bench: $(BENCH) model  ## measure the service beside its peers (a quarter of an hour, a quiet machine; needs wrk)
	@mkdir -p var
	@$(BIN)/python -m benchmarks.service --json var/bench.json --markdown var/bench.md --picture var/bench.svg

bench-engine: $(BENCH)  ## measure the window engine beside its peers (ten minutes, a quiet machine)
	@$(BIN)/python -m benchmarks.engine

check: $(DEV)  ## lint, types, import contracts, Dockerfiles
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/hadolint */Dockerfile
	@$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

format: $(DEV)  ## format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean:  ## remove the environment and what was built; keeps var/, your data
	rm -rf $(VENV) model_store/*.pt model_store/*.mar model_store/.inputs *.egg-info

$(BIN)/python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || \
	  { echo "error: no Python 3.11 at '$(PYTHON)'; install it, or: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -m venv $(VENV) >/dev/null || \
	  { rm -rf $(VENV); echo "error: cannot create $(VENV); does this Python have venv (Debian: python3.11-venv)?" >&2; exit 1; }

$(RUNTIME): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing dependencies (the first time takes a minute or two)"
	@$(call install,.[run])
	@touch $@

$(DEV): $(RUNTIME)
	@echo "installing test and lint tools"
	@$(call install,.[dev])
	@touch $@

$(BENCH): $(RUNTIME)
	@echo "installing what the benchmarks compare with"
	@$(call install,.[bench])
	@touch $@

model_store/inefficient_model.pt: handler/create_model.py handler/network.py | $(RUNTIME)
	@$(BIN)/python -m handler.create_model --output $@

# Another model is another input even when no file is newer: remember which ones were packed.
MODEL_INPUTS := $(strip $(WEIGHTS) $(MODEL_CONFIG) $(INCLUDE))
model_store/.inputs: FORCE
	@echo '$(MODEL_INPUTS)' | cmp --quiet - $@ || echo '$(MODEL_INPUTS)' > $@
FORCE:

HANDLER_FILES := $(filter-out handler/create_model.py,$(wildcard handler/*.py))
model_store/scorer.mar: $(HANDLER_FILES) $(MODEL_CONFIG) $(WEIGHTS) $(INCLUDE) model_store/.inputs | $(RUNTIME)
	@$(BIN)/python -m handler.archive --output $@ --weights $(WEIGHTS) --config $(MODEL_CONFIG) \
	  $(addprefix --include ,$(INCLUDE))
