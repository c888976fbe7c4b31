# medianserve: `make run` and `make test` do everything on a machine with Python and make.
# `make help` lists the rest.

# The Pythons that will do; pyproject.toml says the same.
PYTHONS := 3.13 3.12 3.11
# Which of them to use: python3 where it is one of them, else the newest that is found.
PYTHON ?=
# Where torch comes from; when empty, stack/torch_index.py decides.
TORCH_INDEX_URL ?=
export PYTHON TORCH_INDEX_URL
PORT_OFFSET ?= 0
# Bring your own model: see the README. With none of them, what was packed last. Paths may hold
# anything but those of INCLUDE, which is a list, a space.
WEIGHTS ?=
MODEL_CONFIG ?=
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
TORCH := $(VENV)/.torch-installed
RUNTIME := $(VENV)/.runtime-installed
DEV := $(VENV)/.dev-installed
BENCH := $(VENV)/.bench-installed
LIGHT := $(VENV)/.light-installed
# What needs neither torch nor TorchServe, nor more than a minute or three.
LIGHT_TESTS := tests/state_service tests/generator tests/contract/test_contract_document.py \
  tests/contract/test_contract_state_service.py

# Run pip; a failure is one sentence, pip's own words are in the log.
pip = $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt
install = $(pip) --editable '$(1)' > $(VENV)/install.log 2>&1 || $(pip-failed)
pip-failed = { echo "error: pip could not install the dependencies ($$(grep -im1 error: $(VENV)/install.log | \
  sed 's/^ *//'); all of it: $(VENV)/install.log); check the network and run make again" >&2; exit 1; }

.DELETE_ON_ERROR:
.PHONY: help run demo model default-model test-model test test-light test-page test-compose test-observe test-typescript chaos fuzz screenshots bench-setup bench bench-engine check format clean named-python named-index

help:  ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

run: $(RUNTIME) model  ## set up everything and run the stack until Ctrl-C
	@$(BIN)/python -m stack run --port-offset $(PORT_OFFSET)

demo: $(RUNTIME)  ## run the stack, load it for 10 s, verify every user's median, stop
	@$(BIN)/python -m stack demo --port-offset $(PORT_OFFSET)

model: $(RUNTIME) model_store/inefficient_model.pt  ## pack your model (WEIGHTS=, MODEL_CONFIG=, INCLUDE=), or the last one again if it has changed
	@set --; for file in $$INCLUDE; do set -- "$$@" --include "$$file"; done; \
	test "$$WEIGHTS$$MODEL_CONFIG$$INCLUDE" || set -- --again; \
	$(BIN)/python -m handler.archive $${WEIGHTS:+--weights "$$WEIGHTS"} $${MODEL_CONFIG:+--config "$$MODEL_CONFIG"} "$$@"

default-model: $(RUNTIME) model_store/inefficient_model.pt  ## pack the default model in place of yours
	@$(BIN)/python -m handler.archive

test-model: $(RUNTIME)  ## build the default model apart from yours, for tests, demo, chaos and benchmarks
	@$(BIN)/python -m handler.default_model >/dev/null

test: $(DEV) test-model  ## set up everything and run every test
	@$(BIN)/python -m pytest --numprocesses 3 --dist loadgroup  # they wait more than they work

test-light: $(LIGHT)  ## test what needs no torch, under another Python: make test-light VENV=.venv-3.13 PYTHON=python3.13
	@$(BIN)/python -m pytest --numprocesses 3 --dist loadgroup $(LIGHT_TESTS)

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

test-observe: $(DEV) test-model  ## provoke the alerts before a real Prometheus (needs prometheus and promtool)
	@command -v prometheus >/dev/null && command -v promtool >/dev/null || \
	  { echo "error: no prometheus here; install it (Debian: apt-get install prometheus)" >&2; exit 1; }
	@$(BIN)/python -m pytest tests/alerts --numprocesses 2

test-typescript: $(RUNTIME)  ## make TypeScript of the contract and compile a program against it (needs Node)
	@command -v npm >/dev/null || \
	  { echo "error: there is no npm here; install Node 20 or newer (Debian: apt-get install npm)" >&2; exit 1; }
	@$(BIN)/python -c 'import json, state_service.documentation as d; print(json.dumps(d.load_spec()))' \
	  > tests/typescript/contract.json
	@cd tests/typescript && npm install --no-package-lock --no-audit --no-fund --loglevel error && \
	  npx openapi-typescript contract.json --output contract.ts && npx tsc --noEmit --strict usage.ts
	@echo "the contract compiles as TypeScript"

chaos: $(RUNTIME) test-model  ## break the stack under load, count what is lost (ROUNDS, SEED, SECONDS_BETWEEN)
	@$(BIN)/python -m chaos --rounds $(ROUNDS) --seconds-between $(SECONDS_BETWEEN) $(addprefix --seed ,$(SEED))

fuzz: $(DEV) test-model  ## give the decoders and a running stack hostile input (BODIES=, REQUESTS=)
	@$(BIN)/python -m fuzzing bodies --count $(BODIES)
	@$(BIN)/python -m fuzzing servers --count $(REQUESTS)

screenshots: $(DEV) test-model  ## take the pictures in docs/ from a running stack under load (needs Chromium)
	@$(BIN)/python -m docs.make_screenshots

bench-setup: $(BENCH)  ## install what the benchmarks compare with

bench: $(BENCH) test-model  ## measure the service beside its peers (a quarter of an hour, a quiet machine; needs wrk)
	@mkdir -p var
	@$(BIN)/python -m benchmarks.service --json var/bench.json --markdown var/bench.md --picture var/bench.svg

bench-engine: $(BENCH)  ## measure the window engine beside its peers (ten minutes, a quiet machine)
	@$(BIN)/python -m benchmarks.engine

check: $(DEV)  ## lint, types, import contracts, Dockerfiles
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m mypy
	@$(BIN)/python -c 'from importlinter.cli import lint_imports_command as run; run()'
	@$(BIN)/hadolint */Dockerfile
	@$(BIN)/python -m check_jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

format: $(DEV)  ## format the code
	@$(BIN)/python -m ruff format .
	@$(BIN)/python -m ruff check --fix .

clean:  ## remove the environment and what was built; keeps var/ and model_store/, your data and your model
	rm -rf $(VENV) build *.egg-info

# As `python -m`, not by their scripts: those name this folder, which may be moved or hold a quote.
$(BIN)/python:
	@set -- "$$PYTHON"; test "$$1" || set -- python3 $(PYTHONS:%=python%) python; \
	for python do \
	  version=$$("$$python" -c 'import sys; print(*sys.version_info[:2], sep=".")' 2>/dev/null) || continue; \
	  case ' $(PYTHONS) ' in *" $$version "*) break; esac; \
	  version=; \
	done; \
	test "$$version" || { echo "error: no Python that will do ($(PYTHONS)) among: $$*; install one, or name it:" \
	  "make PYTHON=/path/to/python3" >&2; exit 1; }; \
	echo "using Python $$version ($$(command -v "$$python"))"; \
	said=$$("$$python" -m venv $(VENV) 2>&1) || { rm -rf $(VENV); \
	  echo "error: cannot create $(VENV):" $$said >&2; exit 1; }

# A Python that is named is meant, also where there is an environment of another already.
ifneq ($(strip $(PYTHON)),)
$(TORCH) $(LIGHT): | named-python
named-python: | $(BIN)/python
	@says='import sys; print(*sys.version_info[:2], sep=".")'; \
	named=$$("$$PYTHON" -c "$$says") && made=$$($(BIN)/python -c "$$says") && test "$$named" = "$$made" || \
	  { echo "error: $(VENV) was made with Python $$made, which is not $$PYTHON's: rm -r $(VENV), and again" >&2; exit 1; }
endif

# As is an index that is named: what is installed would satisfy pip, whatever build it is.
ifneq ($(strip $(TORCH_INDEX_URL)),)
$(RUNTIME): | named-index
named-index: | $(TORCH)
	@taken=$$(cat $(TORCH) 2>/dev/null); test -z "$$taken" || test "$$taken" = "$$TORCH_INDEX_URL" || \
	  { echo "error: $(VENV) has torch from $$taken, not from $$TORCH_INDEX_URL: rm -r $(VENV), and again" >&2; exit 1; }
endif

# First, for what comes after would take any build of it. The file says where it was taken from.
$(TORCH): constraints.txt | $(BIN)/python
	@{ index=$$($(BIN)/python -m stack.torch_index 2>&3); } 3>&1; \
	test -z "$$index" || $(pip) --index-url "$$index" --no-deps torch > $(VENV)/install.log 2>&1 || \
	  { test -z "$$TORCH_INDEX_URL" || $(pip-failed); echo "it has no torch that fits: taking it from pip's own index"; index=; }; \
	echo "$${index:-pip's own index}" > $@

$(RUNTIME): pyproject.toml constraints.txt | $(TORCH)
	@echo "installing dependencies (the first time takes a minute or two)"
	@$(call install,.[run])
	@touch $@

$(DEV): $(RUNTIME)
	@echo "installing test and lint tools"
	@$(call install,.[dev])
	@touch $@

$(LIGHT): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing what the tests without torch need"
	@$(call install,.[light])
	@touch $@

$(BENCH): $(RUNTIME)
	@echo "installing what the benchmarks compare with"
	@$(call install,.[bench])
	@touch $@

# Only when there is none: it may be a retrained one of yours.
model_store/inefficient_model.pt: | $(RUNTIME)
	@$(BIN)/python -m handler.create_model --output $@
