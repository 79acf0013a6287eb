"""Prepared statements: the one path from `repository` to SQLite.

A statement is built from the schema with SQLAlchemy and compiled to SQL text at its first use, so importing costs
nothing. It then runs on the driver's connection: SQLAlchemy takes 40 to 80 µs to run a statement, SQLite 5 to 10.

* Values are bound and returned as SQLite stores them: JSON as text, booleans as 0 or 1, times as microseconds.
* A parameter compared with or stored in a `UtcTime` column also takes a datetime; `Prepared` converts it.

Exceptions, which SQLAlchemy or `raw` runs: DDL and PRAGMA statements, and statements whose conditions depend on a
filter (`selection`, the pages of `records`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property, lru_cache, partial
from itertools import chain
from operator import itemgetter
from typing import Any, TypeVar, cast

from sqlalchemy import BindParameter, ClauseElement, Connection, Integer, Text, bindparam, column, table
from sqlalchemy.dialects import sqlite

from memstore.concurrency import CHUNK_SIZE, chunks, yield_gil
from memstore.database import raw
from memstore.database.sqlite import sqlite3
from memstore.database.statement_limits import STATEMENT
from memstore.models.records import RecordKind
from memstore.repository.key_lists import keys_json
from memstore.repository.record_types import RECORD_TYPES, RecordType
from memstore.schema.types import UtcTime, json_text
from memstore.timestamps import to_micros

_DIALECT = sqlite.dialect(paramstyle="qmark")
_T = TypeVar("_T")

_SMALL = 10  # rows or texts of a statement where there are not enough for the next size; each is parsed once and cached
_NUMBERS_FROM = 500  # rows from which on binding a number for each row costs more than parsing a statement
_MEDIUM = 50  # rows of an INSERT, likewise: as many as several writes bring that share a transaction
_FETCH = 500  # rows fetched before other threads may run


def cached_by_schema(connection: Connection, read: Callable[[Connection], _T]) -> _T:
    """What *read* reads from the file's schema, cached until the schema changes: 3 µs instead of 20.

    Not for a transaction that changes the schema: its uncommitted state would be cached.
    """
    (version,) = raw(connection).execute("PRAGMA schema_version").fetchone()
    entry = connection.info.get(read)
    if entry is None or entry[0] != version:
        connection.info[read] = entry = version, read(connection)
    return cast("_T", entry[1])


class Prepared:
    """One statement. Its parameters are named by `bindparam`s.

    Args:
        build: makes the statement; called once, at the first use.
    """

    def __init__(self, build: Callable[[], ClauseElement]) -> None:
        self._build = build

    @cached_property
    def sql(self) -> str:
        """The statement as SQL text."""
        return self._parts[0]

    @cached_property
    def names(self) -> Sequence[str]:
        """The names of the parameters, in the order in which they are bound."""
        return self._parts[1]

    @cached_property
    def _parts(self) -> tuple[str, Sequence[str], dict[str, Any], list[str]]:
        """The SQL text, the names in order, the values of constants, and the names of the parameters that are times."""
        compiled = cast("Any", self._build().compile(dialect=_DIALECT))
        constants = {name: value for name, value in compiled.params.items() if value is not None}
        times = [name for name, bind in compiled.binds.items() if isinstance(bind.type, UtcTime)]
        return str(compiled), compiled.positiontup or (), constants, times

    def run(self, connection: Connection, **values: Any) -> sqlite3.Cursor:
        """Execute it once."""
        sql, names, constants, times = self._parts
        if constants:
            values = constants | values
        for name in times:
            if isinstance(values[name], datetime):
                values[name] = to_micros(values[name])
        STATEMENT.is_new = True
        return raw(connection).execute(sql, tuple(map(values.__getitem__, names)))

    def many(self, connection: Connection, rows: Sequence[Sequence[Any]]) -> None:
        """Execute it for each of *rows*, whose values are as stored and in the order of `names`."""
        STATEMENT.is_new = True
        raw(connection).executemany(self.sql, rows)

    def value(self, connection: Connection, **values: Any) -> Any:
        """The first column of the first row; None where there is no row."""
        row = self.run(connection, **values).fetchone()
        return None if row is None else row[0]

    def column(self, connection: Connection, **values: Any) -> list[Any]:
        """The first column of all rows."""
        return list(map(itemgetter(0), self.run(connection, **values)))

    def fetch(self, connection: Connection, size: int = _FETCH, **values: Any) -> Iterator[list[tuple[Any, ...]]]:
        """All rows, in lists of *size*; other threads may run in between."""
        cursor = self.run(connection, **values)
        while rows := cursor.fetchmany(size):
            yield rows
            STATEMENT.is_new = True
            if len(rows) < size:
                return
            yield_gil()

    def of_keys(
        self, connection: Connection, keys: Sequence[int], size: int = CHUNK_SIZE, **values: Any
    ) -> Iterator[tuple[Any, ...]]:
        """The rows of *keys*, which its parameter `keys` takes *size* at a time; other threads may run in between."""
        for chunk in chunks(keys, size):
            # Fetched at once: a cursor that a traceback keeps alive would be closed on another thread.
            yield from self.run(connection, keys=keys_json(chunk), **values).fetchall()


def prepared_by_kind(build: Callable[[RecordType], ClauseElement]) -> Mapping[RecordKind, Prepared]:
    """The statement that *build* makes for each kind of record."""
    return {record_type.kind: Prepared(partial(build, record_type)) for record_type in RECORD_TYPES}


def stored(value: object) -> object:
    """The value of a record's field as SQLite stores it."""
    if isinstance(value, datetime):
        return to_micros(value)
    if isinstance(value, dict | list | tuple):
        return json_text(cast("Any", value))
    return value


class MultiRowInsert:
    """An INSERT of many rows a statement, at a third to a half of SQLite's cost of one statement a row.

    Statements come in a few fixed lengths, because each is parsed once and cached. A column that is NULL or 0 in all
    rows of a statement, as most optional fields are, is part of its text instead of being bound for each row; in a
    bulk so is one whole number.

    Args:
        build: makes the INSERT of one row, whose values are all parameters; called once, at the first use.
        width: rows of the longest statement.
    """

    __slots__ = ("_row", "_width")

    def __init__(self, build: Callable[[], ClauseElement], width: int) -> None:
        self._row = Prepared(build)
        self._width = width

    def insert(self, connection: Connection, columns: Sequence[Sequence[Any]], width: int | None = None) -> None:
        """Insert rows, given as columns of equal length in the order of the statement's; at most *width* at once."""
        base, count, start = raw(connection), len(columns[0]), 0
        sql = self._row.sql
        STATEMENT.is_new = True
        if count == 1:
            base.execute(sql, list(map(itemgetter(0), columns)))
            return
        widest = self._width if width is None else min(width, self._width)
        while start < count:
            rest = count - start
            size = widest if rest >= widest else _MEDIUM if rest >= _MEDIUM else min(rest, _SMALL)
            values = [column[start : start + size] for column in columns]
            literals = tuple(_literal(column, numbers=count >= _NUMBERS_FROM) for column in values)
            bound = [column for column, literal in zip(values, literals, strict=True) if literal == "?"]
            STATEMENT.is_new = True
            base.execute(_multi_row(sql, size, literals), list(chain.from_iterable(zip(*bound, strict=True))))
            start += size


class InListQuery:
    """A SELECT of the rows in which a column has one of many texts.

    They are bound one by one: an id or a tag can contain U+0000, at which SQLite's JSON functions end a text.

    Args:
        build: makes the statement for a list of parameters.
    """

    __slots__ = ("_build", "_statements")

    def __init__(self, build: Callable[[list[BindParameter[str]]], ClauseElement]) -> None:
        self._build = build
        self._statements: dict[int, tuple[str, Sequence[str], Sequence[str]]] = {}

    def rows(self, connection: Connection, texts: Sequence[str], **others: Any) -> list[tuple[Any, ...]]:
        """The rows of *texts*, in no order; *others* are the statement's other parameters, as stored."""
        base, rows = raw(connection), []
        for chunk in chunks(texts):
            size = len(chunk) if len(chunk) <= _SMALL else CHUNK_SIZE
            sql, before, after = self._statements.get(size) or self._compile(size)
            repeated = [chunk[-1]] * (size - len(chunk))
            bound = [*map(others.__getitem__, before), *chunk, *repeated, *map(others.__getitem__, after)]
            STATEMENT.is_new = True
            rows += base.execute(sql, bound).fetchall()
        return rows

    def _compile(self, size: int) -> tuple[str, Sequence[str], Sequence[str]]:
        """The statement for *size* texts, and the names of the values that are bound before and after them."""
        texts = [f"text_{i}" for i in range(size)]
        statement = Prepared(partial(self._build, [bindparam(name) for name in texts]))
        first = statement.names.index(texts[0])
        self._statements[size] = statement.sql, statement.names[:first], statement.names[first + size :]
        return self._statements[size]


PAIR = table("pair", column("key", Integer), column("text", Text))
"""The pairs of a `PairListQuery`, as a table."""


class PairListQuery:
    """A SELECT of the rows that belong to one of many pairs of a key and a text, such as a namespace and an id.

    SQLite looks every pair up in an index, in their order: one statement for many namespaces.

    Args:
        build: makes the statement, a SELECT from `PAIR` joined with the table that has the rows.
    """

    __slots__ = ("_parts", "_statement")

    def __init__(self, build: Callable[[], ClauseElement]) -> None:
        self._statement = Prepared(build)
        self._parts: dict[int, str] = {}

    def rows(
        self, connection: Connection, pairs: Sequence[tuple[int, str]], **others: Any
    ) -> Iterator[tuple[Any, ...]]:
        """The rows of *pairs*, in no order; *others* are the statement's other parameters, as stored."""
        base, after = raw(connection), list(map(others.__getitem__, self._statement.names))
        for chunk in chunks(pairs):
            size = len(chunk) if len(chunk) <= _SMALL else CHUNK_SIZE
            bound = [*chain.from_iterable(chunk), *chunk[-1] * (size - len(chunk)), *after]
            yield from base.execute(self._parts.get(size) or self._compile(size), bound).fetchall()

    def _compile(self, size: int) -> str:
        # CROSS JOIN keeps the order of the tables: SQLite does not know that the pairs are few.
        select = self._statement.sql.replace(" JOIN ", " CROSS JOIN ", 1)
        self._parts[size] = f"WITH pair(key, text) AS (VALUES {', '.join(['(?, ?)'] * size)}) {select}"
        return self._parts[size]


def _literal(column: Sequence[Any], *, numbers: bool) -> str:
    """The text of *column* in an INSERT: a literal if all rows have it, else a parameter.

    With *numbers* this is so for every whole number, as the time of one call: that makes a statement of its own.
    """
    first = column[0]
    if first is not None and not (type(first) is int and (numbers or first == 0)):
        return "?"
    return ("NULL" if first is None else str(first)) if column.count(first) == len(column) else "?"


@lru_cache(512)
def _multi_row(sql: str, size: int, literals: tuple[str, ...]) -> str:
    """*sql*, the INSERT of one row, for *size* rows with *literals*.

    Parameters have no numbers, though SQLite would bind a repeated value once: from Python 3.14 on, sqlite3 refuses
    numbered parameters in a sequence.
    """
    row = f"({', '.join('?' * len(literals))})"
    return sql.replace(row, ", ".join([f"({', '.join(literals)})"] * size), 1)
