# Two commands matter: `make lab` opens the course, `make test` checks it. Both set up .venv if it is not there.
# Another Python: make PYTHON=python3.13

ifeq ($(OS),Windows_NT)
PYTHON ?= python
PY := .venv/Scripts/python.exe
else
PYTHON ?= python3
PY := .venv/bin/python
endif
READY := .venv/.ready

# A thread that waits leaves its core to others: on a busy machine PyTorch would otherwise be many times slower.
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help lab test notebooks assignments reproduce bench slides lock

help: ## this list
	@$(PYTHON) tools/help.py

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) tools/make_venv.py

lab: $(READY) ## open JupyterLab on the first lesson (LAB="--no-browser" for its options)
	@$(PY) -m jupyterlab $(LAB) notebooks/00_measuring.ipynb

test: $(READY) ## check this machine, then run every test (TESTS="tests/distillation -x" for some)
	@$(PY) -m course_lib --quick
	@$(PY) -m pytest -n auto $(TESTS)

notebooks: $(READY) ## run the lessons and store their outputs (LESSONS="00 01" for some)
	@$(PY) -m tools.notebooks $(LESSONS)

assignments: $(READY) ## make assignments/ from solutions/
	@$(PY) tools/assignments.py

reproduce: $(READY) ## re-run the papers' tables and write docs/results.md (long)
	@$(PY) -m reproduce

bench: $(READY) ## time the library beside others
	@$(PY) -m benchmarks

slides: $(READY) ## the lessons as slides, in build/slides/
	@$(PY) -m tools.slides

lock: ## tested versions again, from pyproject.toml (needs uv)
	@$(PYTHON) tools/lock.py
