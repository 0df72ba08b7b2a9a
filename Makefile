# Everything a newcomer needs: `make train` and `make test`, on any machine with Python >= 3.11.

PYTHON ?= python3
VENV ?= .venv
RUN := runs/digits
PY := $(VENV)/bin/python
PEERS := $(VENV)-peers

.DEFAULT_GOAL := help
.PHONY: help train test test-fast faults lint types peers parity bench accelerator-check docs notebook \
	wheel lock

help:
	@echo "make train   train the digits and sample from them (about 4 minutes on 2 CPU cores)"
	@echo "make test    run the test suite"
	@echo "make test-fast   the same without the slowest files (about 5 minutes)"
	@echo "make faults  the whole fault table: 20 kills, full disks, damage (about 10 minutes)"
	@echo "make parity  compare samplers and network with diffusers', installed beside (CPU build of torch)"
	@echo "make bench   time everything beside PyTorch's networks, on the digits (about 20 minutes)"
	@echo "make accelerator-check   rehearse on the CPU what benchmarks.accelerator measures (under 4 minutes)"
	@echo "make peers   install what parity and bench compare with"
	@echo "make wheel   build the wheel and use it in an empty environment (about 2 minutes)"
	@echo "make docs    write docs/configuration.md anew from the code"
	@echo "make lint    ruff;  make types: pyright;  make notebook: run it small;  make lock: renew the lock"

train: $(VENV)/ready
	$(PY) train.py --config=configs/digits.py --workdir=$(RUN)
	$(PY) sample.py --workdir=$(RUN) --num=64 --seed=1 --out=$(RUN)/samples/final.png
	@echo "pictures: $(RUN)/samples/    checkpoint: $(RUN)/checkpoints/"

test: $(VENV)/ready
	$(PY) -m pytest

test-fast: $(VENV)/ready
	$(PY) -m pytest -m "not faults and not long"

faults: $(VENV)/ready
	HYPOTHESIS_PROFILE=faults $(PY) -m pytest -m "faults or not faults" tests/test_faults*.py \
		tests/test_topologies.py tests/test_fuzz.py

lint: $(VENV)/tools
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/tools
	$(VENV)/bin/pyright --pythonpath $(PY)

peers: $(PEERS)/ready

parity: $(VENV)/ready $(PEERS)/ready
	PEERS_PYTHON=$(PEERS)/bin/python $(PY) -m pytest --numprocesses=0 parity

# All on the digits, beside a network of the same layers; docs/results.md has what else was measured.
BENCH = $(PY) -m benchmarks.speed.$(1) --config configs/digits.py --out benchmarks/results/$(1)_digits$(3).json $(2)
PEER = --peer diffusers --peers $(PEERS)/bin/python
bench: $(VENV)/ready $(PEERS)/ready
	$(call BENCH,train_step,$(PEER))
	$(call BENCH,train_step,$(PEER) --forward,_forward)
	$(call BENCH,sample,$(PEER) --steps 100)
	$(call BENCH,memory,$(PEER))
	$(call BENCH,compile)
	$(call BENCH,data)

# Small networks, the digits; PyTorch's network beside ours if `make peers` was run.
accelerator-check: $(VENV)/ready
	@out=$$(mktemp -d); JAX_PLATFORMS=cpu JAX_DISABLE_MOST_OPTIMIZATIONS=1 \
		$(PY) -m benchmarks.accelerator --minutes 3.5 --out $$out \
		--data digits $(if $(wildcard $(PEERS)/bin/python),--peers $(PEERS)/bin/python); \
		status=$$?; ls -l $$out; rm -rf $$out; exit $$status

docs: $(VENV)/ready
	$(PY) -m diffusion_jax.configuration.reference > docs/configuration.md

notebook: $(VENV)/tools
	@runs=$$(mktemp -d); SMALL=1 RUNS=$$runs $(VENV)/bin/jupyter-execute \
		colab/quickstart.ipynb --output=$$runs/executed.ipynb; status=$$?; rm -rf $$runs; exit $$status

# The wheel alone, in an empty environment and an empty folder, as after `pip install`.
TINY = --config.train.steps=4 --config.train.batch_size=8 --config.model.channels=8 \
	--config.schedule.steps=20 --config.train.sample_every=2
wheel:
	@new=$$(mktemp -d); trap 'rm -rf "$$new"' EXIT; set -e; \
	$(PYTHON) -m venv "$$new/env"; pip="$$new/env/bin/pip --quiet --disable-pip-version-check"; \
	rm -rf build; $$pip wheel --no-deps --wheel-dir "$$new" .; \
	$$pip install --constraint requirements.lock "$$new"/*.whl; \
	mkdir "$$new/empty"; cd "$$new/empty"; dj="$$new/env/bin/diffusion-jax"; \
	$$dj train $(TINY); \
	$$dj train --config=digits:conditional $(TINY) --dry_run; \
	$$dj sample --workdir=runs/digits --num=4 --steps=5; \
	$$dj evaluate --workdir=runs/digits --num=4; \
	"$$new/env/bin/python" -m diffusion_jax train --list; \
	"$$new/env/bin/python" -c "import diffusion_jax as dj; print(dj.load('runs/digits').sample(2, steps=3).shape)"

lock: $(VENV)/tools
	$(VENV)/bin/uv pip compile --universal --python-version 3.11 --upgrade --no-annotate \
		--no-header requirements-test.txt -o requirements.lock

# A file marks a finished installation: one that was cut off is done again.
$(VENV)/ready: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"Python >= 3.11 is needed; name one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@touch $@

$(VENV)/tools: $(VENV)/ready requirements-dev.txt
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

$(PEERS)/ready: requirements-peers.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@
