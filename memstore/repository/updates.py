"""Updates of records: the same fields for all of them, and a patch of the metadata of each."""

from collections.abc import Mapping, Sequence
from typing import Any

from memstore.concurrency import chunks
from memstore.models.records import Json, Namespace
from memstore.repository import assemblies, history_writer, memories, metadata, row_restore
from memstore.repository.context import WriteContext
from memstore.repository.record_types import MEMORY, RecordType
from memstore.schema.types import json_text
from memstore.validation.merge_patch import patched

_CHUNK = 500  # records whose versions are compared for the history at a time: they are in memory twice


def update(
    context: WriteContext,
    record_type: RecordType,
    path: Namespace,
    keys: Sequence[int],
    fields: Mapping[str, Any],
    patch: dict[str, Json] | None,
) -> None:
    """Give the records *keys* of one namespace new values of *fields*; the others stay, but for `updated_at`.

    *patch* is a merge patch of their metadata, None for none. Raises `InvalidError` where patched metadata exceeds its
    limits.
    """
    connection, values = context.connection, {"updated_at": context.now, **fields}
    for chunk in chunks(keys, _CHUNK):
        with history_writer.record_update(context, record_type, chunk):
            if record_type is MEMORY:
                memories.change(connection, context.spaces["memory"], path, chunk, values)
            else:
                assemblies.change_many(connection, path, chunk, values)
            if patch is not None:
                _patch_metadata(context, record_type, chunk, patch)


def _patch_metadata(
    context: WriteContext, record_type: RecordType, keys: Sequence[int], patch: dict[str, Json]
) -> None:
    for key, document in metadata.read(context.connection, record_type, keys).items():
        new = patched(document, [patch])
        if new != document:
            row_restore.update_columns(context.connection, record_type, key, {"metadata": json_text(new)})
