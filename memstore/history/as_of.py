"""Records as of an earlier time.

A record as of a time is exact, except for what the history does not keep: use (`accessed_at`, `access_count`,
activation) and `revision` have the values they had at the record's next change, or have now. The member count and the
composite of an assembly are computed from its members as they were, which reads all of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import Connection

from memstore.concurrency import chunks
from memstore.errors import NotFoundError
from memstore.models.history import FieldValue
from memstore.models.records import Embedding, Namespace
from memstore.repository import history_reader, namespaces, records, stored_fields
from memstore.repository.corruption import expect_stored
from memstore.repository.history_writer import RowVersion
from memstore.repository.record_types import ASSEMBLY, MEMORY, RecordType
from memstore.repository.vectors import Spaces
from memstore.sync import composites
from memstore.timestamps import EPOCH, to_micros
from memstore.vectors.encoding import decode
from memstore.vectors.mean import Mean


def get(
    connection: Connection, spaces: Spaces, record_type: RecordType, namespace: Namespace, id: str, as_of: datetime
) -> Any:
    """The record, a `Memory` or an `Assembly`, that had an id as of a time.

    Raises:
        NotFoundError: no record had it.
        HistoryError: the history is not complete since then.
    """
    number = history_reader.first_after(connection, to_micros(as_of))
    keys = sorted(keys_of_id(connection, record_type, namespace, id))
    for record in records_before(connection, spaces, record_type, keys, number, as_of).values():
        return record
    raise NotFoundError(record_type.kind, id, namespace)


def keys_of_id(connection: Connection, record_type: RecordType, namespace: Namespace, id: str) -> set[int]:
    """Keys of the record that has an id, and of the deleted records that had it."""
    namespace_pk = namespaces.key(connection, namespace)
    if namespace_pk is None:
        return set()
    current = records.key_of(connection, record_type, namespace, id, EPOCH)
    deleted = history_reader.keys_of_id(connection, record_type, namespace_pk, id)
    return deleted if current is None else deleted | {current}


def records_before(
    connection: Connection,
    spaces: Spaces,
    record_type: RecordType,
    keys: Sequence[int],
    number: int,
    at: datetime,
) -> dict[int, Any]:
    """The records of *keys* before change *number*, by key; memories that had expired *at* that time are left out."""
    versions = history_reader.versions_before(connection, record_type, keys, number)
    return to_records(connection, spaces, record_type, versions, number, at)


def to_records(
    connection: Connection,
    spaces: Spaces,
    record_type: RecordType,
    versions: Mapping[int, RowVersion],
    number: int,
    at: datetime,
    *,
    with_members: bool = True,
) -> dict[int, Any]:
    """The records of *versions*, by key; memories that had expired *at* that time are left out.

    Without *with_members* assemblies get no member count and no composite.
    """
    paths = {pk: namespaces.path(connection, pk) for pk in {version.namespace_pk for version in versions.values()}}
    former: dict[int, Any] = {}
    for key, version in versions.items():
        path = paths[version.namespace_pk]
        if record_type is MEMORY:
            memory = _record(MEMORY, version, path, _embedding(version, spaces))
            if memory.expires_at is None or memory.expires_at > at:
                former[key] = memory
        else:
            count, composite = _members(connection, spaces, key, number, at) if with_members else (0, None)
            former[key] = _record(ASSEMBLY, version, path, composite, count)
    return former


def check_version(record_type: RecordType, version: RowVersion, spaces: Spaces) -> None:
    """Raise `DamagedError` where a version cannot be that of a record."""
    _record(record_type, version, (), _embedding(version, spaces))


def decode_version(
    record_type: RecordType, version: RowVersion, spaces: Spaces, names: Iterable[str]
) -> dict[str, FieldValue]:
    """The fields *names* of a version, as a record has them. Raises `DamagedError`."""
    field_names = set(names)
    with expect_stored(f"journal.old of a {record_type.kind}"):
        values = stored_fields.decode_fields(record_type, version.columns, field_names)
        if "tags" in field_names:
            values["tags"] = version.tags
        if "embedding" in field_names and record_type is MEMORY:
            values["embedding"] = _embedding(version, spaces)
    return values


def _record(
    record_type: RecordType, version: RowVersion, path: Namespace, vector: Embedding | None, member_count: int = 0
) -> Any:
    with expect_stored(f"journal.old of a {record_type.kind}"):
        return stored_fields.to_record(
            record_type,
            version.columns,
            namespace=path,
            tags=version.tags,
            vector=vector,
            member_count=member_count,
        )


def _embedding(version: RowVersion, spaces: Spaces) -> Embedding | None:
    if version.vector is None:
        return None
    owner = f"the former memory {version.columns.get('id')!r}"
    return decode(version.vector, spaces["memory"].dimension, owner, version.checksum)


def _members(
    connection: Connection, spaces: Spaces, key: int, number: int, at: datetime
) -> tuple[int, Embedding | None]:
    """How many members an assembly had before change *number*, and the mean of their vectors."""
    space = spaces["memory"]
    mean, count = Mean(np.zeros(space.dimension)), 0
    for chunk in chunks(sorted(history_reader.members_before(connection, key, number))):
        memories = records_before(connection, spaces, MEMORY, chunk, number, at)
        count += len(memories)
        composites.add_vectors(mean, space, [m.embedding for m in memories.values() if m.embedding is not None])
    return count, mean.vector(space.measure)
