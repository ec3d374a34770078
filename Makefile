# Two commands matter: `make lab` opens the course, `make test` checks it. Each sets up what it needs in .venv.
# Another Python: make PYTHON=python3.13

ifeq ($(OS),Windows_NT)
PYTHON ?= python
PY := .venv/Scripts/python.exe
else
PYTHON ?= python3
PY := .venv/bin/python
endif
READY := .venv/.ready
ALL := .venv/.ready-all

# A thread that waits leaves its core to others: on a busy machine PyTorch would otherwise be many times slower.
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help lab test notebooks assignments reproduce bench slides lock

help: ## this list
	@$(PYTHON) tools/help.py

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) tools/make_venv.py

$(ALL): requirements.lock pyproject.toml
	@$(PYTHON) tools/make_venv.py --all

lab: $(READY) ## open JupyterLab on the first lesson (LAB="--no-browser" for its options)
	@$(PY) -m jupyterlab $(LAB) notebooks/00_measuring.ipynb

test: $(ALL) ## check this machine, then run every test (TESTS="tests/distillation -x" for some)
	@$(PY) -m course_lib --quick
	@$(PY) -m pytest -n auto $(TESTS)

notebooks: $(ALL) ## run the lessons and store their outputs (LESSONS="00 01" for some)
	@$(PY) -m tools.notebooks $(LESSONS)

assignments: $(ALL) ## make assignments/ from solutions/
	@$(PY) tools/assignments.py

reproduce: $(READY) ## re-run the papers' tables and write docs/results.md (long)
	@$(PY) -m reproduce

bench: $(ALL) ## time the library beside others
	@$(PY) -m benchmarks

slides: $(ALL) ## the lessons as slides, in build/slides/
	@$(PY) -m tools.slides

lock: ## tested versions again, from pyproject.toml (needs uv)
	@uv pip compile --quiet --no-config --upgrade --universal --fork-strategy fewest --python-version 3.11 --all-extras \
		--no-emit-index-url --custom-compile-command "make lock" --output-file requirements.lock pyproject.toml
