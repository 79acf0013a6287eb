"""The entry point. Imports nothing of the extra `cli`, so that it can report that the extra is missing."""

import sys

from memstore.cli.interrupts import exit_on_interrupt

_EXTRA = ("click", "markdown_it", "rich", "semantic_text_splitter", "typer")


def run() -> None:
    """Run the command line and exit with its code."""
    exit_on_interrupt()
    try:
        from memstore.cli.app import app  # not at the top: typer is an optional extra

        app(prog_name="memstore")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        sys.exit("The command line needs an extra: pip install 'memstore[cli]'")


if __name__ == "__main__":
    run()
