# The front door. `make help` prints what stands behind each ##.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# More arguments for pytest (make test ARGS="-k lanes") or tox (make matrix ARGS="-e py311-django52").
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install servers demo test soak bench check format coverage matrix docs dist clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' \
		| while IFS='|' read -r target text; do printf '  make %-9s %s\n' "$$target" "$$text"; done

install: $(VENV)/.test ## make a virtual environment with the package and what its tests need

servers: $(VENV)/.servers ## add uWSGI for its tests, which takes a C compiler

demo: $(VENV)/.package ## play the tour and serve the demo shop (TOUR=1: end after the tour)
	TOUR="$(TOUR)" $(BIN)/python -m demo_site.tour

test: $(VENV)/.test ## run the tests on SQLite, and on PostgreSQL and MariaDB where they answer
	$(BIN)/python -m tests.run $(ARGS)

soak: $(VENV)/.test ## run the fault tests in their long form and print what was lost, doubled or stuck
	$(BIN)/python -m tests.run --soak $(ARGS)

bench: $(VENV)/.bench ## measure beside rivals, on PostgreSQL, and print the ratios (ARGS=--short: two minutes)
	$(BIN)/python -m tests.benchmarks $(ARGS)

check: $(VENV)/.dev ## lint, format, types, layers, missing migrations
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	DATABASE=sqlite-memory $(BIN)/django-admin makemigrations signal_dispatch --check --dry-run \
		--settings tests.settings --pythonpath .

format: $(VENV)/.dev ## repair what ruff can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

coverage: $(VENV)/.test ## run the tests and list the lines of the package that none of them reached
	$(BIN)/coverage erase
	$(BIN)/python -m tests.run --coverage $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

matrix: $(VENV)/.dev ## run the tests on each supported pair of Python and Django that is found
	$(BIN)/tox run-parallel --parallel 2 --parallel-no-spinner $(ARGS)

docs: $(VENV)/.docs ## build the pages into docs/_build/html; a link that leads nowhere is an error
	$(BIN)/sphinx-build --builder html --fail-on-warning --keep-going --nitpicky --fresh-env --quiet \
		--conf-dir docs --doctree-dir docs/_build/doctrees . docs/_build/html
	@echo "docs/_build/html/index.html"

dist: $(VENV)/.test ## build the sdist, and from it the wheel, into dist/
	rm -rf dist
	$(BIN)/python -m build --outdir dist

clean: ## remove the virtual environment and everything that was built
	rm -rf $(VENV) .tox .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	rm -rf build dist docs/_build *.egg-info .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp per set of requirements: whoever asks for more gets more, nobody installs twice.

$(VENV)/.python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.package: pyproject.toml $(VENV)/.python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.test: pyproject.toml $(VENV)/.python
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@

$(VENV)/.servers: pyproject.toml $(VENV)/.test
	$(BIN)/python -m pip install --quiet --editable '.[servers]'
	@touch $@

# Older ones of pip know no groups.
$(VENV)/.bench: pyproject.toml $(VENV)/.test
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --group bench
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.python
	$(BIN)/python -m pip install --quiet --editable '.[test,dev]'
	@touch $@

$(VENV)/.docs: pyproject.toml $(VENV)/.python
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@
