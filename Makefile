# Shortcuts for work on memstore; each line is what CONTRIBUTING.md says in words.
PYTHON ?= .venv/bin/python

.PHONY: test quick format bench bench-page peers

test:           ## everything CI runs
	bash .ci/run

quick:          ## the tests, without fresh environments
	$(PYTHON) -m pytest -q --ignore=tests/docs/test_packaging.py

format:
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

peers:          ## installs the other stores of the benchmarks
	$(PYTHON) -m benchmarks.peers install all

bench:          ## some minutes, on 20,000 memories
	$(PYTHON) -m benchmarks

bench-page:     ## docs/performance.md
	$(PYTHON) -m benchmarks --rows 100000 --rounds 3 --work benchmarks/results --json benchmarks/results/results.json
	$(PYTHON) -m benchmarks.report benchmarks/results/results.json
