# hivewire: two commands do everything on a fresh machine: `make demo` and `make test`.
# Both set up what they need by themselves: see deploy/setup.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
NAME ?=
SECONDS ?= 600
ROUNDS ?= 100

.PHONY: help setup demo test check format lint types unit sim netns e2e chaos fuzz bench lock clean

help:
	@echo "make demo    run a real cluster of five nodes on this machine and prove that it works"
	@echo "make test    run every test that this machine can run"
	@echo "make check   format, lint, types, import contracts, unit and simulator tests"
	@echo "make bench   measure against peers (one: make bench NAME=commits|overlay|vip|ingress|...)"
	@echo "make chaos   long sweeps of the simulators; real daemons in ROUNDS (100) of random faults"
	@echo "make fuzz    fuzz every decoder for SECONDS (600) each (one: make fuzz NAME=gossip_body|...)"

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml deploy/requirements-dev.txt deploy/setup
	@PYTHON="$(PYTHON)" VENV="$(VENV)" deploy/setup
	@touch $@

demo: setup
	@$(BIN)/python -m cluster.local.demo

# Simulators and unit tests share the processors. What runs real daemons has the machine for itself.
test: setup
	$(BIN)/python -m pytest tests/sim tests/unit -n auto
	$(BIN)/python -m pytest tests --ignore tests/sim --ignore tests/unit

check: setup lint types
	HIVEWIRE_SEEDS=5 $(BIN)/python -m pytest tests/sim tests/unit -n auto

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check --no-cache .
	$(BIN)/lint-imports

types: setup
	$(BIN)/mypy
	$(BIN)/pyright

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

unit netns e2e: setup
	$(BIN)/python -m pytest tests/$@

sim: setup
	$(BIN)/python -m pytest tests/sim -n auto

chaos: setup
	HIVEWIRE_SEEDS=1000 $(BIN)/python -m pytest tests/sim -n auto --timeout 3600
	HIVEWIRE_ROUNDS=$(ROUNDS) $(BIN)/python -m pytest tests/chaos --log-cli-level INFO

# atheris has no wheel for every platform, so it is not among the development requirements.
fuzz: setup
	@$(BIN)/python -c 'import atheris' 2>/dev/null || \
		$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r deploy/requirements-fuzz.txt
	@$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(NAME)

bench: setup
	@$(BIN)/python -m bench $(NAME)

# The lock names no index: it resolves from whatever index pip is configured with.
lock:
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-emit-find-links --no-header --no-annotate pyproject.toml -o deploy/requirements.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-emit-find-links --no-header --no-annotate --extra dev pyproject.toml \
		-o deploy/requirements-dev.txt
	echo atheris==3.0.0 | uv pip compile -q --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --no-header --no-annotate - -o deploy/requirements-fuzz.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
