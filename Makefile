# make demo        set up, train the lite preset on the shipped sample, write pictures
# make test        set up, run all tests; ARGS="-k cli" chooses some
# make test-fast   set up, run the unit tests and doctests that are not slow, within a minute
# make lint        set up, run ruff, mypy and import-linter
# make clean       remove the environment and the results
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
RESULTS := results/MediCLIP/sample/latest
# Two workers on one thread each: with two threads each they wait for one another, which takes twice as long.
# A worker that dies ends the run and names its test: pytest-xdist would start another one, and wait for ever.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --max-worker-restart 0

.PHONY: demo test test-fast lint clean

demo: $(VENV)/.lite
	$(BIN)/anomalib train --config configs/model/mediclip_lite.yaml --data configs/data/sample.yaml \
	    --default_root_dir results
	@echo
	@echo "Done. One picture for every test image is in $(RESULTS)/images/test:"
	@echo "the image, its anomaly map on a fixed colour scale, and the outline of what was predicted (red) and is true (green)."
	@echo "Start with $(RESULTS)/images/test/abnormal. The checkpoint is $(RESULTS)/weights/lightning/model.ckpt."

test: $(VENV)/.dev
	$(PYTEST) --dist loadscope --durations=20 $(ARGS)

test-fast: $(VENV)/.dev
	$(PYTEST) -m "not slow" tests/unit anomalib_mediclip $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy anomalib_mediclip
	$(BIN)/lint-imports --no-logo

clean:
	rm -rf $(VENV) results

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.lite $(VENV)/.dev: $(VENV)/.%: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing into $(VENV): several GB, because the torch on PyPI brings CUDA; this takes some minutes the first time."
	$(PIP) install --constraint constraints.txt --editable '.[$*]'
	@touch $@
