"""What memories and assemblies have in common: a table, a table of vectors, a table of tags."""

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Column, Table

from memstore import schema

Kind = Literal["memory", "assembly"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Noun:
    """One kind of record, as tables."""

    kind: Kind
    table: Table
    vectors: Table
    vector_owner: Column[int]
    tags: Table
    tag_owner: Column[int]
    expires: bool


MEMORY = Noun(
    kind="memory",
    table=schema.memory,
    vectors=schema.memory_vector,
    vector_owner=schema.memory_vector.c.memory_pk,
    tags=schema.memory_tag,
    tag_owner=schema.memory_tag.c.memory_pk,
    expires=True,
)
ASSEMBLY = Noun(
    kind="assembly",
    table=schema.assembly,
    vectors=schema.assembly_vector,
    vector_owner=schema.assembly_vector.c.assembly_pk,
    tags=schema.assembly_tag,
    tag_owner=schema.assembly_tag.c.assembly_pk,
    expires=False,
)
NOUNS = (MEMORY, ASSEMBLY)
BY_KIND: dict[Kind, Noun] = {noun.kind: noun for noun in NOUNS}
