# Every task of the project. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
SECONDS ?= 60
BENCH = $(BIN)/python -m proof.bench $(ROWS) --rounds $(ROUNDS) --seconds $(SECONDS) $(if $(AGAINST),--against $(AGAINST)) \
  $(if $(RECORD),--record)

# The tests start many hundred processes. Without bytecode each would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-relay play test proof full campaign campaigns mutants bench bench-peers scale check serve fleet lock docs fmt clean

help: ## list the tasks
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

setup: $(STAMP) ## build .venv from the lock file

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "uponce needs Python 3.11 or newer, this is " + sys.version)'
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(STAMP)

demo: $(STAMP) ## the whole story on real media, in about half a minute
	$(BIN)/uponce demo

demo-relay: $(STAMP) ## the same in front of an account that stores the media
	$(BIN)/uponce demo --relay

play: $(STAMP) ## the playground: see a signature work once, in your browser
	$(BIN)/uponce serve --playground

serve: $(STAMP) ## run a server on ./uponce-data
	$(BIN)/uponce serve

fleet: $(STAMP) ## the reference deployment on this machine: two servers, PostgreSQL, SeaweedFS, Caddy (which must be installed)
	$(BIN)/python -m tests.deployment

test: $(STAMP) ## the checks and the whole test suite
	$(MAKE) --no-print-directory check
	$(BIN)/python -m pytest -n 2 --dist loadgroup

# A campaign takes a minute on a quiet machine. On a busy one no time limit may end it: only a hang.
proof: $(STAMP) ## the small campaigns with their controls, and what must be timed
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "proof and not full" --timeout 900

full: $(STAMP) ## the long tests: two gigabytes, kills at every step, a booted machine
	$(BIN)/python -m pytest -m full -s --timeout 0

campaign: $(STAMP) ## one fault campaign: CAMPAIGN=race SECONDS=60 SEED=1; RECORD=1 adds it to the published figures
	$(BIN)/python -m proof.faults.campaign $(CAMPAIGN) --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(if $(RECORD),--record)
	$(if $(RECORD),$(BIN)/python -m docs.generate)

campaigns: CAMPAIGN :=
campaigns: SECONDS := 20
campaigns: campaign ## every fault campaign once, short

mutants: $(STAMP) ## change the code that signs and spends and see whether a test notices: FILES=core/ranges.py; BY_HAND=1; LEFT=1 for those not killed yet; RECORD=1 publishes it
	nice $(BIN)/python -m proof.mutation $(FILES) $(if $(BY_HAND),--by-hand) $(if $(LEFT),--left) $(if $(RECORD),--record)
	$(if $(RECORD),$(BIN)/python -m docs.generate)

bench bench-peers: $(STAMP)
bench: SECONDS := 2
bench: ROUNDS := 3
bench: ## speed in a few minutes: ROWS="P1 P3" ROUNDS=3 SECONDS=2; AGAINST=<commit> measures that one beside it
	$(BENCH)

bench-peers: SECONDS := 5
bench-peers: ROUNDS := 5
bench-peers: ## the same beside busboy, express, nginx and Caddy, in some 80 minutes; RECORD=1 adds it to the published figures
	$(BENCH) --peers --latency-seconds 600 --fill 10000000
	$(if $(RECORD),$(BIN)/python -m docs.generate)

scale: FILL := 100000
scale: $(STAMP) ## full databases against empty ones, SQLite and PostgreSQL: FILL=10000000; RECORD=1 adds it to the published figures
	$(BIN)/python -m proof.bench.scale --fill $(FILL) $(if $(RECORD),--record)
	$(if $(RECORD),$(BIN)/python -m docs.generate)

check: $(STAMP) ## formatting, lint, types and the import contract
	$(BIN)/ruff format --check src tests docs proof examples
	$(BIN)/ruff check src tests docs proof examples
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(STAMP) ## write the reference pages that come from the code
	$(BIN)/python -m docs.generate

fmt: $(STAMP) ## format and fix what can be fixed
	$(BIN)/ruff format src tests docs proof examples
	$(BIN)/ruff check --fix src tests docs proof examples

COMPILE = uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-emit-find-links --no-annotate --no-header
lock: ## resolve the dependencies again, for development and for the image (needs uv)
	$(COMPILE) --extra dev -o requirements.lock --upgrade
	$(COMPILE) --constraint requirements.lock -o requirements-runtime.lock --upgrade

clean: ## remove what the tasks made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache tests/e2e/node/node_modules examples/*/node_modules proof/bench/.cache mutants
