"""A tombstone as the record it was."""

import json
from collections.abc import Callable
from dataclasses import fields
from functools import lru_cache
from typing import Any

from memstore.models.records import Assembly, Memory, RecordKind
from memstore.repository.corruption import expect_stored
from memstore.repository.record_types import BY_KIND, MEMORY
from memstore.repository.tombstones import Tombstone
from memstore.repository.vectors import VectorSpace
from memstore.schema.types import JsonText, UtcTime
from memstore.timestamps import from_micros
from memstore.vectors.encoding import decode


def record_of(each: Tombstone, space: VectorSpace) -> Memory | Assembly:
    """The record as it was when it was set aside; *space* is of its kind's vectors. Raises `DamagedError`."""
    what = f"the {each.noun.kind} {each.id!r}, which was set aside,"
    with expect_stored("tombstone.record"):
        values: dict[str, Any] = {"id": each.id, "namespace": each.namespace, "tags": frozenset(each.record["tags"])}
        for name in each.record.keys() & BY_KIND[each.noun.kind].table.c.keys():
            values[name] = _decoder(each.noun.kind, name)(each.record[name])
        blob = each.vector
        made = None if blob is None else decode(blob, space.dimension, what, each.checksum)
        if each.noun is MEMORY:
            return Memory(embedding=made, **{name: v for name, v in values.items() if name in _MEMORY_FIELDS})
        values |= {"topics": tuple(values["topics"]), "member_count": len(each.partners), "composite": made}
        return Assembly(**{name: value for name, value in values.items() if name in _ASSEMBLY_FIELDS})


_MEMORY_FIELDS = frozenset(f.name for f in fields(Memory))
_ASSEMBLY_FIELDS = frozenset(f.name for f in fields(Assembly))


@lru_cache(64)
def _decoder(kind: RecordKind, name: str) -> Callable[[Any], Any]:
    """What turns a stored value of a column into a record's."""
    column = BY_KIND[kind].table.c[name]
    if isinstance(column.type, UtcTime):
        return lambda value: None if value is None else from_micros(value)
    if isinstance(column.type, JsonText):
        return json.loads
    return bool if name == "pinned" else lambda value: value
