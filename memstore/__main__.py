"""`python -m memstore`: the command line."""

from memstore.cli.main import run

run()
