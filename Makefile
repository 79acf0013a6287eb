# Shortcuts for work on memstore; each line is what CONTRIBUTING.md says in words.
PYTHON ?= .venv/bin/python

.PHONY: test quick format bench

test:           ## everything CI runs
	bash .ci/run

quick:          ## the tests, without fresh environments
	$(PYTHON) -m pytest -q --ignore=tests/test_packaging.py

format:
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

bench:
	$(PYTHON) -m benchmarks
