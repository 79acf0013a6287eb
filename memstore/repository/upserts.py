"""Upserts of memories: which exist, what they keep, and which of them change nothing.

A memory whose every value equals the stored one is not written, and keeps its `updated_at`.
"""

from collections.abc import Sequence
from itertools import compress
from typing import cast

from sqlalchemy import Connection, select, type_coerce
from sqlalchemy.types import NullType

from memstore.concurrency import CHUNK_SIZE, chunks, yield_gil
from memstore.database.driver_errors import translated
from memstore.errors import DamagedError
from memstore.models.records import Memory, set_kept_fields, set_metadata, set_updated_at
from memstore.repository import history_writer, memories, metadata
from memstore.repository.context import WriteContext
from memstore.repository.corruption import expect_stored
from memstore.repository.key_lists import listed_keys
from memstore.repository.memories import Batch, ExistingMemory
from memstore.repository.record_types import MEMORY
from memstore.repository.statements import Prepared
from memstore.schema.tables import memory
from memstore.schema.types import is_same_document, json_text
from memstore.timestamps import from_micros
from memstore.validation.merge_patch import patched
from memstore.validation.records import Draft

_TEXTS = Prepared(
    lambda: select(memory.c.pk, *(type_coerce(memory.c[name], NullType()) for name in ("content", "metadata"))).where(
        memory.c.pk.in_(listed_keys())
    )
)


def upsert(context: WriteContext, batch: Batch, drafts: Sequence[Draft[Memory]]) -> list[bool]:
    """Store the memories of *batch*, which are those of *drafts*; existing ones keep what an upsert keeps.

    Returns:
        For each whether it existed.
    """
    if context.has_expired_rows:
        history_writer.delete_expired_ids(context, batch.addresses())
    rows = memories.existing(context.connection, batch)
    _apply_patches(context.connection, batch, drafts, rows)
    present = [row is not None for row in rows]
    if not all(present):
        memories.insert_new(context, [batch.only(i for i, exists in enumerate(present) if not exists)])
        batch, drafts = batch.only(i for i, exists in enumerate(present) if exists), list(compress(drafts, present))
    kept_rows = [row for row in rows if row is not None]
    if kept_rows:
        _keep_history(batch, drafts, kept_rows)
        changed = _changed(context.connection, batch, drafts, kept_rows)
        if len(changed) == len(batch):
            memories.replace(context, batch, kept_rows)
        elif changed:
            memories.replace(context, batch.only(changed), [kept_rows[i] for i in changed])
    return present


def _changed(
    connection: Connection, batch: Batch, drafts: Sequence[Draft[Memory]], rows: Sequence[ExistingMemory]
) -> list[int]:
    """The places of the memories of *batch* that differ from their *rows*; the others get their `updated_at` back.

    Texts are compared first, without tags and vectors: as a rule, an upsert changes them.
    """
    keys = [row.pk for row in rows]
    try:
        with translated():
            texts = {pk: (content, document) for pk, content, document in _TEXTS.of_keys(connection, keys)}
    except DamagedError:  # a text that cannot be read is replaced
        return list(range(len(batch)))
    columns, compared = batch.columns, [(name, batch.columns[name]) for name in memories.COMPARED]
    equal = {
        row.pk: i
        for i, row in enumerate(rows)
        if texts.get(row.pk, ("", None))[0] == columns["content"][i]
        and is_same_document(texts[row.pk][1], columns["metadata"][i])
        and "updated_at" not in drafts[i].named
        and all(getattr(row, name) == column[i] for name, column in compared)
    }
    unchanged: set[int] = set()
    for chunk in chunks(list(equal)):
        for key, version in history_writer.readable_versions(connection, MEMORY, chunk).items():
            i = equal[key]
            if version.tags == batch.tags[i] and version.vector == batch.vectors[i]:
                unchanged.add(i)
                with expect_stored("memory.updated_at"):
                    set_updated_at(drafts[i].record, from_micros(version.columns["updated_at"]))
    return [i for i in range(len(batch)) if i not in unchanged]


def _apply_patches(
    connection: Connection, batch: Batch, drafts: Sequence[Draft[Memory]], rows: Sequence[ExistingMemory | None]
) -> None:
    """Replace the metadata of the drafts that patch it by the patched metadata of the existing memory."""
    places = [i for i, draft in enumerate(drafts) if draft.patches and rows[i] is not None]
    if not places:
        return
    stored_metadata = metadata.read(connection, MEMORY, [cast("ExistingMemory", rows[i]).pk for i in places])
    for i in places:
        draft = drafts[i]
        document = patched(stored_metadata[cast("ExistingMemory", rows[i]).pk], draft.patches)
        set_metadata(draft.record, document)
        batch.columns["metadata"][i] = json_text(document)


def _keep_history(batch: Batch, drafts: Sequence[Draft[Memory]], rows: Sequence[ExistingMemory]) -> None:
    """Copy what an upsert keeps from existing *rows* into *drafts* and into *batch*, which encodes them."""
    columns = batch.columns
    for i, (draft, old) in enumerate(zip(drafts, rows, strict=True)):
        if i and i % CHUNK_SIZE == 0:
            yield_gil()
        new, named = draft.record, draft.named
        created, accessed, count, pinned = new.created_at, new.accessed_at, new.access_count, new.pinned
        if "created_at" not in named:
            columns["created_at"][i], created = old.created_at, from_micros(old.created_at)
        if "accessed_at" not in named:
            columns["accessed_at"][i] = old.accessed_at
            accessed = None if old.accessed_at is None else from_micros(old.accessed_at)
        if "access_count" not in named:
            columns["access_count"][i] = count = old.access_count
        if "pinned" not in named:
            columns["pinned"][i] = pinned = bool(old.pinned)
        set_kept_fields(new, created, accessed, count, pinned)
