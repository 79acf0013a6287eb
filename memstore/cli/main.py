"""The entry point. It imports nothing of the extra `cli`, so that it can say that the extra is missing."""

import sys

_EXTRA = ("click", "rich", "typer")


def run() -> None:
    """Run the command line and exit with its code."""
    try:
        from memstore.cli.app import app  # not at the top: typer and rich are an optional extra

        app(prog_name="memstore")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        sys.exit("the command line needs: pip install 'memstore[cli]'")
    except KeyboardInterrupt:  # before a command began
        sys.exit(130)


if __name__ == "__main__":
    run()
