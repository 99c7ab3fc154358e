# `make tutorial` and `make test` each do all the set-up they need.
VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/.ready

.PHONY: tutorial test benchmarks clean

tutorial: $(READY)
	$(PYTHON) tutorials/vae_gmm.py --out runs/vae_gmm

test: $(READY)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(PYTHON) -m pytest

benchmarks: $(READY)
	$(PYTHON) -m tests.benchmarks --all

$(READY): setup.py constraints.txt
	test -x $(PYTHON) || python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) runs build *.egg-info
