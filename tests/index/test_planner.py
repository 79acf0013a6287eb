"""The planner: search methods, candidates, and graph tasks, at each border of its rules."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memstore.index import planner
from memstore.index.planner import (
    MethodChoice,
    choose_method,
    complete_prefix,
    ef_search_for,
    graph_threshold,
    next_task,
    wants_graph,
)

KINDS = st.sampled_from(["auto", "graph", "exact"])
MANY = 100_000
quick = settings(max_examples=150, deadline=None, derandomize=True)


@pytest.mark.parametrize(
    ("arguments", "method", "candidates", "reason"),
    [
        ({"nodes": 0, "allowed": 0}, "exact", 0, "no graph"),
        ({"nodes": 0, "allowed": MANY}, "exact", 0, "no graph"),
        ({"allowed": 10}, "exact", 0, "no more allowed than the limit"),
        ({"allowed": 0}, "exact", 0, "no more allowed than the limit"),
        ({"allowed": 11}, "exact", 0, "few allowed"),
        ({"allowed": 4_999}, "exact", 0, "few allowed"),
        ({"allowed": 5_000}, "exact", 0, "exact is faster"),  # 40 * 1,280 >= 1.1 * 5,000
        ({"allowed": 15_238}, "exact", 0, "exact is faster"),  # 40 * 420 >= 1.1 * 15,238
        ({"allowed": 15_239}, "graph", 419, "many allowed"),
        ({"allowed": MANY}, "graph", 64, "all allowed"),
        ({"allowed": MANY // 2}, "graph", 128, "many allowed"),
        ({"allowed": MANY // 2, "kind": "graph"}, "graph", 128, "many allowed"),
        ({"allowed": MANY // 5}, "graph", 320, "many allowed"),
        ({"allowed": MANY - 1}, "graph", 64, "many allowed"),
        ({"allowed": MANY, "limit": 100}, "graph", 242, "all allowed"),
        ({"allowed": MANY, "limit": 10_000}, "exact", 0, "exact is faster"),
        ({"allowed": MANY, "limit": 10_000, "kind": "graph"}, "graph", 20_042, "all allowed"),
        ({"allowed": MANY, "limit": 60_000, "kind": "graph"}, "exact", 0, "most of them needed"),
        ({"nodes": 2_560, "allowed": 2_560}, "exact", 0, "exact is faster"),  # 40 * 64
        ({"nodes": 2_561, "allowed": 2_561}, "graph", 64, "all allowed"),
        ({"nodes": 65, "allowed": 65, "kind": "graph"}, "graph", 64, "all allowed"),
        ({"allowed": MANY, "limit": 11}, "graph", 64, "all allowed"),
        ({"allowed": MANY, "limit": 12}, "graph", 66, "all allowed"),
        ({"allowed": MANY, "ef_search": 8}, "graph", 25, "all allowed"),
        ({"nodes": 64, "allowed": 64, "kind": "graph"}, "exact", 0, "most of them needed"),
    ],
)
def test_which_search_is_used(arguments: dict[str, object], method: str, candidates: int, reason: str) -> None:
    choice = choose_method(**({"kind": "auto", "nodes": MANY, "limit": 10, "ef_search": 64} | arguments))  # type: ignore[arg-type]
    assert choice == MethodChoice(method, candidates, reason)


@quick
@given(
    kind=KINDS, nodes=st.integers(0, 10**7), share=st.floats(0, 1), limit=st.integers(1, 10_000),
    ef_search=st.integers(8, 70_000),
)  # fmt: skip
def test_a_graph_is_used_only_for_what_it_can_give(
    kind: str, nodes: int, share: float, limit: int, ef_search: int
) -> None:
    allowed = int(nodes * share)
    choice = choose_method(kind=kind, nodes=nodes, allowed=allowed, limit=limit, ef_search=ef_search)
    if choice.name == "exact":
        assert choice.candidates == 0
        return
    assert nodes > 0
    assert limit < allowed
    assert allowed >= planner.MIN_ALLOWED_SHARE * nodes
    assert max(limit, ef_search) <= choice.candidates < nodes
    expected = complete_prefix(choice.candidates) * allowed / nodes if allowed < nodes else choice.candidates
    assert expected >= limit, "the complete prefix holds fewer allowed candidates than the limit"


@quick
@given(
    nodes=st.integers(1, 10**6), shares=st.tuples(st.floats(0, 1), st.floats(0, 1)), limit=st.integers(1, 500),
    ef_search=st.integers(1, 2_000), kind=KINDS,
)  # fmt: skip
def test_a_narrower_filter_never_has_a_shorter_candidate_list(
    nodes: int, shares: tuple[float, float], limit: int, ef_search: int, kind: str
) -> None:
    narrow, wide = (
        choose_method(kind=kind, nodes=nodes, allowed=int(nodes * share), limit=limit, ef_search=ef_search)
        for share in sorted(shares)
    )
    if narrow.name == wide.name == "graph":
        assert narrow.candidates >= wide.candidates
    if kind == "auto" and narrow.name == "graph":
        assert wide.name == "graph", "a wider filter is quicker by graph still"


@quick
@given(ef_search=st.integers(1, 70_000), limit=st.integers(1, 10_000))
def test_ef_search_is_at_least_the_calibrated_one_and_twice_the_limit(ef_search: int, limit: int) -> None:
    assert ef_search_for(ef_search, limit) >= max(ef_search, 2 * limit)
    assert ef_search_for(ef_search, limit) <= ef_search_for(ef_search, limit + 1)


@pytest.mark.parametrize(("candidates", "complete"), [(1, 1), (2, 1), (4, 3), (64, 48), (100, 75), (101, 75)])
def test_three_quarters_of_a_candidate_list_count_as_complete(candidates: int, complete: int) -> None:
    assert complete_prefix(candidates) == complete


@pytest.mark.parametrize(
    ("kind", "vectors", "dimension", "had", "is_wanted"),
    [
        ("exact", 10**9, 384, True, False),
        ("graph", 0, 384, True, False),
        ("graph", 1, 1, False, True),
        ("auto", 26_041, 384, False, False),
        ("auto", 26_042, 384, False, True),
        ("auto", 13_020, 384, True, False),
        ("auto", 13_021, 384, True, True),
        ("auto", 4_999, 65_536, False, False),
        ("auto", 5_000, 65_536, False, True),
        ("auto", 2_499, 65_536, True, False),
        ("auto", 2_500, 65_536, True, True),
        ("auto", 9_999_999, 1, False, False),
        ("auto", 10_000_000, 1, False, True),
    ],
)
def test_which_indexes_are_to_have_a_graph(kind: str, vectors: int, dimension: int, had: bool, is_wanted: bool) -> None:
    graph_wanted, reason = wants_graph(kind, vectors, dimension, has_graph=had)
    assert graph_wanted is is_wanted
    assert reason == "requested" if kind != "auto" else f"{graph_threshold(dimension):,}" in reason


@quick
@given(kind=KINDS, vectors=st.integers(0, 10**7), more=st.integers(0, 10**6), dimension=st.integers(1, 65_536))
def test_an_index_that_grows_or_has_a_graph_keeps_wanting_one(
    kind: str, vectors: int, more: int, dimension: int
) -> None:
    had = wants_graph(kind, vectors, dimension, has_graph=True)[0]
    not_had = wants_graph(kind, vectors, dimension, has_graph=False)[0]
    assert had >= not_had
    assert wants_graph(kind, vectors + more, dimension, has_graph=False)[0] >= not_had
    assert wants_graph(kind, vectors + more, dimension, has_graph=True)[0] >= had
    if kind == "auto" and not_had:
        assert wants_graph(kind, -(-vectors // 2), dimension, has_graph=True)[0], "half the size is kept"
    assert (vectors >= graph_threshold(dimension)) == wants_graph("auto", vectors, dimension, has_graph=False)[0]


@pytest.mark.parametrize(
    ("state", "thorough", "what"),
    [
        ({"graph_wanted": False}, False, None),
        ({"graph_wanted": False, "unindexed": 10**6, "deleted": 10**6}, True, None),
        ({"graph_wanted": False, "nodes": 1}, False, "drop"),
        ({"unindexed": 999}, False, None),
        ({"unindexed": 1_000}, False, "build"),
        ({"unindexed": 0}, True, None),
        ({"unindexed": 1}, True, "build"),
        ({"nodes": 10_000, "unindexed": 999}, False, None),
        ({"nodes": 10_000, "unindexed": 1_000}, False, "merge"),
        ({"nodes": 20_020, "unindexed": 1_000}, False, None),
        ({"nodes": 20_020, "unindexed": 1_001}, False, "merge"),
        ({"nodes": 100_000, "unindexed": 4_999}, False, None),
        ({"nodes": 100_000, "unindexed": 5_000}, False, "merge"),
        ({"nodes": 1_000_000, "unindexed": 9_999}, False, None),
        ({"nodes": 1_000_000, "unindexed": 10_000}, False, "merge"),
        ({"nodes": 100_000, "unindexed": 0}, True, None),
        ({"nodes": 100_000, "unindexed": 1}, True, "merge"),
        ({"nodes": 100_000, "deleted": 29_999}, False, None),
        ({"nodes": 100_000, "deleted": 30_000}, False, "rebuild"),
        ({"nodes": 100_000, "deleted": 30_000, "unindexed": 10**6}, False, "rebuild"),
        ({"nodes": 3_333, "deleted": 999}, False, None),
        ({"nodes": 3_333, "deleted": 1_000}, False, "rebuild"),
        ({"nodes": 10, "deleted": 2}, True, None),
        ({"nodes": 10, "deleted": 3}, True, "rebuild"),
        ({"nodes": 0, "deleted": 1_000, "unindexed": 5_000}, False, "drop"),
        ({"nodes": 0, "deleted": 999, "unindexed": 5_000}, False, "build"),
        ({"nodes": 0, "deleted": 1, "unindexed": 1}, True, "drop"),
    ],
)
def test_the_next_task_for_a_graph(state: dict[str, int], thorough: bool, what: str | None) -> None:
    numbers = {"nodes": 0, "unindexed": 0, "deleted": 0} | state
    assert next_task(**({"graph_wanted": True} | numbers), thorough=thorough) == what  # type: ignore[arg-type]


@quick
@given(
    nodes=st.integers(0, 10**6), unindexed=st.integers(0, 10**6), deleted=st.integers(0, 10**6), is_wanted=st.booleans()
)
def test_no_task_is_wanted_again_after_it_was_done(nodes: int, unindexed: int, deleted: int, is_wanted: bool) -> None:
    """The tasks are done in turn, as by the maintainer, with *thorough* and without."""
    deleted = min(deleted, nodes + unindexed)
    for thorough in (False, True):
        at, tasks = (nodes, unindexed, deleted), []
        while (
            what := next_task(graph_wanted=is_wanted, nodes=at[0], unindexed=at[1], deleted=at[2], thorough=thorough)
        ) is not None:
            assert what not in tasks
            tasks.append(what)
            size = at[0] + at[1]
            at = (0, size - at[2], 0) if what in ("drop", "rebuild") else (size, 0, at[2])
        if thorough and is_wanted:
            assert at[1] == 0
