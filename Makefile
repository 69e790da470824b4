# `make` prints all targets. They work in a fresh clone with Python 3.11 or later.

PYTHON ?= python3
UV_VERSION := 0.13.9
# For `make packages`: the release number (raise it to build the same version again), the output
# directory, and the Python to include.
RELEASE ?= 1
DIST ?= dist
PACKAGE_PYTHON ?= $(BIN)/python
BIN := .venv/bin
# Use the certificates of this machine: companies often have their own authority.
export UV_SYSTEM_CERTS ?= 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-compiled e2e e2e-tools lint types format score newest bench instructions crash weather fuzz bounds soak rotate docs screenshots dashboards lock dist packages check clean

help: ## list all targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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

demo: .venv/runtime ## run the exporter on a simulated Wok (40 seconds)
	@$(BIN)/wok-exporter demo

test: .venv/development ## run all tests
	$(BIN)/python -m pytest

# A copy, because compiled modules beside the sources would hide later changes of these.
COMPILED := build/compiled/checkout
test-compiled: .venv/development ## run the tests with compiled modules, as packages have them (some minutes; needs a C compiler)
	rm -rf build/compiled
	$(BIN)/uv build --quiet --sdist --out-dir build/compiled
	mkdir -p $(COMPILED)
	tar -xzf build/compiled/wok_exporter-*.tar.gz --strip-components=1 -C $(COMPILED)
	$(MAKE) --no-print-directory -C $(COMPILED) .venv/development
	cd $(COMPILED) && .venv/bin/python -m deploy.packages.compiled .
	cd $(COMPILED) && GIT_CEILING_DIRECTORIES=$(CURDIR)/build .venv/bin/python -m pytest $(COMPILED_FLAGS)

.venv/e2e: .venv/development pyproject.toml uv.lock
	$(BIN)/uv sync --quiet --frozen --inexact --group e2e
	@touch $@

e2e-tools: .venv/development ## build the backends and hosts that e2e needs (10 minutes; needs Go, debootstrap, root)
	$(BIN)/python -m tests.e2e.tools

e2e: .venv/e2e ## test with real backends (some minutes; skips and lists what is missing)
	$(BIN)/python -m pytest -rs tests/e2e $(E2E_FLAGS)

lint: .venv/development ## check style with ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/development ## check types with mypy
	$(BIN)/mypy

format: .venv/development ## format the code with ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

score: .venv/development ## score the correlation against logs with ground truth, if there are any beside the checkout
	$(BIN)/python -m tests.score

newest: .venv/development ## test delivery with the newest packages in the registry, in a venv of its own (a minute)
	$(BIN)/python -m tests.newest

bench: .venv/development ## measure processor time, memory and delay, beside other programs (half an hour)
	$(BIN)/python -m tests.bench

instructions: .venv/development ## count the instructions that a line costs, and compare (a minute; needs valgrind)
	$(BIN)/python -m tests.instructions

crash: .venv/development ## kill the daemon 100 times and compare its counters with the log (a few minutes)
	$(BIN)/python -m tests.crash --kills 100

weather: .venv/development ## test random sequences of faults on the real daemon (an hour; WEATHER_EXAMPLES=n)
	WEATHER_EXAMPLES=$${WEATHER_EXAMPLES:-500} WEATHER_STEPS=$${WEATHER_STEPS:-25} $(BIN)/python -m pytest tests/test_weather.py

.venv/fuzz: .venv/development pyproject.toml uv.lock
	$(BIN)/uv sync --quiet --frozen --inexact --group fuzz
	@touch $@

fuzz: .venv/fuzz ## look for inputs that break parsers, guided by coverage (FUZZ_SECONDS=n for each of 10 targets)
	$(BIN)/python -m tests.fuzz_run --seconds $${FUZZ_SECONDS:-600} $(FUZZ_TARGETS)

bounds: .venv/development ## attack the daemon and write its bounds into docs/reliability.md (ten minutes)
	$(BIN)/python -m tests.bounds

soak: .venv/development ## run for an hour at 100 times a busy Wok, with faults, and draw the chart
	$(BIN)/python -m tests.soak --chart docs/images/soak.svg

rotate: .venv/development ## run logrotate under load and compare the counters with the log (some minutes)
	$(BIN)/python -m tests.rotate

docs: .venv/development ## regenerate docs/ and run its examples
	$(BIN)/python -m docs.pages

screenshots: .venv/development ## take the screenshots of the README from a demo (a minute; needs Chromium)
	$(BIN)/python -m docs.screenshots

dashboards: .venv/development ## regenerate the dashboards of deploy/grafana
	$(BIN)/python -m deploy.grafana

lock: $(BIN)/uv ## lock the dependencies, independent of this machine's index
	env -u UV_DEFAULT_INDEX -u UV_INDEX_URL -u UV_INDEX -u UV_EXTRA_INDEX_URL -u UV_FIND_LINKS $(BIN)/uv lock --no-config

dist: $(BIN)/uv ## build the source distribution, the wheel for every platform, and the compiled one for this platform
	$(BIN)/uv build --quiet
	HATCH_BUILD_HOOK_ENABLE_CUSTOM=1 $(BIN)/uv build --quiet --wheel

packages: $(BIN)/uv ## build the .deb and the .rpm, which include Python, in dist/ (two minutes; needs a C compiler)
	HATCH_BUILD_HOOK_ENABLE_CUSTOM=1 UV_PROJECT_ENVIRONMENT=build/packages/venv $(BIN)/uv sync --quiet --frozen --no-default-groups --group packages \
	  --no-editable --reinstall-package wok-exporter --python $(PACKAGE_PYTHON)
	build/packages/venv/bin/python -m deploy.packages.build --release $(RELEASE) --dist $(DIST)

check: lint types test score ## everything that CI runs, except e2e

clean: ## remove all build results
	rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
