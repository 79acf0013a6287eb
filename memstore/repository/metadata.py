"""Metadata of records, read to be patched."""

import json
from collections.abc import Sequence

from sqlalchemy import Connection, select, type_coerce
from sqlalchemy.types import NullType

from memstore.models.records import Json
from memstore.repository.corruption import corrupt_value, expect_stored
from memstore.repository.key_lists import listed_keys
from memstore.repository.record_types import RecordType
from memstore.repository.statements import prepared_by_kind

_READ = prepared_by_kind(
    lambda t: select(t.table.c.pk, type_coerce(t.table.c.metadata, NullType())).where(t.table.c.pk.in_(listed_keys()))
)


def read(connection: Connection, record_type: RecordType, keys: Sequence[int]) -> dict[int, dict[str, Json]]:
    """The metadata of the records *keys*, by key. Raises `DamagedError`."""
    documents: dict[int, dict[str, Json]] = {}
    for pk, text in _READ[record_type.kind].of_keys(connection, keys):
        with expect_stored(f"{record_type.kind}.metadata"):
            document = json.loads(text)
        if type(document) is not dict:
            raise corrupt_value(f"{record_type.kind}.metadata", "a JSON object", text)
        documents[pk] = document
    return documents
