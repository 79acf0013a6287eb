"""Rebuilding a table in a revision: what SQLite cannot alter, Alembic copies into a new table (its batch mode).

True after `rebuild`: the triggers, the indexes, the keys ever handed out and the rows of every other table are what
they were; only what the batch asked for has changed. Without it, each of these was seen:

* with foreign keys on, DROP TABLE deletes the rows first, and the cascade empties the child tables;
* the table's triggers are dropped with it, and triggers or views elsewhere that name it make the rename fail;
* AUTOINCREMENT is not reflected, and its counter falls back to the highest key still there: a deleted key is handed
  out a second time, and the index takes the new row for the old one;
* indexes on expressions are not reflected at all.
"""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from alembic.operations import BatchOperations, Operations
from sqlalchemy.schema import SchemaItem

from memstore.database.sqlite import sqlite3
from memstore.database.transactions import raw
from memstore.errors import DamagedError, TransactionError

_AUTOINCREMENT = re.compile(r"\bPRIMARY\s+KEY\s+(?:ASC\s+)?(?:ON\s+CONFLICT\s+\w+\s+)?AUTOINCREMENT\b", re.IGNORECASE)


@contextmanager
def rebuild(op: Operations, table: str, *table_args: SchemaItem) -> Iterator[BatchOperations]:
    """Alembic's batch operations on *table*, which is always copied, with what Alembic loses put back.

    ::

        with rebuild(op, "memory") as batch:
            batch.create_check_constraint(op.f("ck_memory_content"), "length(content) > 0")

    The batch is carried out when the block ends. Triggers and indexes that are there at that moment are put back word
    for word: a revision that changes one drops it before or in the block with `op` and creates it after the block.

    Args:
        op: `alembic.op`, inside a transaction that was begun with foreign keys off.
        table: the table to copy.
        *table_args: further constraints and columns of the new table.

    Raises:
        TransactionError: foreign keys are on.
        DamagedError: rows refer to nothing that did not before; the transaction must be rolled back.
    """
    base = raw(op.get_bind())
    if _one(base, "PRAGMA foreign_keys"):
        raise TransactionError(
            f"rebuilding {table!r} with foreign keys on would empty the tables that refer to it: "
            "run PRAGMA foreign_keys=OFF before the transaction begins, inside it SQLite ignores it"
        )
    counted = _AUTOINCREMENT.search(str(_one(base, "SELECT sql FROM sqlite_master WHERE name = ?", table))) is not None
    options = {"sqlite_autoincrement": True} if counted else {}
    reflect = {"resolve_fks": False}  # else it reflects the tables referred to as well, and warns of their indexes
    dangling = _dangling(base, table)
    legacy = _one(base, "PRAGMA legacy_alter_table")
    try:
        with op.batch_alter_table(
            table, recreate="always", table_args=table_args, table_kwargs=options, reflect_kwargs=reflect
        ) as batch:
            yield batch
            # The batch has only been written down so far: it is carried out when this inner block ends.
            statements = _set_aside(base, table)
            highest = _one(base, "SELECT seq FROM sqlite_sequence WHERE name = ?", table) if counted else None
            base.execute("PRAGMA legacy_alter_table=ON")  # or the rename parses every trigger and view, between tables
    finally:
        base.execute(f"PRAGMA legacy_alter_table={legacy}")
    if counted:
        base.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
        if highest is not None:
            base.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, highest))
    for statement in statements:
        base.execute(statement)
    _refuse_dangling(_dangling(base, table) - dangling, table)


def _set_aside(base: sqlite3.Connection, table: str) -> list[str]:
    """The statements that made the triggers and indexes of *table*, oldest first; the indexes are dropped.

    Alembic must not see the indexes: it makes those it understands in words of its own and warns of the others.
    """
    kept = base.execute(
        "SELECT type, name, sql FROM sqlite_master "
        "WHERE type IN ('index', 'trigger') AND tbl_name = ? AND sql IS NOT NULL ORDER BY rowid",
        (table,),
    ).fetchall()
    for kind, name, _ in kept:
        if kind == "index":
            base.execute('DROP INDEX "{}"'.format(name.replace('"', '""')))
    return [sql for _, _, sql in kept]


def _dangling(base: sqlite3.Connection, table: str) -> Counter[tuple[str, str]]:
    """How many rows refer to nothing, by child and parent: of *table*, and of the tables that refer to it."""
    rows = base.execute(
        """
        SELECT v."table", v.parent, count(*)
        FROM (
            SELECT ?1 AS name
            UNION
            SELECT m.name FROM sqlite_master AS m, pragma_foreign_key_list(m.name) AS f
            WHERE m.type = 'table' AND f."table" = ?1 COLLATE NOCASE
        ) AS child, pragma_foreign_key_check(child.name) AS v
        GROUP BY v."table", v.parent
        """,
        (table,),
    )
    return Counter({(child, parent): count for child, parent, count in rows})


def _refuse_dangling(added: Counter[tuple[str, str]], table: str) -> None:
    # Rows that dangled before are for `check` to name: they must not keep a file from being migrated.
    if added:
        found = ", ".join(f"{count} of {child!r} to {parent!r}" for (child, parent), count in sorted(added.items()))
        raise DamagedError(
            f"rebuilding {table!r} left rows that refer to nothing ({found}): the file stays as it was; "
            "run `memstore check` on it with the release that wrote it"
        )


def _one(base: sqlite3.Connection, statement: str, *parameters: str) -> object:
    row = base.execute(statement, parameters).fetchone()
    return None if row is None else row[0]
