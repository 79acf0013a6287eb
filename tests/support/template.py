"""New store files are copies of one file that was migrated once: migrations cost most of opening a new store."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from memstore.database import database

Migrate = Callable[..., str]


def make_template(path: Path) -> Path:
    """Create an empty store file of this release's schema at *path*, with nothing in its log."""
    database.migrate(str(path))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


def copying(template: Path, migrate: Migrate) -> Migrate:
    """A `migrate` that copies *template* where there is no file yet, and goes on as *migrate* does."""

    def migrate_copy(path: str, *, timeout: float = 30.0) -> str:
        if not Path(path).exists() and Path(path).parent.is_dir():
            with suppress(OSError):  # `migrate` reports a path that cannot be a store
                shutil.copyfile(template, path)
        return migrate(path, timeout=timeout)

    return migrate_copy
