# `make quickstart` and `make test` need python3 >= 3.11 with pip and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SITE := docs/_build
INSTALL := $(shell command -v uv >/dev/null 2>&1 && echo "uv pip install --quiet --python $(BIN)/python" || echo "$(BIN)/python -m pip install --quiet")

.PHONY: help quickstart test test-slow notebook newest package ci-full lint format docs clean

help:
	@echo "make quickstart   train a small SphereNet on synthetic faces and score it (about 2 minutes on 2 cores)"
	@echo "make test         run the quick tests"
	@echo "make test-slow    run those that start processes, browsers and experiments"
	@echo "make notebook     run docs/notebooks/quickstart.ipynb from top to bottom"
	@echo "make newest       run some tests on the newest Python at hand, with the newest JAX"
	@echo "make package      build the sdist and the wheel, and try each in an environment of its own"
	@echo "make ci-full      what CI has no time for: fuzzing, kills, soak, full widths, compilers (hours)"
	@echo "make lint         ruff and mypy"
	@echo "make format       let ruff rewrite what it can"
	@echo "make docs         build the site, offline and strict, and say where it is"
	@echo "make clean        remove the environment, the caches and dist/; runs/ stays"

quickstart: $(VENV)/.runtime
	$(BIN)/sphereface quickstart
	@echo ". $(BIN)/activate puts the command sphereface on this shell's path"

test: $(VENV)/.test
	$(BIN)/python -m pytest

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -m "slow and not fuzz and not chaos and not soak and not parity_full"

notebook: $(VENV)/.notebook
	$(BIN)/jupyter execute docs/notebooks/quickstart.ipynb

newest: $(VENV)/.runtime
	$(BIN)/python .ci/newest_python.py

package: $(VENV)/.runtime
	.ci/package

ci-full: $(VENV)/.test
	.ci/full

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs $(SITE)
	@echo "$(CURDIR)/$(SITE)/index.html"

clean:
	rm -rf $(SITE) $(VENV) dist .cache .mypy_cache .pytest_cache .ruff_cache

# A Python without ensurepip (Debian's) has no venv; virtualenv from pip makes the same thing.
$(BIN)/python:
	@if command -v uv >/dev/null 2>&1; then uv venv --quiet --seed $(VENV); \
	elif ! $(PYTHON) -m venv $(VENV) 2>/dev/null; then \
		rm -rf $(VENV); \
		$(PYTHON) -m pip install --quiet --target .cache/virtualenv virtualenv; \
		PYTHONPATH=.cache/virtualenv $(PYTHON) -m virtualenv --quiet $(VENV); \
	fi

# Each stamp says that its extra is installed; a change of pyproject.toml installs again.
$(VENV)/.runtime: pyproject.toml | $(BIN)/python
	@echo "Installing sphereface-jax into $(VENV) (once; a minute or more without a word)"
	@$(INSTALL) -e ".[train]"
	@touch $@

$(VENV)/.test: $(VENV)/.runtime
	@echo "Installing the test tools into $(VENV) (once)"
	@$(INSTALL) -e ".[detect,onnx,test]"
	@touch $@

$(VENV)/.notebook: $(VENV)/.runtime
	@echo "Installing Jupyter's kernel into $(VENV) (once)"
	@$(INSTALL) -e ".[notebook]"
	@touch $@

$(VENV)/.lint: $(VENV)/.runtime
	@echo "Installing the linters into $(VENV) (once)"
	@$(INSTALL) -e ".[lint]"
	@touch $@

$(VENV)/.docs: $(VENV)/.runtime
	@echo "Installing the site's tools into $(VENV) (once)"
	@$(INSTALL) -e ".[docs]"
	@touch $@
