"""A program that runs its own Alembic revisions in a thread while it opens stores: `… FOLDER NEW_FILE OLD_FILE`."""

import asyncio
import sqlite3
import sys
import threading
from pathlib import Path
from textwrap import dedent

import alembic.command
import alembic.config

import memstore

ENVIRONMENT = """
from alembic import context
import sqlalchemy

with sqlalchemy.create_engine(context.config.get_main_option("sqlalchemy.url")).connect() as connection:
    context.configure(connection=connection, target_metadata=None)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
"""
REVISION = """
revision, down_revision, branch_labels, depends_on = "r{number}", {before!r}, None, None

from alembic import op
import sqlalchemy, sys

def upgrade():
    op.create_table("host_{number}", sqlalchemy.Column("id", sqlalchemy.Integer, primary_key=True))
    sys.modules["__main__"].wait_at({number})
    op.execute("INSERT INTO host_{number} VALUES (1)")
"""

started, opened = threading.Event(), threading.Event()


def wait_at(number: int) -> None:
    """Called by each revision of the host; the third waits until the stores were opened."""
    started.set()
    if number == 2:
        assert opened.wait(60)


def upgrade(folder: Path) -> None:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(folder))
    config.set_main_option("sqlalchemy.url", f"sqlite:///{folder / 'host.db'}")
    alembic.command.upgrade(config, "head")


async def use(path: str) -> object:
    async with memstore.open(path, dimension=3) as store:
        await store.memories.add("x")
        return await store.check()


def main() -> None:
    folder, new, old = Path(sys.argv[1]), *sys.argv[2:]
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").write_text(dedent(ENVIRONMENT))
    for i in range(5):
        text = REVISION.format(number=i, before=f"r{i - 1}" if i else None)
        (folder / "versions" / f"r{i}.py").write_text(text)
    host = threading.Thread(target=upgrade, args=(folder,))
    host.start()
    assert started.wait(60)
    sys.stdout.write(f"{asyncio.run(use(new))} {memstore.migrate(old) > '0001'}\n")
    opened.set()
    host.join()
    rows = sqlite3.connect(folder / "host.db").execute("SELECT name FROM sqlite_master WHERE name LIKE 'host%'")
    sys.stdout.write(f"{sorted(name for (name,) in rows)}\n")


if __name__ == "__main__":
    main()
