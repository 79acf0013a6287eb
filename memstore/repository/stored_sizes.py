"""How many bytes the history and the trash take in the file, without reading all of them.

Up to 2,000 rows are summed up. Of more, the sizes of 500 rows, evenly spread, are multiplied by the number of rows.
"""

from sqlalchemy import ColumnElement, Connection, Integer, Table, bindparam, func, literal_column, select, text
from sqlalchemy.types import NullType

from memstore.repository.record_types import RECORD_TYPES
from memstore.repository.statements import Prepared
from memstore.repository.tombstones import count
from memstore.schema.tables import journal, tombstone

_EXACT_ROWS = 2_000
_SAMPLE = 500
_ROW_BYTES = 64  # of numbers, the row's header and its entries in indexes


def _size(table: Table, *names: str) -> ColumnElement[int]:
    lengths = (func.coalesce(func.length(table.c[name]), literal_column("0")) for name in names)
    total: ColumnElement[int] = literal_column(str(_ROW_BYTES), Integer)
    for length in lengths:
        total = total + length
    return total


_JOURNAL = _size(journal, "id", "actor", "reason", "old", "vector")
_TOMBSTONE = _size(tombstone, "id", "actor", "reason", "record", "vector")


def _first(table: Table, size: ColumnElement[int], *conditions: ColumnElement[bool]) -> Prepared:
    """The sizes of the first `most` rows."""
    rows = select(size).select_from(table).where(*conditions).order_by(table.c.pk)
    return Prepared(lambda: rows.limit(bindparam("most", type_=Integer)))


def _one(table: Table, size: ColumnElement[int], *conditions: ColumnElement[bool]) -> Prepared:
    """The size of the first row from the key `pk` on."""
    rows = select(size).select_from(table).where(table.c.pk >= bindparam("pk"), *conditions).order_by(table.c.pk)
    return Prepared(lambda: rows.limit(literal_column("1")))


def _bounds(table: Table) -> Prepared:
    return Prepared(lambda: select(func.min(table.c.pk), func.max(table.c.pk)))


_forgotten = tombstone.c.cause == literal_column("'forgotten'", NullType())
_FIRST_CHANGES, _CHANGE, _CHANGE_BOUNDS = _first(journal, _JOURNAL), _one(journal, _JOURNAL), _bounds(journal)
_FIRST_TRASH, _TRASH = _first(tombstone, _TOMBSTONE, _forgotten), _one(tombstone, _TOMBSTONE, _forgotten)
_TRASH_BOUNDS = _bounds(tombstone)


def _count(index: str, condition: str) -> Prepared:
    """The number of changes that a partial index has: it is read instead of the rows."""
    rows = select(func.count()).select_from(journal).with_hint(journal, f"INDEXED BY {index}", "sqlite")
    return Prepared(lambda: rows.where(text(condition)))


_COUNTS = [_count("ix_journal_added", "what = 'added'"), _count("ix_journal_changed", "what <> 'added'")]


def history_bytes(connection: Connection) -> int:
    """The bytes of the change history, about."""
    rows = _FIRST_CHANGES.column(connection, most=_EXACT_ROWS + 1)
    if len(rows) <= _EXACT_ROWS:
        return sum(rows)
    total = sum(statement.value(connection) for statement in _COUNTS)
    return int(total * _mean(connection, _CHANGE, _CHANGE_BOUNDS))


def trash_bytes(connection: Connection) -> int:
    """The bytes of the trash, about."""
    rows = _FIRST_TRASH.column(connection, most=_EXACT_ROWS + 1)
    if len(rows) <= _EXACT_ROWS:
        return sum(rows)
    total = sum(count(connection, record_type, "forgotten") for record_type in RECORD_TYPES)
    return int(total * _mean(connection, _TRASH, _TRASH_BOUNDS))


def _mean(connection: Connection, one: Prepared, bounds: Prepared) -> float:
    first, last = bounds.run(connection).fetchone()
    keys = (first + (last - first) * i // (_SAMPLE - 1) for i in range(_SAMPLE))
    sizes = [size for key in keys if (size := one.value(connection, pk=key)) is not None]
    return float(sum(sizes)) / max(1, len(sizes))
