# Each target makes .venv and installs what it needs, once. `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
RUN ?=
CFG ?= configs/tiny.yaml
PROMPT ?= Once upon a time
export PROMPT # through the environment: a quote in it does no harm
VOCAB ?= 1000
TEXT ?= data/tiny.txt
SOURCE ?= smollm2
TO ?= hf
OUT ?= exported
ARGS ?=
SWEEP = --name first --lr 0.005 0.015 0.045 --n_layer 1 3 --seed 1 2 --steps 100 --jobs 2
LESSON ?=
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c .ci/constraints.txt
CODE = tok model data utils tests *.py

.DEFAULT_GOAL = help
.PHONY: help train sample eval plot doctor sweep ablate scaling-law transfer families bench serve import export numpy bpe-train tokenizers embed exercise failures ladder look notebooks format lint test test-slow clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml .ci/constraints.txt
	@echo "installing into $(VENV) (once; PyTorch is large)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) -e .
	@touch $@

$(VENV)/.installed-hub: $(VENV)/.installed
	@echo "installing what other programs' files need"
	@$(PIP) -e '.[hub]'
	@touch $@

$(VENV)/.installed-serve: $(VENV)/.installed
	@echo "installing what the server needs"
	@$(PIP) -e '.[serve]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "installing what the tests need"
	@$(PIP) -e '.[dev]'
	@touch $@

train: $(VENV)/.installed ## train: CFG=configs/tiny.yaml ARGS="--steps 400"
	$(BIN)/python train.py --config $(CFG) $(ARGS)

sample: $(VENV)/.installed ## write: PROMPT="Once upon a time" RUN=tiny ARGS="--temp 0.7"
	@$(BIN)/python sample.py $(if $(RUN),--run $(RUN)) --prompt "$$PROMPT" $(ARGS)

eval: $(VENV)/.installed ## score: RUN=tiny ARGS=--suite (skills, rules) or ARGS=--by-position
	@$(BIN)/python eval.py $(if $(RUN),--run $(RUN)) $(ARGS)

plot: $(VENV)/.installed ## draw losses, learning rate, gradient, speed: RUN="tiny other" ARGS=--watch
	@$(BIN)/python -m utils.plot $(RUN) $(ARGS)

doctor: $(VENV)/.installed ## what looks wrong with a run, and what to try: RUN=tiny
	@$(BIN)/python -m utils.doctor $(RUN) $(ARGS)

sweep: $(VENV)/.installed ## try settings side by side: ARGS="--lr 1e-3 3e-3 --n_layer 2 4"
	$(BIN)/python sweep.py $(or $(ARGS),$(SWEEP))

ablate: $(VENV)/.installed ## one change at a time, with seeds, on two texts: ARGS="--only norm mlp"
	$(BIN)/python -m utils.ablate $(ARGS)

scaling-law: $(VENV)/.installed ## sizes x budgets, a fit, a prediction put to the test: half an hour
	$(BIN)/python -m utils.scaling $(ARGS)

transfer: $(VENV)/.installed ## the best learning rate by width, standard and muP: half an hour
	$(BIN)/python -m utils.transfer $(ARGS)

families: $(VENV)/.installed ## GPT-2, LLaMA and BERT at equal compute: half an hour
	$(BIN)/python -m utils.families $(ARGS)

bench: $(VENV)/.installed ## tokens per second and memory
	$(BIN)/python bench.py $(ARGS)

serve: $(VENV)/.installed-serve ## a page and OpenAI's API: RUN=tiny ARGS="--port 8000"
	@$(BIN)/python -m utils.serve $(if $(RUN),--run $(RUN)) $(ARGS)

import: $(VENV)/.installed-hub ## a pretrained model becomes a run: SOURCE=smollm2 RUN=smollm2
	$(BIN)/python -m utils.hub import $(SOURCE) $(if $(RUN),--run $(RUN)) $(ARGS)

export: $(VENV)/.installed-hub ## a run for other programs: RUN=my TO=hf|gguf|peft|html OUT=exported
	$(BIN)/python -m utils.hub export $(RUN) --to $(TO) $(OUT) $(ARGS)

numpy: $(VENV)/.installed ## train a GPT in NumPy alone, and let it write: ARGS="--steps 200"
	@$(BIN)/python -m model.numpy_gpt $(ARGS)

bpe-train: $(VENV)/.installed ## train a tokenizer: VOCAB=1000 TEXT=data/tiny.txt
	$(BIN)/python -m tok.bpe train $(TEXT) --vocab $(VOCAB) --out tok/bpe.json

tokenizers: $(VENV)/.installed ## compare tokenizers on a text: TEXT=data/tiny.txt
	$(BIN)/python -m utils.tokenizer_report $(TEXT) $(ARGS)

embed: $(VENV)/.installed ## lines of a file as vectors, by a BERT: RUN=bert_tiny TEXT=lines.txt
	@$(BIN)/python -m utils.embed $(RUN) $(TEXT) $(ARGS)

exercise: $(VENV)/.installed-dev ## write a function of ours again: ARGS="start 7"
	@$(BIN)/python -m utils.exercises $(ARGS)

failures: $(VENV)/.installed ## trainings that fail on purpose, and their cures: LESSON=mask
	@$(BIN)/python -m utils.failures $(LESSON) $(ARGS)

ladder: $(VENV)/.installed ## from counting to the Transformer on one text: TEXT=data/tiny.txt
	@$(BIN)/python -m utils.ladder --data $(TEXT) $(ARGS)

look: $(VENV)/.installed ## a picture of every head, losses, logit lens: RUN=tiny PROMPT="One day"
	@$(BIN)/python -m utils.look $(RUN) "$$PROMPT" $(ARGS)

notebooks: $(VENV)/.installed-dev ## run docs/notebooks and keep what they show: ARGS=2_attention
	@$(BIN)/python -m utils.notebooks $(ARGS)

format: $(VENV)/.installed-dev ## put the code into shape
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/black $(CODE)

lint: $(VENV)/.installed-dev ## style and types
	$(BIN)/ruff check $(CODE) docs/notebooks
	$(BIN)/black --check $(CODE)
	$(BIN)/mypy

test: $(VENV)/.installed-dev ## the tests, with coverage
	$(BIN)/python -m pytest -m "not slow" -n auto --cov --cov-report=
	$(BIN)/coverage report --fail-under=80
	$(BIN)/coverage report --fail-under=90 --include='tok/*'
	$(BIN)/coverage report --fail-under=90 --include='model/attention.py'

test-slow: $(VENV)/.installed-dev ## the tests that take minutes
	$(BIN)/python -m pytest -m slow -n auto

clean: ## remove caches and prepared data; runs/ and .venv stay
	rm -rf data/prepared .coverage .hypothesis .mypy_cache .ruff_cache .pytest_cache build *.egg-info
