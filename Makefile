# Everything runs in .venv, made here; nothing else need be installed but Python and a compiler.
PYTHON ?= python3
BIN := .venv/bin
# Each step says what it does; a terminal also sees pip's own progress, a log stays short.
SAY := @printf '%s\n'
INSTALL := @quiet=--quiet; if [ -t 1 ]; then quiet=; fi; \
	$(BIN)/python -m pip install $$quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test slow check format bench docs browser clean

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

# Strict: a broken link, an error in a tutorial or a public name without a page fails.
docs: .venv/.docs
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m sphinx -E -W --keep-going -q -j auto docs build/site
	$(BIN)/python tools/site_links.py build/site

# The report is tested in Debian's Chromium, installed where that may be done.
APT := $(if $(filter 0,$(shell id -u)),,sudo -n) env DEBIAN_FRONTEND=noninteractive apt-get
BROWSER := chromium chromium-driver fonts-dejavu-core
NO_BROWSER := no chromium here, and none can be installed: tests in a browser will be skipped

browser:
	@if command -v chromium && command -v chromedriver; then exit; fi >/dev/null; \
	echo 'installing Chromium with apt-get, once, for tests of the report'; \
	quiet=-qq; log=/dev/null; if [ -t 1 ]; then quiet=-q; log=/dev/stdout; fi; \
	{ $(APT) $$quiet update && \
	$(APT) $$quiet install --yes --no-install-recommends $(BROWSER); } >$$log || \
	echo '$(NO_BROWSER)'

NATIVE := setup.py $(wildcard src/momos/native/* src/momos/*/native/*)

.venv/.study .venv/.test .venv/.bench .venv/.docs: .venv/.torch pyproject.toml constraints.txt $(NATIVE)
	$(SAY) 'installing momos and all that "make $(patsubst study,demo,$(@:.venv/.%=%))" needs; its engines are compiled'
	$(INSTALL) -e '.[$(@:.venv/.%=%)]'
	@touch $@

# torch first and alone, so that nothing else can choose another build of it.
.venv/.torch: constraints.txt
	$(SAY) 'making .venv, which everything goes into (make clean removes it)'
	@$(PYTHON) -m venv .venv
	$(SAY) 'installing torch, once: some 200 MB to download for a CPU build, more for CUDA'
	$(INSTALL) torch
	@touch $@

clean:
	rm -rf .venv build runs src/*.egg-info src/momos/*/*.so
