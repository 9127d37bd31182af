# Every command of this project. `make help` lists them; CI runs nothing that is not here.
PYTHON ?= python3
# cpu: the small build of torch; cuda: the build for NVIDIA GPUs (several GB).
TORCH ?= cpu
# Test processes that run side by side.
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(TORCH)
TORCH_PIN := $(shell sed -n 's/^torch==//p' requirements.lock)
# Only its weights are used; what its code depends on, torchaudio, is not wanted.
SILERO := $(shell sed -n '/^silero-vad==/p' requirements.lock)
# One thread per test process: more would fight over the same cores.
ONE_THREAD := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE

.DEFAULT_GOAL := help
.PHONY: help setup format check test demo server deploy worker-control worker-cpu worker-gpu bench parity gpu load figures fuzz e2e chaos proofs listing samples checkpoint base-checkpoint unheard lock clean

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "  make %-16s %s\n", $$1, $$2}'

setup: $(STAMP) ## install everything into .venv (TORCH=cuda for a GPU build)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "$(PYTHON) is Python %d.%d, and 3.11 or newer is needed: make PYTHON=/path/to/python3.11" % sys.version_info[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	rm -f $(VENV)/.installed-*
ifeq ($(TORCH),cpu)
	$(BIN)/pip install --quiet "torch==$(TORCH_PIN)+cpu" 2>/dev/null \
	  || $(BIN)/pip install --quiet "torch==$(TORCH_PIN)" --index-url https://download.pytorch.org/whl/cpu \
	  || $(BIN)/pip install --quiet "torch==$(TORCH_PIN)"
else
	$(BIN)/pip install --quiet --force-reinstall "torch==$(TORCH_PIN)"
endif
	grep -v '^silero-vad==' requirements.lock | $(BIN)/pip install --quiet -r /dev/stdin
	$(BIN)/pip install --quiet --no-deps $(SILERO)
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

format: setup ## rewrite the code as ruff lays it out
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: setup ## lint, layout and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: setup ## every test, WORKERS side by side
	$(ONE_THREAD) $(BIN)/pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder

demo: setup ## audio in S3 to words in SQL, on this machine
	$(BIN)/dgasr demo

server deploy worker-control worker-cpu worker-gpu: export PREFECT_API_URL ?= http://127.0.0.1:4200/api

server: setup ## Prefect's server on this machine, with its UI on http://127.0.0.1:4200 (stays)
	exec $(BIN)/python -m pipelines.start server

deploy: setup ## pools, queues, deployments and automations on the server that PREFECT_API_URL names (this machine)
	$(BIN)/python -m pipelines.deploy

worker-control: setup ## a worker for parent runs (stays)
	exec $(BIN)/python -m pipelines.start control

worker-cpu: setup ## a worker that reads audio (stays)
	exec $(BIN)/python -m pipelines.start cpu

worker-gpu: setup ## a worker that decodes, one for each GPU (stays)
	exec $(BIN)/python -m pipelines.start gpu

# A benchmark and its flags, such as BENCH="occupancy --batch 32"; `make bench BENCH=-h` lists them.
BENCH ?=
bench: setup ## speed of the front end and of the whole path (BENCH="occupancy" or "sql …": another question)
	$(BIN)/python -m benchmarks $(BENCH)

parity: setup ## decoding beside transformers' generate, on the published structure in small: the largest difference of each
	$(BIN)/python -m benchmarks parity

gpu: setup ## all that a GPU has to show: loading, parity, speed; 40 minutes, goes on where it was stopped (GPU="--adapter owner/name")
	$(BIN)/python -m benchmarks gpu $(GPU)

# Flags of the load test, such as LOAD="--clients 50 --seconds 20".
LOAD ?=
load: setup ## `dgasr serve` under 200 clients for a minute: no error, no wrong text (LOAD="--clients 50")
	$(ONE_THREAD) $(BIN)/python -m benchmarks load $(LOAD)

figures: ## how large the project is: files, lines, the longest file
	$(PYTHON) -m tools.figures

# Flags of a proof, such as PROOF="--seed 7 --recordings 50"; figures and logs go to runs/proofs.
PROOF ?=
e2e: setup ## 200 recordings through server, pools and S3: every row as the embedded run has it (3 minutes)
	$(ONE_THREAD) $(BIN)/python -m tests.proofs.e2e $(PROOF)

chaos: setup ## the same under 30 SIGKILLs and a failing S3: the lake ends as if nothing had been (10 minutes)
	$(ONE_THREAD) $(BIN)/python -m tests.proofs.chaos $(PROOF)

proofs: setup ## overhead, memory, two backfills at once, cancelling (20 minutes)
	$(ONE_THREAD) $(BIN)/python -m tests.proofs.costs $(PROOF)
	$(ONE_THREAD) $(BIN)/python -m tests.proofs.backfills $(PROOF)
	$(ONE_THREAD) $(BIN)/python -m tests.proofs.cancel $(PROOF)

# How long to fuzz, and other flags, such as FUZZ="--seed 3"; findings go to runs/fuzz.
MINUTES ?= 2
FUZZ ?=
fuzz: setup ## mutated files over all readers of audio: nothing may crash, hang, take memory or print (MINUTES=10)
	$(ONE_THREAD) $(BIN)/python -m tests.proofs.fuzz --minutes $(MINUTES) $(FUZZ)

listing: setup ## list and plan a million keys: time and memory
	$(ONE_THREAD) $(BIN)/python -m tests.proofs.listing $(PROOF)

samples: setup ## make dgasr/samples again (needs espeak-ng, flite and ffmpeg)
	$(BIN)/python -m tools.make_samples

FSDD ?= ../shared/data/fsdd
TINY_DATA := corpora/fsdd-train.jsonl corpora/fsdd-train.jsonl corpora/voices/manifest.jsonl
checkpoint: setup ## train the bundled model again, about an hour (FSDD=folder of the digits; needs espeak-ng, flite)
	$(BIN)/python -m tools.tiny.corpora corpora --fsdd $(FSDD)
	$(ONE_THREAD) $(BIN)/python -m tools.tiny.fresh runs/tiny-fresh $(TINY_DATA)
	$(ONE_THREAD) $(BIN)/python -m tools.tiny.phases runs/tiny-fresh $(TINY_DATA) --out runs/tiny \
	  --validation corpora/fsdd-valid.jsonl --calibration corpora/connected-train/manifest.jsonl
	cp runs/tiny/model/config.json runs/tiny/model/model.safetensors runs/tiny/model/tokenizer.json dgasr/model/tiny/

# Where the model of real speech is made, and the data it is made from.
BASE ?= runs/base
SHARED ?= ../shared
base-checkpoint: setup ## train `base`, which hears English, in stages that go on where they were killed (three hours with AMX; UNTIL=ear)
	$(BIN)/python -m tools.base.make $(BASE) --shared $(SHARED) $(if $(UNTIL),--until $(UNTIL))

# A voice never heard: SPEAKER is left out of training and of calibration, and then judged alone.
SPEAKER ?= jackson
SHARE ?= 0.45
OTHERS = corpora/fsdd-train-without-$(SPEAKER).jsonl corpora/fsdd-train-without-$(SPEAKER).jsonl corpora/voices/manifest.jsonl
unheard: setup ## train on all but SPEAKER with 0.45 of the steps (SHARE=1: all), half an hour, and judge on SPEAKER (FSDD=)
	$(BIN)/python -m tools.tiny.corpora corpora --fsdd $(FSDD)
	$(ONE_THREAD) $(BIN)/python -m tools.tiny.fresh runs/without-$(SPEAKER)-fresh $(OTHERS)
	$(ONE_THREAD) $(BIN)/python -m tools.tiny.phases runs/without-$(SPEAKER)-fresh $(OTHERS) --share $(SHARE) \
	  --calibration corpora/connected-train/without-$(SPEAKER).jsonl --out runs/without-$(SPEAKER)
	$(ONE_THREAD) $(BIN)/dgasr evaluate corpora/connected-$(SPEAKER)/manifest.jsonl --model runs/without-$(SPEAKER)/model --max-steps 1,2,4,8,16

lock: setup ## write the installed versions to requirements.lock
	{ sed -n '/^#/p' requirements.lock; \
	  $(BIN)/pip freeze --exclude-editable --exclude pip --exclude setuptools | sed 's/+cpu$$//; s/ @ .*//'; } > requirements.lock.new
	mv requirements.lock.new requirements.lock

clean: ## remove what the demo and the tests left behind (not .venv)
	rm -rf demo-lake .pytest_cache .mypy_cache .ruff_cache
