# make VENV=... puts the virtual environment elsewhere, PYTHON=... makes it with another interpreter.
VENV ?= .venv
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name))))
BIN := $(VENV)/bin
# What names files or says when goes to Python by the environment, as it was typed: no shell reads it, nor make itself.
$(foreach name,AT CRON DATASET FOLDER FORCE IMAGE MODEL OUT PORT PROVIDER REASON RECIPE REGISTRY TO URL VERSION WAIT,$(eval override $(name) := $$(value $(name))))
export AT CRON DATASET FOLDER FORCE IMAGE MODEL OUT PORT PROVIDER REASON RECIPE REGISTRY TO URL VERSION WAIT

.PHONY: help installed install run search schedule notify report serve promote rollback pull-champion history why unit test bench load-test check predict triton lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-15s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: installed ## train, evaluate, export and verify; RECIPE=name or DATASET=name
	@$(BIN)/python -m flows run

search: installed ## try the ranges under search: in params.yaml, beside the project
	@$(BIN)/python -m flows search

schedule: installed ## run it again and again: CRON="0 3 * * *" TZ=Europe/Berlin
	@$(BIN)/python -m flows retraining

notify: installed ## tell somebody how each night ended: URL=... as Apprise has it
	@$(BIN)/python -m flows notify

report: installed ## write all that there is to see of the last run into reports/
	@$(BIN)/python -m flows report

serve: installed ## answer over HTTP with the model in service; MODEL=path PORT=8080
	@$(BIN)/python -m serving

promote: installed ## put what is in models/ into service, if better; VERSION= FORCE=1
	@$(BIN)/python -m flows promote

rollback: installed ## put the one before it back into service, or TO=digits; REASON=...
	@$(BIN)/python -m flows rollback

pull-champion: installed ## bring the model in service from DVC's default remote
	@$(BIN)/python -m flows pull_champion

history: installed ## list the models that have been in service; AT=2026-11-20
	@$(BIN)/python -m flows history

why: installed ## what was said of the model that was judged last
	@$(BIN)/python -m flows why

# More tests at a time than the two cores that are enough, as many wait; torch's threads, which would spin while they
# wait, would take the others' core. The files in the order of tests/conftest.py: the longest first.
PYTEST := OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

unit: installed ## run all tests but the whole runs: in minutes
	@$(PYTEST) --ignore=tests/runs $(ARGS)

test: installed ## run the test suite; DATA_MIRROR=folder adds real Fashion-MNIST
	@$(PYTEST) $(ARGS)

bench: installed ## measure speed and memory on the data in DATA_MIRROR=folder
	@$(BIN)/python -m benchmarks $(ARGS)

load-test: installed ## drive the server with wrk (Debian's package)
	@$(BIN)/python -m benchmarks.load $(ARGS)

check: installed ## ruff (format and lint) and mypy --strict
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

predict: installed ## classify IMAGE=path, or FOLDER=path OUT=labels.csv; MODEL=path
	@$(BIN)/python -m serving.predict

triton: installed ## write the model in service for Triton; MODEL=path OUT=folder
	@$(BIN)/python -m serving.triton

lock: installed ## renew the two requirements from pyproject.toml
	$(BIN)/python .ci/lock.py

clean: ## remove the environment and leftovers; data, models, caches stay
	if [ -f $(VENV)/pyvenv.cfg ]; then rm -rf $(VENV); fi
	rm -rf dvc_plots .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . \( -path ./.git -o -path ./data \) -prune -o -name __pycache__ -prune -exec rm -rf {} +

# One installation, shared by all targets and by all clones that name it: anew only for another lock.
installed: $(if $(shell cmp -s requirements.txt $(VENV)/requirements.txt && echo the same),,install)

install:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v <= (3, 13) and \
		f"Python 3.11, 3.12 or 3.13 is needed, {sys.executable} is {v[0]}.{v[1]}: make PYTHON=/path/to/python3.11")'
	@echo "Installing the lock into $(VENV): once, about 6 GB with PyTorch, a few minutes"
	@$(PYTHON) -m venv $(VENV)
	@rm -f $(VENV)/requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@cp requirements.txt $(VENV)
