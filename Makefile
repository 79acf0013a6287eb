# Shortcuts for the commands of CONTRIBUTING.md.
PYTHON ?= .venv/bin/python

.PHONY: test quick format bench bench-page peers

test:           ## everything that CI runs
	bash .ci/run

quick:          ## the tests, without those that install packages
	$(PYTHON) -m pytest -q -m 'not slow and not network'

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
