# install: into .venv. quickstart: the whole chain on a virtual cohort. lint, docs, test: what CI runs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install quickstart test test-fast test-faults label-demo label-as-written peers bench lint docs figures format clean

install: $(STAMP)

quickstart: $(STAMP)
	$(BIN)/tskd quickstart

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# the parts of the package alone: no bundle, no process of its own
test-fast: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m unit

# kills at random moments and mutated inputs, many more than in CI
test-faults: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m tests.faults.kill --kills 50
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m tests.faults.disk
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m tests.faults.disturb
	$(BIN)/python -m tests.faults.fuzz --inputs 2000

# the table of docs/performance.md, in CPU seconds: this tree against an older commit, in turn
TODAY ?= 16d6241
bench: $(STAMP)
	test -d build/today || git worktree add --detach build/today $(TODAY)
	PYTHONPATH=common $(BIN)/python benchmarks/performance.py --today build/today

# MONAI Label needs an environment of its own (pydicom 2): a student is shipped there and asked for masks
label-demo: $(STAMP) .venv-label/.installed
	TSKD_LABEL_PYTHON=.venv-label/bin/python $(BIN)/python -m pytest -v tests/bundles/test_monai_label.py

# the same in the environment that docs/how-to/monai_label.md names: with CUDA and SAM 2, 8 GB
label-as-written: $(STAMP)
	$(PYTHON) -m venv .venv-label-written
	$(BIN)/python -c "from tskd.export.shared_folders import LABEL_PACKAGES; print('\n'.join(LABEL_PACKAGES))" > .venv-label-written/list
	.venv-label-written/bin/pip install -q --disable-pip-version-check -r .venv-label-written/list
	TSKD_LABEL_PYTHON=.venv-label-written/bin/python $(BIN)/python -m pytest -v tests/bundles/test_monai_label.py

# nnU-Net in an environment of its own: it is trained on a folder that `tskd export --to nnunet` wrote, and scored
peers: $(STAMP) .venv-peers/.installed
	TSKD_PEERS_PYTHON=.venv-peers/bin/python $(BIN)/python -m pytest -v tests/bundles/test_nnunet.py

.venv-peers/.installed: tests/peers/install.sh
	sh tests/peers/install.sh .venv-peers $(PYTHON)
	@touch $@

.venv-label/.installed: tests/label/install.sh
	sh tests/label/install.sh .venv-label $(PYTHON)
	@touch $@

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --show-traceback
	$(BIN)/lint-imports

# the documentation site in build/site, without a network; a broken link fails
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# the figure of results in the README, from the CSVs in docs/results
figures: $(STAMP)
	$(BIN)/python docs/draw_results.py

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# torch first: its version is pinned before anything else can ask for another one
$(STAMP): pyproject.toml constraints.txt
	@echo "installing into $(VENV) (a few minutes the first time)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

clean:
	rm -rf $(VENV) .venv-label .venv-label-written .venv-peers quickstart
