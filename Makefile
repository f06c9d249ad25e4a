# The course's commands. `make` alone lists them.
PYTHON ?= python3.11
BIN := .venv/bin
LIVEBOOK := PYTHONPATH=book/_ext $(BIN)/python -m livebook

.PHONY: help book test serve lab run bench lint clean ready links
.DEFAULT_GOAL := help

help: # list the commands below
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-6s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

ready: # make .venv and install what is pinned, unless that is done
	@$(PYTHON) book/_ext/livebook/environment.py

book: ready ## execute the chapters and build the site into _build/html
	@$(LIVEBOOK) build

test: book ## build the site if it is out of date, then run every test
	@$(BIN)/python -m pytest $(ARGS)

serve: ready ## serve the site on localhost and build it anew when a file changes
	@$(LIVEBOOK) serve

lab: ready ## open the notebooks in JupyterLab, with MyST rendering
	@$(BIN)/jupyter lab --notebook-dir=book

run: ready ## run an experiment: make run NAME=mnist_mlp (without NAME, list them)
	@$(BIN)/bn $(if $(NAME),run $(NAME),list) $(ARGS)

bench: ready ## measure speed against PyTorch, and the site's weight and first figure
	@$(BIN)/python -m benchmarks $(ARGS)

lint: ready ## check style and spelling
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/codespell

clean: ## remove what was built, but not .venv, data or records
	rm -rf _build .pytest_cache .ruff_cache .hypothesis build
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

links: ready # check every external link (needs the network; the weekly workflow runs it)
	@$(BIN)/jupyter-book build . --builder linkcheck
