"""What `check` reads of the history: every row, and what of it cannot be read."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, literal_column, select

from memstore.errors import DamagedError
from memstore.models.records import Namespace
from memstore.repository import history_reader, namespaces, record_keys, stored_fields
from memstore.repository.corruption import UNREADABLE
from memstore.repository.history_reader import DELETIONS, DamagedEntry, HistoryEntry
from memstore.repository.record_types import BY_KIND, MEMORY
from memstore.repository.statements import Prepared, prepared_by_kind
from memstore.repository.vectors import VectorSpace
from memstore.schema.tables import journal
from memstore.vectors.encoding import is_intact

_ROWS = Prepared(lambda: select(*journal.c).where(journal.c.kind == bindparam("kind")).order_by(journal.c.pk))

_REFERRING = prepared_by_kind(
    lambda t: select(t.table.c.pk).where(t.table.c.namespace_pk == bindparam("namespace")).limit(literal_column("1"))
)


class DamagedChange(NamedTuple):
    """A change that cannot be read in full: its number, the record's id and namespace, and what is wrong."""

    number: int
    id: str
    namespace: Namespace
    problem: str


def damaged_changes(connection: Connection, kind: str, space: VectorSpace) -> Iterator[DamagedChange]:
    """The changes of records of *kind* that cannot be read in full; *space* is that of memories."""
    paths: dict[object, Namespace | None] = {}
    for rows in _ROWS.fetch(connection, kind=kind):
        for row in rows:
            if row[2] not in paths:
                paths[row[2]] = _namespace(connection, row[2])
            entry = history_reader.read_row(row)
            problem = str(entry.error) if isinstance(entry, DamagedEntry) else _problem(entry, space)
            namespace = paths[row[2]]
            if problem is None and namespace is None and not _has_records(connection, row[2]):
                problem = f"its namespace, with the key {row[2]}, does not exist."
            if problem is not None:
                yield DamagedChange(row[0], _id(connection, row), namespace or (), problem)


def _problem(entry: HistoryEntry, space: VectorSpace) -> str | None:
    """What of *entry* cannot be read; None if all can."""
    if history_reader.readable_time(entry.at) is None:
        return f"its time is {entry.at}."
    if entry.vector is not None and (
        len(entry.vector) != 4 * space.dimension or not is_intact(entry.vector, entry.checksum)
    ):
        return "the embedding before it does not match its checksum or its dimension."
    if entry.old is None or entry.creates or (entry.change_kind == "expired" and not entry.old):
        return None  # there is nothing to read, or the record could not be read at the change
    record_type = BY_KIND[entry.kind]
    try:
        columns = {name: value for name, value in entry.old.items() if name in record_type.columns}
        stored_fields.decode_fields(record_type, columns, columns)
        if entry.change_kind in DELETIONS:
            history_reader.version_before(entry, None)
            missing = [name for name in ("id", "created_at") if name not in columns]
            if missing:
                return f"it has no {missing[0]} of the deleted record."
            entry.partners("assemblies" if record_type is MEMORY else "members")
        else:
            entry.tag_changes()
            entry.member_changes()
    except (DamagedError, *UNREADABLE) as error:
        return str(error)
    return None


def _namespace(connection: Connection, key: object) -> Namespace | None:
    """The namespace of a row; None where it does not exist."""
    try:
        return namespaces.path(connection, key) if type(key) is int else None
    except DamagedError:
        return None


def _has_records(connection: Connection, namespace_pk: object) -> bool:
    """Whether records refer to a namespace: if it is missing, that is a finding of foreign keys."""
    return any(statement.value(connection, namespace=namespace_pk) is not None for statement in _REFERRING.values())


def _id(connection: Connection, row: Sequence[Any]) -> str:
    """The id of the record that a row of the history is about; its key where the id is unknown."""
    kind, key, id = row[1], row[4], row[5]
    if not isinstance(id, str) and type(key) is int:
        id = record_keys.ids(connection, BY_KIND[kind], [key]).get(key)
    return id if isinstance(id, str) else f"with the key {key}"
