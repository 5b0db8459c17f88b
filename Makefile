# make demo   set up, train the lite preset on the shipped sample, write pictures
# make test   set up, run the tests
# make lint   set up, run ruff and mypy
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
RESULTS := results/MediCLIP/sample/latest

.PHONY: demo test lint clean

demo: $(VENV)/.lite
	$(BIN)/anomalib train --config configs/model/mediclip_lite.yaml --data configs/data/sample.yaml \
	    --default_root_dir results
	@echo
	@echo "Done. One picture for every test image is in $(RESULTS)/images/test:"
	@echo "the image, its anomaly map on a fixed colour scale, and the outline of what was predicted (red) and is true (green)."
	@echo "Start with $(RESULTS)/images/test/abnormal. The checkpoint is $(RESULTS)/weights/lightning/model.ckpt."

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy anomalib_mediclip

clean:
	rm -rf $(VENV) results

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.lite $(VENV)/.dev: $(VENV)/.%: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing into $(VENV): several GB, because the torch on PyPI brings CUDA; this takes some minutes the first time."
	$(PIP) install --constraint constraints.txt --editable '.[$*]'
	@touch $@
