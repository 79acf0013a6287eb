"""The few hottest statements, compiled once from the schema to SQL text.

SQLAlchemy takes 40 to 80 µs to run a statement, SQLite 5 to 10: it matters where a search of 300 µs runs two of
them, or a batch of 1,000 rows one each. Values are bound as SQLite takes them, without the column types' conversion.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import chain, compress
from typing import Any, TypeVar, cast

from sqlalchemy import BindParameter, ClauseElement, Compiled, Connection, bindparam
from sqlalchemy.dialects import sqlite

from memstore.concurrency import CHUNK_SIZE, chunks
from memstore.database import raw
from memstore.database.sqlite import sqlite3

_DIALECT = sqlite.dialect(paramstyle="qmark")
_T = TypeVar("_T")

_FEW = 10  # rows or texts a statement where there are not enough for a wide one; each is parsed once and kept
_SOME = 50  # rows of an INSERT, likewise: what several writes bring that share a transaction


def of_schema(connection: Connection, find: Callable[[Connection], _T]) -> _T:
    """What *find* reads from the file's schema, kept until that changes: 3 µs instead of 20.

    Not for a transaction that changes the schema: what it sees would be kept.
    """
    (version,) = raw(connection).execute("PRAGMA schema_version").fetchone()
    known = connection.info.get(find)
    if known is None or known[0] != version:
        connection.info[find] = known = version, find(connection)
    return cast("_T", known[1])


class Prepared:
    """One statement, compiled at its first use. Its parameters are named by `bindparam`s."""

    def __init__(self, statement: ClauseElement) -> None:
        self._statement = statement

    @cached_property
    def _compiled(self) -> Compiled:
        return self._statement.compile(dialect=_DIALECT)

    @cached_property
    def sql(self) -> str:
        """The text that SQLite executes."""
        return str(self._compiled)

    @cached_property
    def names(self) -> Sequence[str]:
        """The parameters in the order in which they are bound."""
        return self._compiled.positiontup or ()  # type: ignore[attr-defined]

    @cached_property
    def _literals(self) -> dict[str, Any]:
        return {name: value for name, value in self._compiled.params.items() if value is not None}

    def run(self, connection: Connection, **values: Any) -> sqlite3.Cursor:
        """Execute it once."""
        bound = self._literals | values if self._literals else values
        return raw(connection).execute(self.sql, [bound[name] for name in self.names])

    def many(self, connection: Connection, rows: Sequence[Sequence[Any]]) -> None:
        """Execute it for each of *rows*, whose values are in the order of `names`."""
        raw(connection).executemany(self.sql, rows)


class Wide:
    """An INSERT of plain values, many rows a statement: half to two thirds of what a statement a row costs SQLite.

    A column in which all rows of a statement agree is bound once. Statements come in a few fixed lengths, because
    each is parsed once and kept.
    """

    def __init__(self, statement: ClauseElement, width: int) -> None:
        self._single = Prepared(statement)
        self._width = width

    @cached_property
    def _head_and_tail(self) -> tuple[str, str]:
        """The text before and after the markers of one row."""
        marks = f"({', '.join('?' * len(self._single.names))})"
        head, _, tail = self._single.sql.partition(marks)
        return head, tail

    def insert(self, connection: Connection, columns: Sequence[Sequence[Any]], width: int | None = None) -> None:
        """Insert rows, given as columns in the order of the statement's, all of one length; at most *width* at once."""
        base, count, start = raw(connection), len(columns[0]), 0
        if count == 1:
            base.execute(self._single.sql, [column[0] for column in columns])
            return
        widest = self._width if width is None else min(width, self._width)
        while start < count:
            left = count - start
            size = widest if left >= widest else _SOME if left >= _SOME else min(left, _FEW)
            some = [column[start : start + size] for column in columns]
            varies = tuple([column.count(column[0]) < size for column in some])
            values = [column[0] for column, differs in zip(some, varies, strict=True) if not differs]
            values += chain.from_iterable(zip(*compress(some, varies), strict=True))
            base.execute(_wide(*self._head_and_tail, size, varies), values)
            start += size


class Among:
    """A SELECT of the rows in which a column has one of many texts.

    They are bound one by one: an id or a tag may hold U+0000, which SQLite's JSON functions take for its end.
    """

    __slots__ = ("_make", "_statements")

    def __init__(self, make: Callable[[list[BindParameter[str]]], ClauseElement]) -> None:
        self._make = make
        self._statements: dict[int, tuple[str, Sequence[str], Sequence[str]]] = {}

    def rows(self, connection: Connection, values: Sequence[str], **others: Any) -> Iterator[tuple[Any, ...]]:
        """The rows of *values*, in no order; *others* are the statement's own parameters."""
        base = raw(connection)
        for some in chunks(values):
            size = len(some) if len(some) <= _FEW else CHUNK_SIZE
            sql, before, after = self._statements.get(size) or self._compiled(size)
            bound = [others[name] for name in before]
            bound += some
            bound += [some[-1]] * (size - len(some))
            bound += [others[name] for name in after]
            yield from base.execute(sql, bound).fetchall()

    def _compiled(self, size: int) -> tuple[str, Sequence[str], Sequence[str]]:
        """The statement for *size* texts, and what is bound before and after them."""
        texts = [f"text_{i}" for i in range(size)]
        compiled = Prepared(self._make([bindparam(name) for name in texts]))
        at = compiled.names.index(texts[0])
        self._statements[size] = compiled.sql, compiled.names[:at], compiled.names[at + size :]
        return self._statements[size]


@lru_cache(512)
def _wide(head: str, tail: str, size: int, varies: tuple[bool, ...]) -> str:
    """The statement for *size* rows; its first parameters are those of the columns that do not vary."""
    once, each = varies.count(False), varies.count(True)
    rows = []
    for row in range(size):
        fixed, own = iter(range(1, once + 1)), iter(range(once + row * each + 1, once + (row + 1) * each + 1))
        rows.append(f"({', '.join(f'?{next(own if differs else fixed)}' for differs in varies)})")
    return head + ", ".join(rows) + tail
