"""What memories and assemblies have in common: a table, a table of vectors, a table of tags."""

from dataclasses import dataclass

from sqlalchemy import Column, Table

from memstore.models.records import RecordKind
from memstore.schema import tables


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordType:
    """One kind of record, as tables."""

    kind: RecordKind
    table: Table
    vectors: Table
    vector_owner: Column[int]
    tags: Table
    tag_owner: Column[int]
    expires: bool


MEMORY = RecordType(
    kind="memory",
    table=tables.memory,
    vectors=tables.memory_vector,
    vector_owner=tables.memory_vector.c.memory_pk,
    tags=tables.memory_tag,
    tag_owner=tables.memory_tag.c.memory_pk,
    expires=True,
)
ASSEMBLY = RecordType(
    kind="assembly",
    table=tables.assembly,
    vectors=tables.assembly_vector,
    vector_owner=tables.assembly_vector.c.assembly_pk,
    tags=tables.assembly_tag,
    tag_owner=tables.assembly_tag.c.assembly_pk,
    expires=False,
)
RECORD_TYPES = (MEMORY, ASSEMBLY)
BY_KIND: dict[RecordKind, RecordType] = {noun.kind: noun for noun in RECORD_TYPES}
