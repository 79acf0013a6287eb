"""Keys of records: which of them exist, and their ids."""

from collections.abc import Iterable, Iterator, Sequence
from typing import cast

from sqlalchemy import Connection, Integer, bindparam, func, select

from memstore.repository.key_lists import listed_keys
from memstore.repository.record_types import RecordType
from memstore.repository.statements import Prepared, prepared_by_kind
from memstore.schema.tables import memory

_IDS = prepared_by_kind(lambda t: select(t.table.c.pk, t.table.c.id).where(t.table.c.pk.in_(listed_keys())))
_SCOPED_IDS = prepared_by_kind(
    lambda t: select(t.table.c.id, t.table.c.namespace_pk).where(t.table.c.pk.in_(listed_keys())).order_by(t.table.c.pk)
)
_PREFIXES = Prepared(
    lambda: select(memory.c.pk, func.substr(memory.c.content, 1, bindparam("length", type_=Integer))).where(
        memory.c.pk.in_(listed_keys())
    )
)


def existing(connection: Connection, record_type: RecordType, keys: Iterable[int]) -> list[int]:
    """Those of *keys* whose records exist, ascending."""
    return sorted(ids(connection, record_type, list(keys)))


def ids(connection: Connection, record_type: RecordType, keys: Sequence[int]) -> dict[int, str]:
    """Ids by key of the records that exist."""
    return dict(_IDS[record_type.kind].of_keys(connection, keys))


def ids_and_namespaces(
    connection: Connection, record_type: RecordType, keys: Sequence[int]
) -> Iterator[tuple[str, int]]:
    """The id and the key of the namespace of each of *keys*, which ascend and exist."""
    return cast("Iterator[tuple[str, int]]", _SCOPED_IDS[record_type.kind].of_keys(connection, keys, 1_000))


def content_prefixes(connection: Connection, keys: Sequence[int], length: int) -> dict[int, str]:
    """The first *length* characters of the contents of the memories *keys*, by key."""
    return dict(_PREFIXES.of_keys(connection, keys, length=length))
