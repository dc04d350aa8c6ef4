# Each target is a line or two that you could type yourself, with .venv activated.
.DEFAULT_GOAL := help
.PHONY: help setup lock repro demo serve sweep exps compare test test-all lint bench bench-serve system

PYTHON ?= python3
LOCK ?= dev
SWEEP ?= run=1,2,3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
UV = $(or $(shell command -v uv 2>/dev/null),.venv/bin/uv)

help:  ## This list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: .venv/$(LOCK).installed  ## .venv with the exact versions of requirements/dev.txt (LOCK=gpu for CUDA)

# Bytecode now, not at each start: TensorFlow is imported in 4 s, not 11.
.venv/$(LOCK).installed: requirements/$(LOCK).txt
	@$(PYTHON) -c 'import sys; sys.exit("needs Python 3.11 to 3.13, not %d.%d: make PYTHON=python3.12 ..." % sys.version_info[:2] if not (3, 11) <= sys.version_info[:2] <= (3, 13) else 0)'
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	test -x "$(UV)" || .venv/bin/python -m pip install --quiet uv
	$(UV) pip sync --quiet --python .venv/bin/python --compile-bytecode --require-hashes $<
	rm -f .venv/*.installed && touch $@

lock:  ## The lock files anew from pyproject.toml (UPGRADE=--upgrade for newer versions)
	requirements/lock.sh $(UPGRADE)

repro: setup  ## MNIST to a registered champion: rebuilds what has changed
	dvc repro
	python -m pipeline.register

# 1,257 images give few steps an epoch, hence more of them.
demo: setup  ## The same on scikit-learn's digits, without network; serves its champion on http://127.0.0.1:8000
	dvc exp remove --quiet demo || true
	dvc exp run --temp --name demo -S data=digits $(foreach run,1 2 3,-S conf/run/$(run).yaml:epochs=60)
	rm -rf .demo && dvc get --quiet . models/champion --rev demo --out .demo/champion
	@echo "The champion is in .demo/champion; 'dvc exp show' has the figures, 'dvc exp remove demo' forgets it."
	MODEL_URI=.demo/champion STATE_DIR=.demo/state python -m serve

serve: setup  ## The registered champion on http://127.0.0.1:8000 (API_PORT, MODEL_URI and more: docs/API.md)
	python -m serve

sweep: setup  ## Runs 1, 2 and 3 as experiments (SWEEP='run=3 batch_size=64,128' for another)
	python train.py -m $(SWEEP)

exps: setup  ## The experiments of this commit, the best first
	@python -m pipeline.exps

compare: setup  ## Experiments on one page, reports/experiments.html (EXPS='NAME main' for some alone)
	@python -m pipeline.compare_experiments $(EXPS)

test: setup  ## The tests, but for those marked slow
	python -m pytest -m "not slow"

test-all: setup  ## All tests
	python -m pytest

lint: setup  ## Format, lint and types
	ruff format --check . && ruff check .
	mypy

bench: setup  ## Times and sizes as ratios against named baselines
	python -m bench

bench-serve: setup  ## Requests per second as ratios against named baselines
	python -m bench.serve

system:  ## The programs that tests use and pip does not install (Debian, as root)
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium curl nodejs redis-server wrk
