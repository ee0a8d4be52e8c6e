# Two commands do everything on a fresh machine:
#   make bench METHOD=dpersona
#   make test
PYTHON  ?= python3
VENV    ?= .venv
RESULTS ?= results
METHOD  ?= dpersona
DATASET ?= lidc-contours
PRESET  ?= quick
FOLD    ?= 0
SEED    ?= 0
DEVICE  ?= auto
JOBS    ?= 1
SET     ?=

# A variable that nothing reads is a typing error: `make bench METOD=x` would run the default.
VARIABLES := PYTHON VENV RESULTS METHOD DATASET PRESET FOLD SEED DEVICE JOBS SET
UNKNOWN := $(filter-out $(VARIABLES) MAKEFLAGS SHELL,$(foreach v,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(v)))),$(v))))
$(if $(UNKNOWN),$(error unknown variable $(UNKNOWN); valid: $(VARIABLES)))

BIN := $(VENV)/bin
RUN := $(BIN)/multirater
INSTALLED := $(VENV)/.installed
SETS := $(foreach s,$(SET),--set '$(s)')

.PHONY: help bench test test-slow test-slurm perf lint format leaderboard figures report clean .venv
.DEFAULT_GOAL := help

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

# The install step: runs again only when pyproject.toml or constraints.txt change.
$(INSTALLED): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

.venv: $(INSTALLED)

bench: $(INSTALLED)  ## train and evaluate METHOD on DATASET with PRESET, print the table, update leaderboard and figures
	@$(RUN) run --method '$(METHOD)' --dataset '$(DATASET)' --preset '$(PRESET)' --fold '$(FOLD)' --seed '$(SEED)' \
		--device '$(DEVICE)' --jobs '$(JOBS)' --results '$(RESULTS)' $(SETS)

leaderboard: $(INSTALLED)  ## leaderboard from stored results
	@$(RUN) leaderboard --results '$(RESULTS)'

figures: $(INSTALLED)  ## figures from stored results
	@$(RUN) figures --results '$(RESULTS)'

report: $(INSTALLED)  ## HTML report from stored results: one offline folder
	@$(RUN) report --results '$(RESULTS)'

test: $(INSTALLED)  ## the test suite (under 10 minutes on 2 cores)
	$(BIN)/python -m pytest -n 2 -m 'not slow and not perf' -q

test-slow: $(INSTALLED)  ## the long tests
	$(BIN)/python -m pytest -n 2 -m 'slow and not slurm and not perf' -q
	$(BIN)/python -m pytest -m 'slow and perf' tests/perf -q

test-slurm: $(INSTALLED)  ## grids through a real SLURM, which the tests start (needs slurm-wlm and munge; 15 minutes)
	$(BIN)/python -m pytest -m slurm tests/slurm -q

perf: $(INSTALLED)  ## timings as ratios against naive references
	$(BIN)/python -m pytest -m 'perf and not slow' tests/perf -q --timings $(VENV)/timings.md

# mypy needs the package under its import name; the link gives the checkout that name.
lint: $(INSTALLED)  ## format check, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@mkdir -p $(VENV)/types && ln -sfn '$(CURDIR)' $(VENV)/types/multirater
	cd $(VENV)/types && MYPYPATH=. ../bin/mypy --config-file multirater/pyproject.toml $(foreach p,core metrics datasets methods benchmark,-p multirater.$(p))

format: $(INSTALLED)  ## rewrite the code in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the environment and derived files; results/cells and results/published stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis $(RESULTS)/derived *.egg-info
