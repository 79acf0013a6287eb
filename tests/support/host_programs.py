"""One of every record and of every error, for tests of what other programs do with them."""

import datetime
from typing import Any

import memstore
from memstore import errors as error_module

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)

_SAMPLES: dict[str, Any] = {
    "DimensionError": lambda kind: kind(expected=3, got="shape (2, 3)"),
    "DuplicateError": lambda kind: kind("memory", "a", given_twice=True),
    "HistoryError": lambda kind: kind("no history", since=NOW),
    "LoadError": lambda kind: kind("stopped", stored=3),
    "NewerFileError": lambda kind: kind("newer", revision="9"),
    "NotFoundError": lambda kind: kind("memory", "a", ("b",), trash=True),
    "ConflictError": lambda kind: kind("cannot be undone", later=(1, 2), merge=3),
    "SettingsMismatchError": lambda kind: kind("dimension", expected=1, got=2),
    "StalePlanError": lambda kind: kind("memory", ["a", "b"]),
}


def errors() -> list[memstore.MemstoreError]:
    """One error of every class; one of them is of an item of a batch."""
    kinds = [getattr(error_module, name) for name in error_module.__all__]
    samples = [_SAMPLES.get(kind.__name__, lambda kind: kind("what happened"))(kind) for kind in kinds]
    return [*samples, memstore.InvalidError("Invalid importance").of_item(3, "x")]


async def records(store: memstore.Store) -> list[Any]:
    """One record of every kind that verbs return, in *store*, whose dimension is 8."""
    memories = [
        await store.memories.add(f"line\n{i}", embedding=[1, i, *[0] * 6], tags={"t"}, metadata={"a": [1, None]})
        for i in range(4)
    ]
    ids = [memory.id for memory in memories]
    await store.assemblies.add("one", members=ids[:2], topics=["a"])
    assembly = await store.assemblies.add("two", members=ids[2:3])
    boost = memstore.AssemblyBoost(threshold=0)
    hits = await store.memories.search([1] * 8, boost=boost)
    assembly_hits = await store.assemblies.search([1] * 8)
    explanation = await store.memories.explain([1] * 8, ids[0], boost=boost)
    suggestions = await store.assemblies.suggest(-1.0, min_size=2)
    candidates = await store.assemblies.merge_candidates(-1.0)
    sync_state = await store.assemblies.sync_state("one")
    merge = await store.assemblies.merge(["one", "two"], into="three")
    merged = await store.assemblies.get_merged("one")
    lineage = await store.assemblies.lineage("three")
    plan = await store.memories.plan_forget(memstore.ForgetPolicy(where={"id": ids[3]}))
    await store.memories.forget(plan)
    trash = [entry async for entry in store.memories.trash()]
    tags = [tag async for tag in store.tags.list()]
    changes = await store.memories.history(ids[0])
    added = await store.memories.add("x", id=ids[0], on_duplicate="skip")
    return [
        *(memories[0], assembly, hits[0], hits, hits.plan, hits[0].score_boost, hits.activated[0]),
        *(assembly_hits[0], assembly_hits, explanation, suggestions, candidates[0], sync_state),
        *(merge, merged, lineage, plan, plan.candidates[0], trash[0], tags[0], changes[0]),
        *(added, await store.memories.page(limit=1), await store.memories.vectors()),
        *(await store.stats(), await store.repair(), await store.memories.page(limit=2)),
        *(await store.memories.vectors(), await store.memories.add("x", id="new", on_duplicate="skip")),
        *(await store.memories.erase(ids=["new"]), await memstore.verify(store._database.settings.path)),
        memstore.models.AssemblySuggestion(leader="a", members=("a", "b"), similarity=0.5),
        memstore.models.Finding(kind="ghost", record_kind="memory", id="x", detail="a detail"),
    ]
