# Everything runs in .venv, made here; nothing else need be installed but Python and a compiler.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test slow check format bench browser clean

demo: .venv/.study
	$(BIN)/momos demo

test: .venv/.test browser
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

slow: .venv/.test
	$(BIN)/python -m pytest -m slow

check: .venv/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports

format: .venv/.test
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: .venv/.bench
	$(BIN)/python bench/run.py

# The report is tested in Debian's Chromium, installed where that may be done.
APT := $(if $(filter 0,$(shell id -u)),,sudo -n) env DEBIAN_FRONTEND=noninteractive apt-get -qq
BROWSER := chromium chromium-driver fonts-dejavu-core

browser:
	@{ command -v chromium && command -v chromedriver; } >/dev/null || \
	{ $(APT) update && $(APT) install --yes --no-install-recommends $(BROWSER); } >/dev/null || \
	echo 'no chromium here, and none can be installed: tests in a browser will be skipped'

NATIVE := setup.py $(wildcard src/momos/native/* src/momos/*/native/*)

.venv/.study .venv/.test .venv/.bench: .venv/.torch pyproject.toml constraints.txt $(NATIVE)
	$(INSTALL) -e '.[$(patsubst .venv/.%,%,$@)]'
	touch $@

# torch first and alone, so that nothing else can choose another build of it.
.venv/.torch: constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) torch
	touch $@

clean:
	rm -rf .venv build runs src/*.egg-info src/momos/*/*.so
