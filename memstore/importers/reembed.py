"""Copies a store into a new file with the vectors of another embedder."""

import os
from collections.abc import AsyncIterator, Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from memstore.api.namespace import StoreNamespace
from memstore.api.open import open
from memstore.api.store import Store
from memstore.concurrency import in_thread
from memstore.config import path_text
from memstore.embedders.bound import Embedder
from memstore.errors import InvalidError
from memstore.models.fields import computed
from memstore.models.records import Assembly, Memory


async def reembed(
    store: Store,
    path: str | os.PathLike[str],
    embedder: Embedder,
    *,
    on_progress: Callable[[int], None] | None = None,
) -> int:
    """Copy every memory and assembly of *store* into a new file, with vectors by *embedder*.

    A memory without a vector gets none. Metric, curvature and every other field are the same; composites are computed
    from the new vectors. History, trash and merges are not copied. The copy is of the records as they are read, page by
    page: do not write to *store* meanwhile.

    Args:
        store: an open store. Open it without an embedder, or with its own.
        path: a file that does not exist.
        embedder: the embedder of the new file; its dimension may differ.
        on_progress: called after each transaction with the number of memories stored.

    Returns:
        How many memories were copied.

    Raises:
        InvalidError: there is a file at *path*.
        LoadError: the embedder failed; its cause is the error. Delete the new file, and start again.
    """
    target = path_text(path)
    if await in_thread(Path(target).exists):
        raise InvalidError(f"There is a file at {target!r}: give the path of a new file")
    count = 0
    async with open(target, embedder=embedder, metric=store.metric, curvature=store.curvature) as copy:
        for namespace in await store.namespaces():
            source, place = store.namespace(*namespace), copy.namespace(*namespace)
            progress = None if on_progress is None else partial(_report, on_progress, count)
            count += await place.load(_memories(source), on_progress=progress)
            async for assembly in source.assemblies.list():
                members = [member async for member in source.assemblies.members(assembly.id)]
                await place.assemblies.add_many([{**_fields(assembly, computed("assembly")), "members": members}])
    return count


def _report(on_progress: Callable[[int], None], before: int, stored: int) -> None:
    on_progress(before + stored)


async def _memories(source: StoreNamespace) -> AsyncIterator[dict[str, Any]]:
    async for memory in source.memories.list():
        omitted = frozenset() if memory.embedding is None else frozenset({"embedding"})  # made by the new embedder
        yield _fields(memory, omitted)


def _fields(record: Memory | Assembly, omitted: frozenset[str]) -> dict[str, Any]:
    """The fields of *record* as an item, but for its namespace and those *omitted*."""
    return {f.name: getattr(record, f.name) for f in fields(record) if f.name not in omitted | {"namespace"}}
