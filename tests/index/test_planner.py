"""The planner: which search is asked, with what effort, and what a graph needs, at each border of its rules."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memstore.index import planner
from memstore.index.planner import Choice, choose, effort_for, fold_from, need, trusted, wanted, worth

KINDS = st.sampled_from(["auto", "graph", "exact"])
MANY = 100_000
quick = settings(max_examples=150, deadline=None, derandomize=True)


@pytest.mark.parametrize(
    ("asked", "method", "effort", "reason"),
    [
        ({"nodes": 0, "allowed": 0}, "exact", 0, "no graph"),
        ({"nodes": 0, "allowed": MANY}, "exact", 0, "no graph"),
        ({"allowed": 10}, "exact", 0, "no more allowed than wanted"),
        ({"allowed": 0}, "exact", 0, "no more allowed than wanted"),
        ({"allowed": 11}, "exact", 0, "few allowed"),
        ({"allowed": 4_999}, "exact", 0, "few allowed"),
        ({"allowed": 5_000}, "exact", 0, "exact is quicker"),  # 40 * 1,280 >= 1.1 * 5,000
        ({"allowed": 15_238}, "exact", 0, "exact is quicker"),  # 40 * 420 >= 1.1 * 15,238
        ({"allowed": 15_239}, "graph", 419, "many allowed"),
        ({"allowed": MANY}, "graph", 64, "all allowed"),
        ({"allowed": MANY // 2}, "graph", 128, "many allowed"),
        ({"allowed": MANY // 2, "kind": "graph"}, "graph", 128, "many allowed"),
        ({"allowed": MANY // 5}, "graph", 320, "many allowed"),
        ({"allowed": MANY - 1}, "graph", 64, "many allowed"),
        ({"allowed": MANY, "limit": 100}, "graph", 242, "all allowed"),
        ({"allowed": MANY, "limit": 10_000}, "exact", 0, "exact is quicker"),
        ({"allowed": MANY, "limit": 10_000, "kind": "graph"}, "graph", 20_042, "all allowed"),
        ({"allowed": MANY, "limit": 60_000, "kind": "graph"}, "exact", 0, "most of them wanted"),
        ({"nodes": 2_560, "allowed": 2_560}, "exact", 0, "exact is quicker"),  # 40 * 64
        ({"nodes": 2_561, "allowed": 2_561}, "graph", 64, "all allowed"),
        ({"nodes": 65, "allowed": 65, "kind": "graph"}, "graph", 64, "all allowed"),
        ({"nodes": 64, "allowed": 64, "kind": "graph"}, "exact", 0, "most of them wanted"),
    ],
)
def test_which_search_is_asked(asked: dict[str, object], method: str, effort: int, reason: str) -> None:
    choice = choose(**({"kind": "auto", "nodes": MANY, "limit": 10, "effort": 64} | asked))  # type: ignore[arg-type]
    assert choice == Choice(method, effort, reason)


@quick
@given(
    kind=KINDS, nodes=st.integers(0, 10**7), share=st.floats(0, 1), limit=st.integers(1, 10_000),
    effort=st.integers(8, 70_000),
)  # fmt: skip
def test_a_graph_is_asked_only_for_what_it_can_give(
    kind: str, nodes: int, share: float, limit: int, effort: int
) -> None:
    allowed = int(nodes * share)
    choice = choose(kind=kind, nodes=nodes, allowed=allowed, limit=limit, effort=effort)
    if choice.method == "exact":
        assert choice.effort == 0
        return
    assert nodes > 0
    assert limit < allowed
    assert allowed >= planner.NARROWEST * nodes
    assert max(limit, effort) <= choice.effort < nodes
    expected = trusted(choice.effort) * allowed / nodes if allowed < nodes else choice.effort
    assert expected >= limit, "of the candidates that are trusted, fewer are allowed than are wanted"


@quick
@given(
    nodes=st.integers(1, 10**6), shares=st.tuples(st.floats(0, 1), st.floats(0, 1)), limit=st.integers(1, 500),
    effort=st.integers(1, 2_000), kind=KINDS,
)  # fmt: skip
def test_the_narrower_a_filter_the_longer_the_list(
    nodes: int, shares: tuple[float, float], limit: int, effort: int, kind: str
) -> None:
    narrow, wide = (
        choose(kind=kind, nodes=nodes, allowed=int(nodes * share), limit=limit, effort=effort)
        for share in sorted(shares)
    )
    if narrow.method == wide.method == "graph":
        assert narrow.effort >= wide.effort
    if kind == "auto" and narrow.method == "graph":
        assert wide.method == "graph", "a wider filter is quicker by graph still"


@pytest.mark.parametrize(
    ("effort", "limit", "candidates"),
    [(64, 1, 64), (64, 10, 64), (64, 11, 64), (64, 12, 66), (64, 100, 242), (8, 1, 8), (8, 10, 25), (1_024, 10, 1_024)],
)
def test_the_effort_grows_with_what_is_wanted(effort: int, limit: int, candidates: int) -> None:
    assert effort_for(effort, limit) == candidates


@quick
@given(effort=st.integers(1, 70_000), limit=st.integers(1, 10_000))
def test_the_effort_is_never_less_than_what_was_measured_nor_than_twice_what_is_wanted(effort: int, limit: int) -> None:
    assert effort_for(effort, limit) >= max(effort, 2 * limit)
    assert effort_for(effort, limit) <= effort_for(effort, limit + 1)


@pytest.mark.parametrize(("candidates", "some"), [(1, 1), (2, 1), (4, 3), (64, 48), (100, 75), (101, 75)])
def test_the_last_quarter_of_a_list_is_not_trusted(candidates: int, some: int) -> None:
    assert trusted(candidates) == some


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
def test_who_is_to_have_a_graph(kind: str, vectors: int, dimension: int, had: bool, is_wanted: bool) -> None:
    said, reason = wanted(kind, vectors, dimension, had=had)
    assert said is is_wanted
    assert reason == "asked for" if kind != "auto" else f"{worth(dimension):,}" in reason


@quick
@given(kind=KINDS, vectors=st.integers(0, 10**7), more=st.integers(0, 10**6), dimension=st.integers(1, 65_536))
def test_growing_never_costs_a_graph_and_having_one_never_speaks_against_it(
    kind: str, vectors: int, more: int, dimension: int
) -> None:
    had = wanted(kind, vectors, dimension, had=True)[0]
    not_had = wanted(kind, vectors, dimension, had=False)[0]
    assert had >= not_had
    assert wanted(kind, vectors + more, dimension, had=False)[0] >= not_had
    assert wanted(kind, vectors + more, dimension, had=True)[0] >= had
    if kind == "auto" and not_had:
        assert wanted(kind, -(-vectors // 2), dimension, had=True)[0], "half the size is kept"
    assert (vectors >= worth(dimension)) == wanted("auto", vectors, dimension, had=False)[0]


@pytest.mark.parametrize(
    ("state", "whole", "what"),
    [
        ({"wanted": False}, False, None),
        ({"wanted": False, "tail": 10**6, "dead": 10**6}, True, None),
        ({"wanted": False, "nodes": 1}, False, "drop"),
        ({"tail": 999}, False, None),
        ({"tail": 1_000}, False, "build"),
        ({"tail": 0}, True, None),
        ({"tail": 1}, True, "build"),
        ({"nodes": 10_000, "tail": 999}, False, None),
        ({"nodes": 10_000, "tail": 1_000}, False, "fold"),
        ({"nodes": 100_000, "tail": 4_999}, False, None),
        ({"nodes": 100_000, "tail": 5_000}, False, "fold"),
        ({"nodes": 1_000_000, "tail": 9_999}, False, None),
        ({"nodes": 1_000_000, "tail": 10_000}, False, "fold"),
        ({"nodes": 100_000, "tail": 0}, True, None),
        ({"nodes": 100_000, "tail": 1}, True, "fold"),
        ({"nodes": 100_000, "dead": 29_999}, False, None),
        ({"nodes": 100_000, "dead": 30_000}, False, "rebuild"),
        ({"nodes": 100_000, "dead": 30_000, "tail": 10**6}, False, "rebuild"),
        ({"nodes": 3_333, "dead": 999}, False, None),
        ({"nodes": 3_333, "dead": 1_000}, False, "rebuild"),
        ({"nodes": 10, "dead": 2}, True, None),
        ({"nodes": 10, "dead": 3}, True, "rebuild"),
        ({"nodes": 0, "dead": 1_000, "tail": 5_000}, False, "drop"),
        ({"nodes": 0, "dead": 999, "tail": 5_000}, False, "build"),
        ({"nodes": 0, "dead": 1, "tail": 1}, True, "drop"),
    ],
)
def test_what_a_graph_needs(state: dict[str, int], whole: bool, what: str | None) -> None:
    assert need(**({"wanted": True, "nodes": 0, "tail": 0, "dead": 0} | state), whole=whole) == what  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("nodes", "tail"),
    [(0, 1_000), (1, 1_000), (20_000, 1_000), (20_020, 1_001), (200_000, 10_000), (10**7, 10_000)],
)
def test_from_which_tail_on_it_is_folded(nodes: int, tail: int) -> None:
    assert fold_from(nodes) == tail


@quick
@given(nodes=st.integers(0, 10**6), tail=st.integers(0, 10**6), dead=st.integers(0, 10**6), is_wanted=st.booleans())
def test_what_is_to_be_done_comes_to_an_end(nodes: int, tail: int, dead: int, is_wanted: bool) -> None:
    """Each deed done in turn, as a tender does, with *whole* and without: nothing is asked for twice."""
    dead = min(dead, nodes + tail)
    for whole in (False, True):
        at, seen = (nodes, tail, dead), []
        while (what := need(wanted=is_wanted, nodes=at[0], tail=at[1], dead=at[2], whole=whole)) is not None:
            assert what not in seen
            seen.append(what)
            size = at[0] + at[1]
            at = (0, size - at[2], 0) if what in ("drop", "rebuild") else (size, 0, at[2])
        if whole and is_wanted:
            assert at[1] == 0
