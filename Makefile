# `make tutorial` and `make test` each do all the set-up they need.
VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/.ready
TYPES := build/types/serkit

.PHONY: tutorial test lint types docs benchmarks clean

# Two threads that other jobs disturb take ten times as long as one: they wait for each other.
tutorial: $(READY)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PYTHON) tutorials/vae_gmm.py --out runs/vae_gmm

test: lint
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 --dist=worksteal  # a half of the files each, then what is left

lint: types
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .

# mypy and mkdocstrings know no package_dir: they are shown the files where they are installed.
types: $(TYPES)
	MYPYPATH=$(dir $(TYPES)) $(VENV)/bin/mypy -p serkit

# The guide as pages: runs/docs/index.html opens without a server.
docs: $(TYPES)
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict --quiet

.PHONY: $(TYPES)
$(TYPES): $(READY)
	mkdir -p $(TYPES)
	ln -sfn $(addprefix ../../../,$(wildcard serkit/*) modules) $(TYPES)

benchmarks: $(READY)
	$(PYTHON) -m tests.benchmarks --all --record

$(READY): setup.py constraints.txt
	test -x $(PYTHON) || python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) runs build *.egg-info
