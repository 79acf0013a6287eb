"""`python -m memstore.cli`."""

from memstore.cli.main import run

run()
