"""Merges of assemblies: the merged values, what is stored, undo, and lineage."""

import asyncio
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import memstore
from memstore import (
    Assembly,
    AssemblyForgetPolicy,
    ConflictError,
    DuplicateError,
    ForgetPolicy,
    InvalidError,
    MemstoreError,
    Merge,
    NotFoundError,
    Store,
)
from memstore.assemblies.merge import MAX_MERGED
from memstore.models import LineageEntry
from tests.api.test_assemblies import add, expect_composite
from tests.conftest import DIMENSION, vectors
from tests.support.spaces import mean
from tests.support.sql import execute

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


async def members(store: Store, id: str) -> list[str]:
    return [member async for member in store.assemblies.members(id)]


async def snapshot(store: Store) -> dict[str, tuple[Any, list[str]]]:
    """Every assembly with its members, without its revision, which never decreases."""
    return {a.id: (replace(a, revision=0), await members(store, a.id)) async for a in store.assemblies.list()}


@pytest.fixture
async def drinks(store: Store, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Three assemblies over m0 to m4, of which two share m1; the vectors of the memories."""
    rows = vectors(rng, 6)
    await add(store, rows)
    await store.assemblies.add(
        "tea",
        members=["m0", "m1"],
        tags={"hot", "leaf"},
        topics=["cup", "morning"],
        metadata={"k": 1, "from": {"place": "tea"}},
        created_at=LONG_AGO,
        updated_at=LONG_AGO,
    )
    await store.assemblies.add(
        "coffee",
        name="Coffee",
        description="beans",
        members=["m1", "m2"],
        tags={"hot", "bean"},
        topics=["noon", "cup"],
        metadata={"from": {"place": "coffee"}, "strong": True},
    )
    await store.assemblies.add("juice", name="Juice", description="fruit", members=["m3", "m4"], tags={"cold"})
    return rows


async def test_a_merge_into_a_new_assembly_combines_all_in_order(store: Store, drinks: npt.NDArray[np.float32]) -> None:
    merge = await store.assemblies.merge(["tea", "coffee"], into="hot drinks", actor="ada", reason="one shelf")
    one = await store.assemblies.get(merge.target)
    assert (merge.target, merge.sources, merge.namespace) == ("hot drinks", ("tea", "coffee"), ())
    assert (merge.actor, merge.reason, merge.undone_at) == ("ada", "one shelf", None)
    assert (one.name, one.description) == ("Coffee", "beans")  # the first that is not empty
    assert one.tags == {"hot", "leaf", "bean"}
    assert one.topics == ("cup", "morning", "noon")
    assert one.metadata == {"k": 1, "from": {"place": "tea"}, "strong": True}
    assert one.created_at == one.updated_at == merge.at
    assert await members(store, "hot drinks") == ["m0", "m1", "m2"]
    await expect_composite(store, "hot drinks", drinks[:3])


async def test_a_merge_into_one_of_the_assemblies_keeps_its_id_and_values(
    store: Store, drinks: npt.NDArray[np.float32]
) -> None:
    before = await store.assemblies.get("tea")
    merge = await store.assemblies.merge(["juice", "tea", "coffee"], into="tea")
    after = await store.assemblies.get("tea")
    assert merge.sources == ("juice", "coffee")
    assert after.created_at == before.created_at == LONG_AGO
    assert after.updated_at == merge.at
    assert (after.name, after.description) == ("Juice", "fruit")  # the target had none, and juice comes first
    assert after.topics == ("cup", "morning", "noon")
    assert after.metadata["from"] == {"place": "tea"}
    assert after.revision > before.revision
    assert [a.id async for a in store.assemblies.list()] == ["tea"]
    await expect_composite(store, "tea", drinks[:5])


async def test_a_merge_into_an_assembly_that_is_not_in_ids_includes_it(
    store: Store, drinks: npt.NDArray[np.float32]
) -> None:
    merge = await store.assemblies.merge(["juice"], into="tea", name="All")
    assert merge.sources == ("juice",)
    assert (await store.assemblies.get("tea")).name == "All"
    await expect_composite(store, "tea", drinks[[0, 1, 3, 4]])


async def test_the_target_has_the_given_id_or_a_new_one(store: Store, drinks: npt.NDArray[np.float32]) -> None:
    merge = await store.assemblies.merge(["tea", "coffee"], name="")
    one = await store.assemblies.get(merge.target)
    assert one.name == ""
    assert len(one.id) == 36


async def test_merged_assemblies_are_in_no_read_but_get_merged(store: Store, drinks: npt.NDArray[np.float32]) -> None:
    before, had = await store.assemblies.get("coffee"), await members(store, "coffee")
    merge = await store.assemblies.merge(["tea", "coffee"], into="tea")
    with pytest.raises(NotFoundError):
        await store.assemblies.get("coffee")
    assert await store.assemblies.count() == 2
    assert {hit.assembly.id for hit in await store.assemblies.search(np.ones(DIMENSION), 10)} == {"tea", "juice"}
    assert [a.id for a in await store.assemblies.containing("m2")] == ["tea"]
    was = await store.assemblies.get_merged("coffee")
    assert was.assembly == before
    assert list(was.members) == had
    assert was.merge == merge
    with pytest.raises(NotFoundError):
        await store.assemblies.get_merged("tea")
    with pytest.raises(NotFoundError):
        await store.namespace("other").assemblies.get_merged("coffee")


async def test_similarity_is_the_lowest_score_between_two(store: Store, drinks: npt.NDArray[np.float32]) -> None:
    composites = [mean("cosine", drinks[[i, i + 1]]) for i in (0, 1, 3)]
    least = min(
        float(a @ b) for i, a in enumerate(composites) for b in composites[:i] if a is not None and b is not None
    )
    merge = await store.assemblies.merge(["tea", "coffee", "juice"], threshold=least - 0.01)
    assert merge.similarity == pytest.approx(least, abs=1e-6)
    assert merge.threshold == least - 0.01
    empty = await store.assemblies.add("empty")
    assert (await store.assemblies.merge([merge.target, empty.id])).similarity is None  # one has no composite


async def test_a_similarity_below_the_threshold_refuses_the_merge(
    store: Store, drinks: npt.NDArray[np.float32]
) -> None:
    before = await snapshot(store)
    with pytest.raises(InvalidError, match="threshold"):
        await store.assemblies.merge(["tea", "juice"], threshold=0.999)
    with pytest.raises(InvalidError, match="threshold"):
        await store.assemblies.merge(["tea", "juice"], threshold=0.5, similarity=0.4)
    await store.assemblies.add("empty")
    with pytest.raises(InvalidError, match="compared"):
        await store.assemblies.merge(["tea", "empty"], threshold=-1)
    assert await store.assemblies.delete("empty") == 1
    assert await snapshot(store) == before
    merge = await store.assemblies.merge(["tea", "juice"], threshold=0.5, similarity=0.6)
    assert (merge.threshold, merge.similarity) == (0.5, 0.6)


async def test_a_refused_merge_changes_nothing(store: Store, drinks: npt.NDArray[np.float32]) -> None:
    before = await snapshot(store)
    wrong: list[tuple[Any, dict[str, Any], type[Exception]]] = [
        (["tea", "none"], {}, NotFoundError),
        (["tea"], {}, InvalidError),
        (["tea"], {"into": "tea"}, InvalidError),
        (["tea"], {"into": "new"}, InvalidError),
        ([], {"into": "tea"}, InvalidError),
        (["tea", "coffee", "tea"], {}, InvalidError),
        ("tea", {}, InvalidError),
        (["tea", 7], {}, InvalidError),
        ([f"n{i}" for i in range(MAX_MERGED + 1)], {}, InvalidError),
        (["tea", "coffee"], {"into": ""}, InvalidError),
        (["tea", "coffee"], {"name": 3}, InvalidError),
        (["tea", "coffee"], {"actor": 3}, InvalidError),
        (["tea", "coffee"], {"reason": b"r"}, InvalidError),
        (["tea", "coffee"], {"similarity": "high"}, InvalidError),
        (["tea", "coffee"], {"threshold": float("nan")}, InvalidError),
    ]
    for ids, arguments, error in wrong:
        with pytest.raises(error):
            await store.assemblies.merge(ids, **arguments)
    with pytest.raises(NotFoundError):
        await store.namespace("other").assemblies.merge(["tea", "coffee"])
    await store.assemblies.update("tea", tags={f"t{i}" for i in range(1_000)})
    with pytest.raises(InvalidError, match="tags"):
        await store.assemblies.merge(["tea", "coffee"])
    await store.assemblies.update("tea", tags={"hot", "leaf"}, updated_at=LONG_AGO)
    assert await snapshot(store) == before


async def test_a_merge_is_rolled_back_with_its_transaction(store: Store, drinks: npt.NDArray[np.float32]) -> None:
    before = await snapshot(store)
    with pytest.raises(RuntimeError):
        async with store.transaction() as tx:
            await tx.assemblies.merge(["tea", "coffee"], into="tea")
            assert {hit.assembly.id for hit in await tx.assemblies.search(np.ones(DIMENSION), 10)} == {"tea", "juice"}
            raise RuntimeError
    assert await snapshot(store) == before
    with pytest.raises(NotFoundError):
        await store.assemblies.unmerge("tea")


@pytest.mark.parametrize("into", [None, "tea", "juice"])
async def test_an_unmerge_restores_the_state_before_the_merge_and_stores_its_actor_and_reason(
    store: Store, path: Path, drinks: npt.NDArray[np.float32], into: str | None
) -> None:
    before = await snapshot(store)
    for _ in range(3):  # again and again
        merge = await store.assemblies.merge(["tea", "coffee"], into=into)
        undone = await store.assemblies.unmerge(merge if into else merge.id, actor="bob", reason="not alike")
        assert undone == replace(merge, undone_at=undone.undone_at)
        undone_by = execute(path, "SELECT undone_by, undone_reason FROM assembly_merge WHERE pk = ?", (merge.id,))
        assert undone_by == [("bob", "not alike")]
        assert undone.undone_at is not None
        after = await snapshot(store)
        if into is not None:
            after[into] = (replace(after[into][0], updated_at=before[into][0].updated_at), after[into][1])
        assert after == before
        assert await store.check() == []
        with pytest.raises(ConflictError, match="undone at"):
            await store.assemblies.unmerge(merge.id)
    with pytest.raises(NotFoundError):
        await store.assemblies.get_merged("coffee")


async def test_an_unmerge_keeps_later_changes(store: Store, drinks: npt.NDArray[np.float32]) -> None:
    await store.assemblies.merge(["coffee"], into="tea")
    await store.assemblies.add_members("tea", ["m5"])
    await store.assemblies.remove_members("tea", ["m1"])
    await store.assemblies.update(
        "tea",
        name="Renamed",
        tags={"hot", "leaf", "bean", "new"},
        topics=["later", "noon", "cup"],
        metadata={"strong": False, "added": [1], "from": {"place": "tea"}},
    )
    await store.assemblies.unmerge("tea")
    tea = await store.assemblies.get("tea")
    assert (tea.name, tea.description) == ("Renamed", "")
    assert tea.tags == {"hot", "leaf", "new"}
    assert tea.topics == ("later", "cup")
    assert tea.metadata == {"strong": False, "added": [1], "from": {"place": "tea"}}
    assert await members(store, "tea") == ["m0", "m5"]
    assert await members(store, "coffee") == ["m1", "m2"]
    await expect_composite(store, "tea", drinks[[0, 5]])
    await expect_composite(store, "coffee", drinks[[1, 2]])


async def test_a_member_in_the_trash_during_an_unmerge_is_recovered_into_its_source_only(
    store: Store, drinks: npt.NDArray[np.float32]
) -> None:
    before = await members(store, "tea")
    await store.assemblies.merge(["tea", "coffee"], into="tea")
    await store.memories.forget(await store.memories.plan_forget(ForgetPolicy(where={"id": {"$in": ["m0", "m2"]}})))
    await store.assemblies.unmerge("tea")
    await store.memories.recover(["m2", "m0"])
    assert await members(store, "tea") == before
    assert await members(store, "coffee") == ["m1", "m2"]
    await expect_composite(store, "coffee", drinks[[1, 2]])


async def test_an_unmerge_does_not_restore_deleted_members(store: Store, drinks: npt.NDArray[np.float32]) -> None:
    await store.assemblies.merge(["tea", "coffee"], into="both")
    await store.memories.delete("m1")
    await store.memories.update("m2", embedding=drinks[5])
    await store.assemblies.unmerge("both")
    assert await members(store, "tea") == ["m0"]
    assert await members(store, "coffee") == ["m2"]
    await expect_composite(store, "tea", drinks[[0]])
    await expect_composite(store, "coffee", drinks[[5]])
    with pytest.raises(NotFoundError):
        await store.assemblies.get("both")


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.add_members("both", ["m5"]),
        lambda a: a.update("both", name="mine"),
        lambda a: a.update("both", description="mine"),
        lambda a: a.update("both", tags=set()),
        lambda a: a.update("both", topics=["cup"]),
        lambda a: a.update("both", metadata={"k": 2}),
    ],
    ids=["members", "name", "description", "tags", "topics", "metadata"],
)
async def test_an_unmerge_that_would_lose_later_changes_of_its_target_is_refused(
    store: Store, drinks: npt.NDArray[np.float32], change: Any, request: pytest.FixtureRequest
) -> None:
    await store.assemblies.merge(["tea", "coffee"], into="both")
    await change(store.assemblies)
    before = await snapshot(store)
    with pytest.raises(ConflictError, match=request.node.callspec.id) as refused:
        await store.assemblies.unmerge("both")
    assert refused.value.merge == 1
    assert await snapshot(store) == before
    await store.assemblies.delete("both")  # as the message says
    await store.assemblies.unmerge("both")
    assert [a.id async for a in store.assemblies.list()] == ["tea", "coffee", "juice"]


async def test_members_removed_from_the_target_do_not_prevent_an_unmerge(
    store: Store, drinks: npt.NDArray[np.float32]
) -> None:
    await store.assemblies.merge(["tea", "coffee"], into="both")
    await store.assemblies.remove_members("both", ["m0"])
    await store.assemblies.unmerge("both")
    assert await members(store, "tea") == ["m0", "m1"]


async def test_merges_are_undone_in_reverse_order(store: Store, drinks: npt.NDArray[np.float32]) -> None:
    before = await snapshot(store)
    first = await store.assemblies.merge(["coffee"], into="tea")
    second = await store.assemblies.merge(["juice"], into="tea")
    third = await store.assemblies.merge(["tea", (await store.assemblies.add("other")).id], into="all")
    for early, late in ((first, third), (second, third), (first, third)):
        with pytest.raises(ConflictError, match=f"merge {late.id} "):
            await store.assemblies.unmerge(early)
    await store.assemblies.unmerge(third)
    with pytest.raises(ConflictError, match=f"merge {second.id} "):
        await store.assemblies.unmerge(first)
    assert (await store.assemblies.unmerge("tea")).id == second.id
    assert (await store.assemblies.unmerge("tea")).id == first.id
    await store.assemblies.delete("other")
    after = await snapshot(store)
    after["tea"] = (replace(after["tea"][0], updated_at=LONG_AGO), after["tea"][1])
    assert after == before


async def test_an_unmerge_is_refused_if_the_id_of_a_source_is_taken(
    store: Store, drinks: npt.NDArray[np.float32]
) -> None:
    await store.assemblies.merge(["tea", "coffee"], into="both")
    await store.assemblies.add("coffee", members=["m5"])
    before = await snapshot(store)
    with pytest.raises(DuplicateError) as error:
        await store.assemblies.unmerge("both")
    assert error.value.id == "coffee"
    assert await snapshot(store) == before
    # Two assemblies with one id, both merged: the id means the later, and each unmerge restores its own.
    await store.assemblies.merge(["coffee", "juice"], into="more")
    assert (await store.assemblies.get_merged("coffee")).members == ("m5",)
    await store.assemblies.unmerge("both")
    assert await members(store, "coffee") == ["m1", "m2"]
    with pytest.raises(DuplicateError):
        await store.assemblies.unmerge("more")


async def test_an_unmerge_is_refused_if_a_source_was_purged(
    store: Store, path: Path, drinks: npt.NDArray[np.float32]
) -> None:
    await store.assemblies.merge(["tea", "coffee"], into="both")
    execute(path, "DELETE FROM tombstone WHERE id = 'tea'")
    before = await snapshot(store)
    with pytest.raises(ConflictError, match="'tea'"):
        await store.assemblies.unmerge("both")
    assert await snapshot(store) == before
    entries = (await store.assemblies.lineage("both")).ancestors
    assert [k.id for k in entries] == ["tea", "coffee"]
    with pytest.raises(NotFoundError):
        await store.assemblies.get_merged("tea")


async def test_an_unmerge_is_refused_while_its_target_is_in_the_trash(
    store: Store, drinks: npt.NDArray[np.float32]
) -> None:
    await store.assemblies.merge(["tea", "coffee"], into="both")
    plan = await store.assemblies.plan_forget(AssemblyForgetPolicy(where={"id": "both"}))
    assert await store.assemblies.forget(plan) == 1
    with pytest.raises(ConflictError, match="recover"):
        await store.assemblies.unmerge("both")
    assert (await store.assemblies.get_merged("coffee")).merge.target == "both"


async def test_an_unmerge_finds_only_merges_of_its_namespace(store: Store, drinks: npt.NDArray[np.float32]) -> None:
    merge = await store.assemblies.merge(["tea", "coffee"], into="both")
    for wrong in (merge.id, merge, "both"):
        with pytest.raises(NotFoundError):
            await store.namespace("other").assemblies.unmerge(wrong)
    for unknown in (99, "juice"):
        with pytest.raises(NotFoundError):
            await store.assemblies.unmerge(unknown)
    for senseless in (0, True, None, 1.5, ""):
        with pytest.raises(InvalidError):
            await store.assemblies.unmerge(senseless)  # type: ignore[arg-type]


# --- lineage ----------------------------------------------------------------------------------------------------------


def relatives(entries: tuple[LineageEntry, ...]) -> list[tuple[str, int, bool]]:
    return [(k.id, k.depth, k.exists) for k in entries]


async def test_a_lineage_contains_all_ancestors_and_descendants(store: Store) -> None:
    await store.assemblies.add_many([{"id": id} for id in "abcdef"])
    one = await store.assemblies.merge(["a", "b"], into="ab")
    two = await store.assemblies.merge(["c"], into="d")
    three = await store.assemblies.merge(["ab", "d"], into="abcd")
    four = await store.assemblies.merge(["abcd", "e"], into="f")
    up = await store.assemblies.lineage("f")
    assert (up.id, up.namespace, up.exists, up.descendants) == ("f", (), True, ())
    assert relatives(up.ancestors) == [
        ("abcd", 1, False), ("e", 1, False), ("ab", 2, False), ("d", 2, False), ("a", 3, False), ("b", 3, False),
        ("c", 3, False),
    ]  # fmt: skip
    assert [k.merge for k in up.ancestors] == [four, four, three, three, one, one, two]
    down = await store.assemblies.lineage("a")
    assert (down.exists, down.ancestors) == (False, ())
    assert relatives(down.descendants) == [("ab", 1, False), ("abcd", 2, False), ("f", 3, True)]
    middle = await store.assemblies.lineage("abcd")
    assert (len(middle.ancestors), relatives(middle.descendants)) == (5, [("f", 1, True)])
    await store.assemblies.unmerge(four)
    again = await store.assemblies.lineage("abcd")
    assert (again.exists, again.descendants) == (True, ())
    assert (await store.assemblies.lineage("f")).ancestors == ()
    await store.assemblies.delete("abcd")
    lineage = await store.assemblies.lineage("abcd")
    assert (lineage.exists, relatives(lineage.ancestors[:1])) == (False, [("ab", 1, False)])
    for nobody in ("none", "A"):
        with pytest.raises(NotFoundError):
            await store.assemblies.lineage(nobody)
    with pytest.raises(NotFoundError):
        await store.namespace("other").assemblies.lineage("f")


async def test_a_lineage_is_of_the_assembly_that_has_the_id_now(store: Store) -> None:
    await store.assemblies.add_many([{"id": id} for id in "ab"])
    await store.assemblies.merge(["b"], into="a")
    await store.assemblies.add("b")
    assert (await store.assemblies.lineage("b")).descendants == ()
    await store.assemblies.merge(["a"], into="b")
    assert relatives((await store.assemblies.lineage("b")).ancestors) == [("a", 1, False), ("b", 2, False)]


async def test_a_lineage_of_a_reused_id_without_an_assembly_is_of_the_last(store: Store) -> None:
    await store.assemblies.add_many([{"id": id} for id in "xyz"])
    await store.assemblies.merge(["y"], into="x")
    await store.assemblies.delete("x")
    await store.assemblies.add("x")
    await store.assemblies.merge(["x"], into="z")
    last = await store.assemblies.lineage("x")
    assert (last.ancestors, relatives(last.descendants)) == ((), [("z", 1, True)])


async def test_a_lineage_ends_at_a_cycle_and_contains_a_diamond_once(store: Store, path: Path) -> None:
    """No verb creates either; a damaged file can contain both."""
    await store.assemblies.add_many([{"id": id} for id in "abcdef"])
    edges = ["ab", "ac", "bd", "cd", "cf", "da", "ea"]  # from a source to its target
    merge_row = (
        "INSERT INTO assembly_merge (pk, namespace_pk, target_pk, target_id, at, brought) VALUES (?, 1, ?, ?, 5, '{}')"
    )
    for pk, (source, target) in enumerate(edges, 1):
        target_key, source_key = ["abcdef".index(id) + 1 for id in (target, source)]
        execute(path, merge_row, (pk, target_key, target))
        execute(path, "INSERT INTO assembly_merge_source VALUES (?, ?, ?, 0)", (pk, source_key, source))
    from_a = await asyncio.wait_for(store.assemblies.lineage("a"), 60)
    assert relatives(from_a.descendants) == [("b", 1, True), ("c", 1, True), ("d", 2, True), ("f", 2, True)]
    assert relatives(from_a.ancestors) == [("d", 1, True), ("e", 1, True), ("b", 2, True), ("c", 2, True)]
    from_e = await asyncio.wait_for(store.assemblies.lineage("e"), 60)
    assert [entries.id for entries in from_e.descendants] == ["a", "b", "c", "d", "f"]


# --- properties -------------------------------------------------------------------------------------------------------

MEMORIES, GROUPS = [f"m{i}" for i in range(6)], list("abcd")
POOL = vectors(np.random.default_rng(3), 12)
member_lists = st.lists(st.sampled_from(MEMORIES), max_size=4, unique=True)
a_group = st.sampled_from(GROUPS)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), a_group, member_lists),
        st.tuples(st.just("join"), a_group, member_lists),
        st.tuples(st.just("leave"), a_group, member_lists),
        st.tuples(
            st.just("merge"), st.lists(a_group, min_size=1, max_size=3, unique=True), st.sampled_from([*GROUPS, None])
        ),
        st.tuples(st.just("merge"), st.lists(a_group, min_size=2, max_size=4, unique=True), a_group),
        st.tuples(st.just("unmerge"), st.integers(1, 6), st.none()),
        st.tuples(st.just("unmerge"), a_group, st.none()),
        st.tuples(st.just("delete"), a_group, st.none()),
        st.tuples(st.just("forget"), st.sampled_from(MEMORIES), st.none()),
        st.tuples(st.just("remember"), st.sampled_from(MEMORIES), st.integers(0, 11)),
        st.tuples(st.just("reopen"), st.none(), st.none()),
    ),
    max_size=14,
)


VERBS: dict[str, Callable[[Store, Any, Any], Any]] = {
    "add": lambda s, key, ids: s.assemblies.add(key, members=ids, tags={key}, topics=[key], metadata={key: len(ids)}),
    "join": lambda s, key, ids: s.assemblies.add_members(key, ids),
    "leave": lambda s, key, ids: s.assemblies.remove_members(key, ids),
    "merge": lambda s, ids, into: s.assemblies.merge(ids, into=into),
    "unmerge": lambda s, which, _: s.assemblies.unmerge(which),
    "delete": lambda s, key, _: s.assemblies.delete(key),
    "forget": lambda s, key, _: s.memories.delete(key),
    "remember": lambda s, key, vector: s.memories.upsert("again", id=key, embedding=POOL[vector]),
}


async def expect_consistent(store: Store, merge_count: int) -> None:
    """Composites equal the means of their members, `check` finds nothing, and lineages have no cycle."""
    assert await store.check() == []
    vector_of = {memory.id: memory.embedding async for memory in store.memories.list()}
    async for group in store.assemblies.list():
        rows = [vector_of[id] for id in await members(store, group.id)]
        expected = mean("cosine", np.array(rows).reshape(len(rows), DIMENSION))
        assert (group.composite is None) == (expected is None)
        if group.composite is not None and expected is not None:
            assert np.abs(group.composite - expected).max() <= 1e-6
        line = await store.assemblies.lineage(group.id)
        assert line.descendants == ()  # an existing assembly was not merged
        assert all(k.merge.undone_at is None and k.depth <= merge_count for k in line.ancestors)


async def apply_steps(folder: Path, history: list[tuple[str, Any, Any]]) -> None:
    path = folder / "store.db"
    store = await memstore.open(path, dimension=DIMENSION)
    try:
        await add(store, POOL[:6])
        await store.assemblies.add_many([{"id": id, "members": [MEMORIES[i]]} for i, id in enumerate(GROUPS)])
        for verb, one, other in history:
            if verb == "reopen":
                await store.close()
                store = await memstore.open(path)
            else:
                with suppress(NotFoundError, DuplicateError, InvalidError, ConflictError):
                    await VERBS[verb](store, one, other)
            await expect_consistent(store, len(execute(path, "SELECT pk FROM assembly_merge")))
    finally:
        await store.close()


@settings(
    max_examples=int(os.environ.get("MEMSTORE_EXAMPLES", "40")),
    deadline=None,
    derandomize="MEMSTORE_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
@given(steps)
def test_composites_are_means_and_lineages_have_no_cycle_after_any_merges(
    history: list[tuple[str, Any, Any]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(apply_steps(Path(folder), history))


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.lists(a_group, min_size=2, max_size=3, unique=True), st.sampled_from([*GROUPS, None]))))
def test_undoing_every_merge_in_reverse_order_restores_the_first_state(
    merges: list[tuple[list[str], str | None]],
) -> None:
    async def run(folder: Path) -> None:
        async with memstore.open(folder / "store.db", dimension=DIMENSION) as store:
            await add(store, POOL[:6])
            await store.assemblies.add_many(
                {"id": id, "members": MEMORIES[i : i + 3], "tags": {id}, "topics": [id, "all"], "metadata": {id: i}}
                for i, id in enumerate(GROUPS)
            )
            states: list[tuple[Merge, dict[str, Any]]] = []
            for ids, into in merges:
                before = await snapshot(store)
                try:
                    states.append((await store.assemblies.merge(ids, into=into), before))
                except MemstoreError:
                    assert await snapshot(store) == before
            for merge, before in reversed(states):
                await store.assemblies.unmerge(merge)
                after = await snapshot(store)
                assert {id: _timeless(*it) for id, it in after.items()} == {
                    id: _timeless(*it) for id, it in before.items()
                }
            assert await store.check() == []

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))


def _timeless(record: Assembly, members: list[str]) -> tuple[Assembly, list[str]]:
    return replace(record, updated_at=LONG_AGO), members
