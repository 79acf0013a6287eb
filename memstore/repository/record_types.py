"""What memories and assemblies have in common: a table, a table of vectors, a table of tags."""

from dataclasses import dataclass

from sqlalchemy import Column, Table

from memstore.models.records import RecordKind
from memstore.schema import tables


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordType:
    """One kind of record, as tables; the owner columns of `vectors` and `tags` name the record."""

    kind: RecordKind
    table: Table
    vectors: Table
    vector_owner: Column[int]
    tags: Table
    tag_owner: Column[int]
    expires: bool

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the table that hold fields, in order: all but the keys of the record and its namespace."""
        return tuple(column.name for column in self.table.c if column.name not in ("pk", "namespace_pk"))


def _record_type(kind: RecordKind, *, expires: bool) -> RecordType:
    vectors, tags = tables.metadata.tables[f"{kind}_vector"], tables.metadata.tables[f"{kind}_tag"]
    return RecordType(
        kind=kind,
        table=tables.metadata.tables[kind],
        vectors=vectors,
        vector_owner=vectors.c[f"{kind}_pk"],
        tags=tags,
        tag_owner=tags.c[f"{kind}_pk"],
        expires=expires,
    )


MEMORY = _record_type("memory", expires=True)
ASSEMBLY = _record_type("assembly", expires=False)
RECORD_TYPES = (MEMORY, ASSEMBLY)
BY_KIND: dict[RecordKind, RecordType] = {record_type.kind: record_type for record_type in RECORD_TYPES}
