"""Records as of an earlier time.

A record as of a time is exact, except for what the history does not keep: use (`accessed_at`, `access_count`,
activation) and `revision` have the values they had at the record's next change, or have now. The member count and the
composite of an assembly are computed from its members as they were, which reads all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import Connection

from memstore.concurrency import chunks
from memstore.errors import DamagedError, NotFoundError, short_repr
from memstore.models.history import FieldValue
from memstore.models.records import Embedding, Namespace
from memstore.repository import history_reader, namespaces, records, stored_fields
from memstore.repository.corruption import expect_stored
from memstore.repository.history_writer import RowVersion
from memstore.repository.record_types import MEMORY, RecordType
from memstore.repository.vectors import Spaces
from memstore.sync import composites
from memstore.timestamps import EPOCH, to_micros
from memstore.vectors.encoding import decode, is_intact
from memstore.vectors.mean import Mean


def keys_of_id(connection: Connection, record_type: RecordType, namespace: Namespace, id: str) -> set[int]:
    """Keys of the record that has an id, and of the deleted records that had it."""
    namespace_pk = namespaces.key(connection, namespace)
    if namespace_pk is None:
        return set()
    current = records.key_of(connection, record_type, namespace, id, EPOCH)
    deleted = history_reader.keys_of_id(connection, record_type, namespace_pk, id)
    return deleted if current is None else deleted | {current}


@dataclass(frozen=True, slots=True)
class FormerRecords:
    """The records of one kind as they were earlier, read in one transaction; without *embeddings*, without vectors."""

    connection: Connection
    spaces: Spaces
    record_type: RecordType
    embeddings: bool = True

    def get(self, namespace: Namespace, id: str, at: datetime) -> Any:
        """The record, a `Memory` or an `Assembly`, that had an id *at* a time.

        Raises:
            NotFoundError: no record had it.
            HistoryError: the history is not complete since then.
        """
        number = history_reader.first_after(self.connection, to_micros(at))
        keys = sorted(keys_of_id(self.connection, self.record_type, namespace, id))
        for record in self.before(keys, number, at).values():
            return record
        raise NotFoundError(self.record_type.kind, id, namespace)

    def before(self, keys: Sequence[int], number: int, at: datetime) -> dict[int, Any]:
        """The records of *keys* before change *number*, by key; memories that had expired *at* a time are left out."""
        versions = history_reader.versions_before(self.connection, self.record_type, keys, number)
        return self.decode(versions, number, at)

    def decode(
        self, versions: Mapping[int, RowVersion], number: int, at: datetime, *, with_members: bool = True
    ) -> dict[int, Any]:
        """The records of *versions* before change *number*, by key, as `before`.

        Without *with_members* assemblies get no member count and no composite.
        """
        former: dict[int, Any] = {}
        namespace_pks = {version.namespace_pk for version in versions.values()}
        paths = {pk: namespaces.path(self.connection, pk) for pk in namespace_pks}
        for key, version in versions.items():
            path = paths[version.namespace_pk]
            if self.record_type is MEMORY:
                memory = self._record(version, path, self._embedding(version))
                if memory.expires_at is None or memory.expires_at > at:
                    former[key] = memory
            else:
                count, composite = self._members(key, number, at) if with_members else (0, None)
                former[key] = self._record(version, path, composite, count)
        return former

    def check(self, version: RowVersion) -> None:
        """Raise `DamagedError` where a version cannot be that of a record."""
        self._record(version, (), self._embedding(version))

    def field(self, name: str, stored: Any, id: str) -> dict[str, FieldValue]:
        """One field of an earlier version of the record *id*, by its name; none if a record has no such field.

        *stored* is the column's value, the tags, or the bytes of the embedding and their checksum. Raises
        `DamagedError`.
        """
        if name == "tags":
            return {name: stored}
        if name == "embedding":
            vector, crc = stored
            has_vector = self.record_type is MEMORY and self.embeddings
            return {name: self._decode(vector, id, crc)} if has_vector else {}
        with expect_stored(f"journal.old of {self.record_type.kind} {id!r}"):
            return dict(stored_fields.decode_fields(self.record_type, {name: stored}, [name]))

    def _record(self, version: RowVersion, path: Namespace, vector: Embedding | None, member_count: int = 0) -> Any:
        with expect_stored(f"journal.old of a {self.record_type.kind}"):
            return stored_fields.to_record(
                self.record_type,
                version.columns,
                namespace=path,
                tags=version.tags,
                vector=vector,
                member_count=member_count,
            )

    def _embedding(self, version: RowVersion) -> Embedding | None:
        if not self.embeddings:
            return None
        return self._decode(version.vector, version.columns.get("id"), version.checksum)

    def _decode(self, vector: bytes | None, id: object, crc: int | None) -> Embedding | None:
        """The stored bytes of an earlier embedding as a vector. Raises `DamagedError`."""
        if vector is None:
            return None
        space = self.spaces["memory"]
        if not is_intact(vector, crc) or len(vector) != 4 * space.dimension:
            raise DamagedError(
                f"An earlier embedding of memory {short_repr(id)} is damaged in the history. The record as it is now, "
                "and its other changes, are not affected: history() shows them, `memstore check` names the damaged "
                "change. Read the record as of a later time, or restore a backup."
            )
        return decode(vector, space.dimension, f"the former memory {id!r}", crc)

    def _members(self, key: int, number: int, at: datetime) -> tuple[int, Embedding | None]:
        """How many members an assembly had before change *number*, and the mean of their vectors."""
        space = self.spaces["memory"]
        mean, count = Mean(np.zeros(space.dimension)), 0
        for chunk in chunks(sorted(history_reader.members_before(self.connection, key, number))):
            memories = replace(self, record_type=MEMORY).before(chunk, number, at)
            count += len(memories)
            composites.add_vectors(mean, space, [m.embedding for m in memories.values() if m.embedding is not None])
        return count, mean.vector(space.measure)
