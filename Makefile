# Every target does its own set-up; what is current is skipped.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
  $$p --version >/dev/null 2>&1 && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help venv demo debug test test-all lint format bench \
  hardening clean

help:
	@echo "make demo      small world, teachers, students, table, picture"
	@echo "make test      the test suite (under 12 minutes on 2 cores)"
	@echo "make test-all  the same and the slow tests"
	@echo "make hardening  kills and damaged files at random (half an hour)"
	@echo "make lint      ruff, shellcheck"
	@echo "make bench     figures of the README: demo and study (hours)"
	@echo "make venv      $(VENV) with the pinned packages"

$(INSTALLED): requirements.txt constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
	  sys.exit(not (3, 11) <= v <= (3, 13))' || \
	  { echo "Python 3.11 to 3.13 is needed: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  -r requirements.txt -c constraints.txt
	@touch $@

venv: $(INSTALLED)

# Without distillation first: the second table shows both.
demo: venv
	$(BIN)/python -m mipd_jax.main --config=configs/synthetic.py:no_distillation
	$(BIN)/python -m mipd_jax.main --config=configs/synthetic.py \
	  --config.eval.beside=runs/synthetic-no_distillation

debug: venv
	$(BIN)/python -m mipd_jax.main --config=configs/synthetic.py:debug

test: venv
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
	  -m "not slow" --durations=20

test-all: venv
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Goes on where it was stopped.
hardening: venv
	$(BIN)/python -m benchmarks.hardening

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/shellcheck launch_tpu.sh tpu/*.sh

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: demo
	$(BIN)/python -m mipd_jax.ablate --config=configs/ablations.py \
	  --first_world=2 --docs=docs
	$(BIN)/python -m mipd_jax.ablate --config=configs/ablations.py \
	  --first_world=2 --worlds=6 --docs=docs/six_worlds \
	  --only=no_distillation,reference,mipd,kl_alone,no_kl,kl_trained_names
	$(BIN)/python -m benchmarks.figures

clean:
	rm -rf runs
