# The one front door: `make` prints what there is. All of it works in a fresh clone with Python 3.11 or later.

PYTHON ?= python3
UV_VERSION := 0.13.9
# Of the packages: a higher number for the same version built anew, where they go, and the Python that they carry.
RELEASE ?= 1
DIST ?= dist
PACKAGE_PYTHON ?= $(BIN)/python
BIN := .venv/bin
# Trust what the machine trusts: companies have certificates of their own.
export UV_SYSTEM_CERTS ?= 1

.DEFAULT_GOAL := help
.PHONY: help demo test e2e e2e-tools lint types format score newest bench crash weather soak rotate docs dashboards lock dist packages check clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/uv:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip --quiet --disable-pip-version-check install uv==$(UV_VERSION)

.venv/runtime: $(BIN)/uv pyproject.toml uv.lock
	$(BIN)/uv sync --quiet --frozen --no-dev --inexact
	@touch $@

.venv/development: $(BIN)/uv pyproject.toml uv.lock
	$(BIN)/uv sync --quiet --frozen --inexact
	@touch $@ .venv/runtime

demo: .venv/runtime ## watch the exporter at work on a simulated Wok (40 seconds)
	@$(BIN)/wok-exporter demo

test: .venv/development ## run all tests
	$(BIN)/python -m pytest

.venv/e2e: .venv/development pyproject.toml uv.lock
	$(BIN)/uv sync --quiet --frozen --inexact --group e2e
	@touch $@

e2e-tools: .venv/development ## build Jaeger, a collector and a Debian to boot, for e2e (10 minutes; needs Go, debootstrap, root)
	$(BIN)/python -m tests.e2e.tools

e2e: .venv/e2e ## run the exporter among real backends (some minutes; what is missing is skipped and told)
	$(BIN)/python -m pytest -rs tests/e2e $(E2E_FLAGS)

lint: .venv/development ## look for what ruff finds wrong
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/development ## prove the types
	$(BIN)/mypy

format: .venv/development ## let ruff lay out the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

score: .venv/development ## score the correlation against logs with ground truth, where they lie beside the checkout
	$(BIN)/python -m tests.score

newest: .venv/development ## test delivery with the newest packages in the registry, in a venv of its own (a minute)
	$(BIN)/python -m tests.newest

bench: .venv/development ## measure: lines a second, memory, CPU when idle, delay (a few minutes)
	$(BIN)/python -m tests.bench

crash: .venv/development ## kill the daemon 100 times and recount (a few minutes)
	$(BIN)/python -m tests.crash --kills 100

weather: .venv/development ## try many orders of faults on the real daemon (an hour; WEATHER_EXAMPLES=n)
	WEATHER_EXAMPLES=$${WEATHER_EXAMPLES:-500} WEATHER_STEPS=$${WEATHER_STEPS:-25} $(BIN)/python -m pytest tests/test_weather.py

soak: .venv/development ## run for an hour at 100 times a busy Wok, with faults, and draw the chart
	$(BIN)/python -m tests.soak --chart docs/images/soak.svg

rotate: .venv/development ## let logrotate rotate under load and recount (some minutes)
	$(BIN)/python -m tests.rotate

docs: .venv/development ## write the generated pages of docs/ anew
	$(BIN)/python -m docs.pages

dashboards: .venv/development ## write the dashboards of deploy/grafana anew
	$(BIN)/python -m deploy.grafana

lock: $(BIN)/uv ## lock the dependencies anew, whatever index this machine uses
	env -u UV_DEFAULT_INDEX -u UV_INDEX_URL -u UV_INDEX -u UV_EXTRA_INDEX_URL -u UV_FIND_LINKS $(BIN)/uv lock --no-config

dist: $(BIN)/uv ## build the wheel and the source distribution
	$(BIN)/uv build --quiet

packages: $(BIN)/uv ## build the .deb and the .rpm, which carry a Python of their own, into dist/ (half a minute)
	UV_PROJECT_ENVIRONMENT=build/packages/venv $(BIN)/uv sync --quiet --frozen --no-default-groups --group packages \
	  --no-editable --reinstall-package wok-exporter --python $(PACKAGE_PYTHON)
	build/packages/venv/bin/python -m deploy.packages.build --release $(RELEASE) --dist $(DIST)

check: lint types test score ## all that CI asks for, but e2e

clean: ## remove what was built
	rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
