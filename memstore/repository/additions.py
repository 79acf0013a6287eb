"""Memories that are added where their ids exist: skipped, or replaced."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from memstore.models.records import Address, Memory, address_of, set_metadata
from memstore.models.results import AddResult
from memstore.repository import history_writer, memories, upserts
from memstore.repository.context import WriteContext
from memstore.repository.corruption import only
from memstore.repository.memories import Batch
from memstore.validation.merge_patch import patched
from memstore.validation.records import Draft


def add_missing(
    context: WriteContext, new: Sequence[Memory], batches: Sequence[Batch], unembedded: AbstractSet[Address]
) -> list[AddResult[Memory]] | None:
    """Store those memories of *new* whose ids do not exist, and read the others; of equal ids the first is stored.

    Args:
        context: of the write.
        new: the memories.
        batches: the first of each id, encoded.
        unembedded: those that have no embedding because they were expected to exist.

    Returns:
        The result for each of *new*; None, with nothing written, if one of *unembedded* does not exist.
    """
    connection = context.connection
    keys: dict[Address, int] = {}
    missing: list[Batch] = []
    for batch in batches:
        if context.has_expired_rows:
            history_writer.delete_expired_ids(context, batch.addresses())
        rows = memories.existing(connection, batch)
        keys |= {address: row.pk for address, row in zip(batch.addresses(), rows, strict=True) if row is not None}
        missing.append(batch.only(i for i, row in enumerate(rows) if row is None))
    if not unembedded <= keys.keys():
        return None
    if any(map(len, missing)):
        memories.insert_new(context, [batch for batch in missing if len(batch)])
    stored = {
        address_of(memory): memory for memory in memories.read(connection, context.spaces["memory"], [*keys.values()])
    }
    results: list[AddResult[Memory]] = []
    added: dict[Address, Memory] = {}
    for memory in new:
        address = address_of(memory)
        if address in keys:
            results.append(AddResult(stored.get(address) or only([]), "skipped"))
        else:
            results.append(AddResult(added.get(address, memory), "skipped" if address in added else "added"))
            added.setdefault(address, memory)
    return results


def upsert(
    context: WriteContext,
    addresses: Sequence[Address],
    drafts: Mapping[Address, Draft[Memory]],
    batches: Sequence[Batch],
) -> list[tuple[Memory, bool]]:
    """Store the memories of *drafts*, encoded as *batches* in the same order; for each of *addresses* the memory.

    The second value is whether it was replaced: it existed, or an earlier one of *addresses* is equal.
    """
    ordered = list(drafts.values())
    start = 0
    existed: dict[Address, bool] = {}
    for batch in batches:
        part = ordered[start : start + len(batch)]
        present = upserts.upsert(context, batch, part)
        existed.update(zip((address_of(draft.record) for draft in part), present, strict=True))
        start += len(batch)
    results: list[tuple[Memory, bool]] = []
    for address in addresses:
        results.append((drafts[address].record, existed[address]))
        existed[address] = True
    return results


def after(earlier: Draft[Memory] | None, draft: Draft[Memory]) -> Draft[Memory]:
    """*draft*, which has a patch, where the same call stores *earlier* under its id first."""
    if earlier is None:
        return draft
    document = earlier.record.metadata
    set_metadata(draft.record, patched(document, draft.patches))
    return replace(draft, patches=(*earlier.patches, *draft.patches) if earlier.patches else ())
