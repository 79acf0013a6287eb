"""The few hottest statements, compiled once from the schema to SQL text.

SQLAlchemy takes 40 to 80 µs to run a statement, SQLite 5 to 10: it matters where a search of 300 µs runs two of
them, or a batch of 1,000 rows one each. Values are bound as SQLite takes them, without the column types' conversion.
"""

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any

from sqlalchemy import ClauseElement, Connection
from sqlalchemy.dialects import sqlite

from memstore.database import raw

_WIDE = 50  # rows an INSERT statement: a third less work in SQLite than one each, and half a slice
_DIALECT = sqlite.dialect(paramstyle="qmark")


class Prepared:
    """One statement. Its parameters are named by `bindparam`s; `names` is the order in which they are bound."""

    __slots__ = ("_literals", "names", "sql")

    def __init__(self, statement: ClauseElement) -> None:
        compiled = statement.compile(dialect=_DIALECT)
        self.sql = str(compiled)
        self.names: Sequence[str] = compiled.positiontup or ()  # type: ignore[attr-defined]
        self._literals = {name: value for name, value in compiled.params.items() if value is not None}

    def run(self, connection: Connection, **values: Any) -> sqlite3.Cursor:
        """Execute it once."""
        bound = self._literals | values if self._literals else values
        return raw(connection).execute(self.sql, [bound[name] for name in self.names])

    def many(self, connection: Connection, rows: Sequence[Sequence[Any]]) -> None:
        """Execute it for each of *rows*, whose values are in the order of `names`."""
        raw(connection).executemany(self.sql, rows)

    def insert(self, connection: Connection, rows: Sequence[Sequence[Any]]) -> None:
        """As `many`, for an INSERT of plain values: many rows a statement."""
        base = raw(connection)
        whole = len(rows) - len(rows) % _WIDE
        if whole:
            wide = self.sql + f", ({', '.join('?' * len(self.names))})" * (_WIDE - 1)
            for start in range(0, whole, _WIDE):
                base.execute(wide, list(chain.from_iterable(rows[start : start + _WIDE])))
        base.executemany(self.sql, rows[whole:])
