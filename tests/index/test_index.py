"""The vector index: every argument of a search against float64, the lock around it, and how it follows the file."""

import asyncio
import itertools
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import memstore
from memstore import Store
from memstore.index.engine_selector import FAISS_FROM
from memstore.index.exact import ExactIndex
from memstore.index.faiss_engine import FaissEngine
from memstore.index.numpy_engine import NumpyEngine
from memstore.index.protocol import NEVER, Engine, IndexEntries, SearchResult, SearchScope, VectorStorage
from memstore.index.rwlock import FairLock
from memstore.index.vector_table import VectorTable, allocate_numpy
from memstore.testing import damage
from memstore.vectors.metrics import index_form
from memstore.vectors.space import Ball, Measure, Metric
from tests.conftest import DIMENSION, vectors
from tests.support.clusters import sql
from tests.support.spaces import angles, ball_distances, placed

METRICS: list[Measure] = ["cosine", "inner_product", "l2", "spherical", Ball(), Ball(0.2)]
WORDS: tuple[Metric, ...] = get_args(Metric)
NOW = 1_000_000
ROOT = Path(__file__).parents[2]
BOUND = 60.0  # seconds

Rows = npt.NDArray[np.float32]


@pytest.fixture(params=["numpy", "faiss"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return NumpyEngine() if request.param == "numpy" else FaissEngine.load()


@pytest.fixture(params=METRICS, ids=str)
def metric(request: pytest.FixtureRequest) -> Measure:
    return request.param


def form(metric: Measure, rows: Rows) -> Rows:
    """Any vectors as an index of *metric* compares them."""
    if isinstance(metric, Ball):
        return placed("hyperbolic", rows, metric.curvature)
    return index_form(metric, rows)


def entries(metric: Measure, rows: Rows, keys: Any = None, namespaces: Any = 1, expiries: Any = NEVER) -> IndexEntries:
    count = len(rows)
    all_keys = np.arange(1, count + 1) if keys is None else np.asarray(keys)
    return IndexEntries(
        all_keys.astype(np.int64),
        np.broadcast_to(np.asarray(namespaces, dtype=np.int64), count).copy(),
        np.broadcast_to(np.asarray(expiries, dtype=np.int64), count).copy(),
        form(metric, np.asarray(rows, dtype=np.float32)),
    )


def index_of(metric: Measure, contents: IndexEntries) -> ExactIndex:
    index = ExactIndex(contents.rows.shape[1], metric)
    index.put(contents)
    return index


def closeness(metric: Measure, query: Rows, rows: Rows) -> npt.NDArray[np.float64]:
    """The order of a search in float64, not squeezed into a score: higher is closer."""
    wide, query_rows = rows.astype(np.float64), query.astype(np.float64)
    if isinstance(metric, Ball):
        return -ball_distances(query_rows, wide, metric.curvature)
    if metric == "spherical":
        return -angles(query_rows, wide)
    if metric == "l2":
        return -np.sqrt(((wide - query_rows) ** 2).sum(axis=1))
    if metric == "cosine":  # index form has norm 1 up to the rounding of float32
        return wide @ query_rows / (np.linalg.norm(wide, axis=1) * np.linalg.norm(query_rows))
    return wide @ query_rows


def documented(metric: Measure, close: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    if metric == "spherical":
        return 1 + close / np.pi
    return 1 / (1 - close) if metric == "l2" or isinstance(metric, Ball) else close


def by_key(contents: IndexEntries) -> dict[int, tuple[int, int, bytes]]:
    """Namespace, expiry and vector of each key."""
    return {
        int(key): (int(namespace), int(expiry), row.tobytes())
        for key, namespace, expiry, row in zip(*contents, strict=True)
    }


def in_scope(contents: IndexEntries, scope: SearchScope) -> list[int]:
    """The places a search may return, one by one."""
    return [
        place
        for place, (key, (namespace, expiry, _)) in enumerate(by_key(contents).items())
        if expiry > scope.now
        and (scope.namespaces is None or namespace in scope.namespaces)
        and (scope.allowed is None or key in scope.allowed)
        and (scope.excluded is None or key not in scope.excluded)
    ]


def assert_right(
    metric: Measure,
    contents: IndexEntries,
    query: Rows,
    limit: int,
    scope: SearchScope,
    result: SearchResult,
) -> None:
    """The answer is the nearest by float64; entries nearer to each other than 1e-5 may change places."""
    places = in_scope(contents, scope)
    assert result.allowed_count == len(places)
    assert len(result.keys) == len(result.scores) == min(limit, len(places))
    assert len(set(result.keys.tolist())) == len(result.keys)
    close = dict(
        zip(contents.keys[places].tolist(), closeness(metric, query, contents.rows[places]).tolist(), strict=True)
    )
    best = sorted(close.values(), reverse=True)
    size = max((abs(value) for value in best), default=0.0) if metric == "l2" or isinstance(metric, Ball) else 1.0
    if metric == "inner_product" and places:
        size = float(np.linalg.norm(query.astype(float)) * np.linalg.norm(contents.rows.astype(float), axis=1).max())
    for place, key in enumerate(result.keys.tolist()):
        assert key in close, f"{key} is out of scope"
        assert close[key] >= best[place] - 1e-5 * size, f"{key} at {place}: {close[key]}, the best is {best[place]}"
    scored = documented(metric, np.array([close[key] for key in result.keys.tolist()]))
    np.testing.assert_allclose(result.scores, scored, rtol=1e-9, atol=1e-12)
    assert (np.diff(result.scores) <= 0).all()


def against_the_query(rng: np.random.Generator, count: int = 600, dimension: int = 12) -> tuple[Rows, Rows]:
    """A query, and rows of which the first half is far nearer to it than the other."""
    query = rng.standard_normal(dimension).astype(np.float32)
    near_rows = query + 0.2 * rng.standard_normal((count // 2, dimension))
    far = -query + 0.5 * rng.standard_normal((count // 2, dimension))
    return query, np.concatenate([near_rows, far]).astype(np.float32)


HALF = 300
NAMESPACES = {"namespaces": [1] * HALF + [2, 3] * (HALF // 2)}
SCOPES: dict[str, tuple[dict[str, Any], SearchScope]] = {
    "everything": ({}, SearchScope(now=NOW)),
    "namespaces": (NAMESPACES, SearchScope(now=NOW, namespaces=np.array([2, 5]))),
    "two namespaces": (NAMESPACES, SearchScope(now=NOW, namespaces=np.array([3, 2]))),
    "no such namespace": ({}, SearchScope(now=NOW, namespaces=np.array([9]))),
    "no namespace": ({}, SearchScope(now=NOW, namespaces=np.empty(0, dtype=np.int64))),
    "allowed": ({}, SearchScope(now=NOW, allowed=np.arange(2 * HALF, HALF + 50, -3))),
    "allowed, some unknown": ({}, SearchScope(now=NOW, allowed=np.array([0, 5, 599, 600, 601, 10**9, -4]))),
    "none allowed": ({}, SearchScope(now=NOW, allowed=np.empty(0, dtype=np.int64))),
    "only unknown allowed": ({}, SearchScope(now=NOW, allowed=np.array([601, 10**12]))),
    "excluded": ({}, SearchScope(now=NOW, excluded=np.arange(1, HALF + 20))),
    "excluded, some unknown": ({}, SearchScope(now=NOW, excluded=np.array([-1, 1, 2, 3, 10**9]))),
    "expired": ({"expiries": [NOW - 1] * 100 + [NOW] * 200 + [NOW + 1] * HALF}, SearchScope(now=NOW)),
    "all expired": ({"expiries": NOW}, SearchScope(now=NOW)),
    "not yet expired": ({"expiries": NOW}, SearchScope(now=NOW - 1)),
    "all at once": (
        {"namespaces": [1, 2] * HALF, "expiries": [NOW, NOW + 1, NEVER] * (2 * HALF // 3)},
        SearchScope(now=NOW, namespaces=np.array([2]), allowed=np.arange(100, 500), excluded=np.arange(90, 320)),
    ),
}


@pytest.mark.parametrize("which", SCOPES)
@pytest.mark.parametrize("limit", [1, 7, 299, 300, 10_000])
def test_a_search_returns_the_nearest_of_what_its_scope_allows(
    engine: Engine, metric: Measure, which: str, limit: int, rng: np.random.Generator
) -> None:
    query, rows = against_the_query(rng)
    columns, scope = SCOPES[which]
    contents = entries(metric, rows, **columns)
    index = index_of(metric, contents)
    query_rows = form(metric, query[None])
    (result,) = index.search(engine, query_rows, limit, scope)
    assert_right(metric, contents, query_rows[0], limit, scope, result)


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 19, 20, 21, 33, 70])
@pytest.mark.parametrize("filtered", [False, True])
def test_many_queries_are_each_answered_as_if_alone(
    engine: Engine, metric: Measure, count: int, filtered: bool, rng: np.random.Generator
) -> None:
    _, rows = against_the_query(rng)
    contents = entries(metric, rows)
    index = index_of(metric, contents)
    queries = form(metric, rng.standard_normal((count, rows.shape[1])).astype(np.float32))
    scope = SearchScope(now=NOW, allowed=np.arange(1, 600, 7)) if filtered else SearchScope(now=NOW)
    answers = index.search(engine, queries, 9, scope)
    assert len(answers) == count
    for query, result in zip(queries, answers, strict=True):
        assert_right(metric, contents, query, 9, scope, result)


def test_no_query_and_an_empty_index_find_nothing(engine: Engine, metric: Measure) -> None:
    index = ExactIndex(3, metric)
    query_rows = form(metric, np.ones((2, 3), dtype=np.float32))
    assert [len(result.keys) for result in index.search(engine, query_rows, 5, SearchScope(now=NOW))] == [0, 0]
    index.put(entries(metric, np.ones((1, 3), dtype=np.float32)))
    index.remove(np.array([1]))
    assert [result.allowed_count for result in index.search(engine, query_rows, 5, SearchScope(now=NOW))] == [0, 0]


@pytest.mark.parametrize(("dimension", "count"), [(16, 1), (16, 40), (384, 400), (4_096, 20), (8_192, 16)])
def test_nearly_equal_vectors_far_from_the_origin_keep_their_order_under_l2(
    engine: Engine, dimension: int, count: int, rng: np.random.Generator
) -> None:
    """Where |q|² - 2qx + |x|² would cancel: FAISS goes over to it at many queries, or at many numbers in them."""
    base = (1_000 * rng.standard_normal(dimension)).astype(np.float32)
    away = 0.02 * np.arange(1, 41)[:, None] * rng.standard_normal((40, dimension))
    contents = entries("l2", (base + away).astype(np.float32)[::-1])
    best = np.sort(-closeness("l2", base, contents.rows))[:5]
    for result in index_of("l2", contents).search(engine, np.stack([base] * count), 5, SearchScope(now=NOW)):
        got = np.sort(-closeness("l2", base, contents.rows[result.keys - 1]))
        np.testing.assert_allclose(got, best, rtol=1e-4)


def test_equal_scores_come_in_the_order_of_their_keys(engine: Engine, metric: Measure) -> None:
    rows = np.ones((9, 4), dtype=np.float32)
    index = index_of(metric, entries(metric, rows, keys=[5, 3, 9, 1, 7, 2, 8, 6, 4]))
    (result,) = index.search(engine, form(metric, rows[:1]), 9, SearchScope(now=NOW))
    assert result.keys.tolist() == list(range(1, 10))


# -- beyond float32


EXTREMES = {
    "huge": [1e20 * step for step in range(1, 30)],
    "as large as float32 is": [3.0e38 * (1 - step / 100) for step in range(29)],
    "tiny": [1e-25 * step for step in range(1, 30)],
    "denormal": [1e-40 * step for step in range(1, 30)],
    "huge and tiny": [10.0 ** (step - 30) for step in range(0, 66, 3)],
    "with zeros": [0.0, 0.0, 1e-25, 2e-25, 3e30],
}


@pytest.mark.parametrize("metric", ["inner_product", "l2"])
@pytest.mark.parametrize("which", EXTREMES)
@pytest.mark.parametrize("component", [0.0, 1e-25, 1.0, 1e20, 3e38])
@pytest.mark.parametrize("count", [1, 24])
def test_huge_and_tiny_vectors_rank_as_in_float64_and_none_is_omitted(
    engine: Engine, metric: Measure, which: str, component: float, count: int, rng: np.random.Generator
) -> None:
    direction = np.abs(rng.standard_normal(6)) + 0.5
    rows = (np.array(EXTREMES[which])[:, None] * (direction / direction.max())).astype(np.float32)
    contents = entries(metric, rng.permutation(rows))
    query = (np.float32(component) * np.ones(6, dtype=np.float32)).astype(np.float32)
    index = index_of(metric, contents)
    for limit in (3, len(rows)):
        for allowed in (None, contents.keys[::2]):
            scope = SearchScope(now=NOW, allowed=allowed)
            answers = index.search(engine, np.stack([query] * count), limit, scope)
            close = closeness(metric, query, contents.rows)
            places = in_scope(contents, scope)
            best = np.sort(close[places])[::-1][: len(answers[0].keys)]
            for result in answers:
                assert len(result.keys) == min(limit, len(places)), "short"
                assert np.isfinite(result.scores).all()
                got = np.sort(close[result.keys - 1])[::-1]
                np.testing.assert_allclose(got, best, rtol=1e-6, atol=0)


# -- arrays


def changes(*verbs: str) -> st.SearchStrategy[list[tuple[str, list[int]]]]:
    keys = st.lists(st.integers(1, 30), unique=True, max_size=12)
    return st.lists(st.tuples(st.sampled_from(verbs), keys), max_size=25)


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    changes=changes("put", "put", "remove"),
    lowest=st.sampled_from([0, 1, 10_000]),
    metric=st.sampled_from(METRICS),
    seed=st.integers(0),
)
def test_any_sequence_of_puts_and_removals_leaves_the_entries_that_were_put_last(
    changes: list[tuple[str, list[int]]], lowest: int, metric: Measure, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    index = ExactIndex(4, metric)
    expected: dict[int, tuple[int, int, bytes]] = {}
    for verb, numbers in changes:
        keys = np.array(numbers, dtype=np.int64) + lowest
        if verb == "remove":
            index.remove(keys)
            for key in keys.tolist():
                expected.pop(key, None)
        else:
            new = entries(
                metric,
                rng.standard_normal((len(keys), 4)).astype(np.float32).reshape(-1, 4),
                keys=keys,
                namespaces=rng.integers(1, 4, len(keys)),
                expiries=NOW + rng.integers(-1, 3, len(keys)),
            )
            index.put(new)
            expected |= by_key(new)
        assert len(index) == len(expected)
        contents = index.table.entries()
        assert by_key(contents) == expected
        every = np.arange(lowest - 2, lowest + 45)
        places = index.table.find(every)
        assert {int(k): int(p) for k, p in zip(every, places, strict=True) if p >= 0} == {
            int(key): place for place, key in enumerate(contents.keys)
        }
        query = form(metric, rng.standard_normal((1, 4)).astype(np.float32))
        scope = SearchScope(now=NOW, namespaces=np.array([1, 3]), excluded=np.array([lowest + 5, lowest + 6]))
        (result,) = index.search(NumpyEngine(), query, 5, scope)
        assert_right(metric, contents, query[0], 5, scope, result)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_memory_is_extended_in_place_unless_there_is_a_view_of_it(dtype: str) -> None:
    rng = np.random.default_rng(1)
    table = VectorTable(partial(allocate_numpy, dtype, 4))
    expected = rng.standard_normal((2_000, 4)).astype(dtype).astype(np.float32)

    def put(first: int, last: int) -> None:
        keys = np.arange(first, last)
        table.put(IndexEntries(keys, keys, keys, expected[first:last]))

    put(0, 300)
    first = table.storage.rows
    view = table.rows
    put(300, 700)
    assert table.storage.rows is not first
    assert np.array_equal(view, expected[:300])
    del view, first
    storage_id = id(table.storage)
    put(700, 2_000)
    assert id(table.storage) == storage_id
    assert np.array_equal(table.rows, expected)


async def test_memory_that_grows_after_faiss_was_loaded_can_be_scanned_by_faiss(
    path: Path, rng: np.random.Generator
) -> None:
    async with memstore.open(
        path, dimension=DIMENSION, index=memstore.IndexOptions(vector_type="float16", kind="exact")
    ) as store:
        await store.memories.add_many([{"content": "x", "embedding": v} for v in vectors(rng, 100)])
        await store.memories.search(np.ones(DIMENSION, np.float32))
        assert store._follower.indexes.by_kind["memory"].table.storage.scan is None
        store._follower.indexes.engines.engine = FaissEngine.load()
        await store.memories.add_many([{"content": "x", "embedding": v} for v in vectors(rng, 1_000)])
        assert store._follower.indexes.by_kind["memory"].table.storage.scan is not None
        assert await store.check() == []


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    changes=changes("put", "put", "same", "remove", "pin", "unpin", "move"),
    sparse=st.booleans(),
    dtype=st.sampled_from(["float32", "float16"]),
    seed=st.integers(0),
)
def test_pinned_positions_keep_their_vectors_and_deleted_entries_are_in_nothing(
    changes: list[tuple[str, list[int]]], sparse: bool, dtype: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    table = VectorTable(partial(allocate_numpy, dtype, 4))
    expected: dict[int, tuple[int, int, bytes]] = {}
    pinned: list[bytes] = []
    factor = 10**9 if sparse else 1
    for verb, numbers in changes:
        keys = np.array(numbers, dtype=np.int64) * factor
        if verb == "remove":
            table.remove(keys)
            for key in keys.tolist():
                expected.pop(key, None)
        elif verb == "pin":
            assert table.pin() == table.size
            pinned = [row.tobytes() for row in table.rows]
        elif verb == "unpin":
            table.unpin()
            assert (table.deleted, table.size) == (0, len(expected))
            pinned = []
        elif verb == "move":
            table.replace_storage(VectorStorage(np.empty((len(table.storage.rows) + 3, 4), dtype=dtype)))
        else:
            old = [np.frombuffer(expected[k][2], dtype) if k in expected else None for k in keys.tolist()]
            new_rows = rng.standard_normal((len(keys), 4)).astype(dtype).astype(np.float32)
            if verb == "same":
                new_rows = np.array([f if o is None else o for f, o in zip(new_rows, old, strict=True)], np.float32)
            new = IndexEntries(
                keys, rng.integers(1, 4, len(keys)), NOW + rng.integers(-1, 3, len(keys)), new_rows.reshape(-1, 4)
            )
            before, deleted_before = table.size, table.deleted
            table.put(new)
            if verb == "same":
                assert (table.deleted, table.size) == (deleted_before, before + sum(o is None for o in old))
            expected |= by_key(new._replace(rows=new.rows.astype(dtype)))
        assert len(table) == len(expected) == table.size - table.deleted == int(table.live.sum())
        assert [row.tobytes() for row in table.rows[: len(pinned)]] == pinned
        contents = table.entries()
        assert by_key(contents) == expected
        every = np.arange(-1, 32) * factor
        places = {int(k): int(p) for k, p in zip(every, table.find(every), strict=True) if p >= 0}
        assert places.keys() == expected.keys()
        assert all(table.keys[place] == key for key, place in places.items())
        for scope in (
            SearchScope(now=NOW - 5),
            SearchScope(now=NOW, namespaces=np.array([1, 3])),
            SearchScope(now=NOW, allowed=every[::2], excluded=every[:9]),
            SearchScope(now=NOW + 1, excluded=every[5:20]),
        ):
            allowed = table.allowed(scope)
            positions = np.arange(table.size) if allowed is None else allowed
            assert (np.diff(positions) > 0).all()
            assert set(table.keys[positions]) == set(contents.keys[in_scope(contents, scope)])


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    reserved=st.lists(st.integers(1, 20), unique=True, max_size=15),
    valid=st.sets(st.integers(1, 20)),
    loaded=st.lists(st.integers(1, 25), unique=True, max_size=25),
    step=st.integers(1, 7),
)
def test_loaded_entries_go_to_their_reserved_positions_and_all_others_behind_them(
    reserved: list[int], valid: set[int], loaded: list[int], step: int
) -> None:
    table = VectorTable(partial(allocate_numpy, "float32", 2))
    table.begin_load(np.array(reserved, dtype=np.int64), np.array([key in valid for key in reserved], dtype=bool))
    for first in range(0, len(loaded), step):
        keys = np.array(loaded[first : first + step], dtype=np.int64)
        rows = np.stack([keys, -keys], axis=1).astype(np.float32)
        table.load(IndexEntries(keys, keys + 100, np.full(len(keys), NEVER), rows))
    table.end_load()
    assert len(table) == len(loaded)
    assert table.pinned == len(reserved)
    contents = table.entries()
    assert sorted(contents.keys.tolist()) == sorted(loaded)
    assert (contents.rows[:, 0] == contents.keys).all()
    assert (contents.namespaces == contents.keys + 100).all()
    for place, key in enumerate(reserved):
        if key in valid and key in loaded:
            assert table.find(np.array([key])).tolist() == [place]
        else:
            assert not table.live[place]
    assert table.deleted == len(reserved) - len(valid & set(reserved) & set(loaded))
    table.unpin()
    assert sorted(table.entries().keys.tolist()) == sorted(loaded)


# -- the lock


def until(condition: Callable[[], bool]) -> None:
    deadline = monotonic() + BOUND
    while not condition():
        assert monotonic() < deadline, "waited too long"
        sleep(0.001)


@contextmanager
def threads() -> Iterator[Callable[..., object]]:
    """Start functions on threads; fail if one of them fails, or does not end soon after the block."""
    with ThreadPoolExecutor(8) as pool:
        futures: list[Future[None]] = []
        yield lambda function, *arguments: futures.append(pool.submit(function, *arguments))
        for future in futures:
            future.result(BOUND)


class LockLog:
    """A lock, and the names of the accesses that it granted, in order."""

    def __init__(self) -> None:
        self.lock = FairLock()
        self.granted: list[str] = []

    def read(self, name: str, inside: Callable[[], object] = lambda: None) -> None:
        with self.lock.shared():
            self.granted.append(name)
            inside()

    def write(self, name: str, inside: Callable[[], object] = lambda: None) -> None:
        with self.lock.exclusive():
            self.granted.append(name)
            inside()

    def wait_for(self, *, granted: int, waiting: int) -> None:
        until(lambda: (len(self.granted), len(self.lock._waiting)) == (granted, waiting))


def test_readers_share_the_lock() -> None:
    log, barrier = LockLog(), threading.Barrier(4)
    with threads() as start:
        for _ in range(4):
            start(log.read, "reader", partial(barrier.wait, BOUND))


def test_a_writer_is_alone() -> None:
    lock, inside = FairLock(), {"read": 0, "write": 0}
    guard = threading.Lock()

    def step(kind: str, by: int) -> None:
        with guard:
            inside[kind] += by
            assert inside["write"] == 0 or inside == {"read": 0, "write": 1}, inside

    def read() -> None:
        for _ in range(200):
            with lock.shared():
                step("read", 1)
                sleep(0)
                step("read", -1)

    def write() -> None:
        for turn in range(200):
            with lock.exclusive() as hold:
                step("write", 1)
                sleep(0)
                step("write", -1)
                if turn % 3 == 0:
                    hold.downgrade()
                    step("read", 1)
                    sleep(0)
                    step("read", -1)

    with threads() as start:
        for function in (read, read, read, write, write):
            start(function)
    assert inside == {"read": 0, "write": 0}


def test_readers_that_come_after_a_writer_wait_behind_it() -> None:
    log, leave = LockLog(), threading.Event()
    with threads() as start:
        start(log.read, "first reader", partial(leave.wait, BOUND))
        log.wait_for(granted=1, waiting=0)
        start(log.write, "writer")
        log.wait_for(granted=1, waiting=1)
        start(log.read, "late reader")
        start(log.read, "late reader")
        log.wait_for(granted=1, waiting=3)
        leave.set()
    assert log.granted == ["first reader", "writer", "late reader", "late reader"]


def test_readers_that_come_before_a_writer_are_granted_together_before_it() -> None:
    log, leave, barrier = LockLog(), threading.Event(), threading.Barrier(2)
    with threads() as start:
        start(log.write, "first writer", partial(leave.wait, BOUND))
        log.wait_for(granted=1, waiting=0)
        start(log.read, "reader", partial(barrier.wait, BOUND))
        start(log.read, "reader", partial(barrier.wait, BOUND))
        log.wait_for(granted=1, waiting=2)
        start(log.write, "late writer")
        log.wait_for(granted=1, waiting=3)
        leave.set()
    assert log.granted == ["first writer", "reader", "reader", "late writer"]


def test_a_downgrade_grants_waiting_readers_and_no_writer() -> None:
    log, go, leave = LockLog(), threading.Event(), threading.Event()

    def downgrade() -> None:
        with log.lock.exclusive() as hold:
            log.granted.append("first writer")
            go.wait(BOUND)
            hold.downgrade()
            leave.wait(BOUND)
            log.granted.append("downgraded")

    with threads() as start:
        start(downgrade)
        log.wait_for(granted=1, waiting=0)
        start(log.read, "reader")
        log.wait_for(granted=1, waiting=1)
        start(log.write, "late writer")
        log.wait_for(granted=1, waiting=2)
        go.set()
        log.wait_for(granted=2, waiting=1)
        sleep(0.05)
        leave.set()
    assert log.granted == ["first writer", "reader", "downgraded", "late writer"]


def test_a_block_that_raises_releases_the_lock() -> None:
    lock = FairLock()
    for enter in (lock.shared, lock.exclusive):
        with pytest.raises(ZeroDivisionError), enter():
            1 / 0  # noqa: B018
    with pytest.raises(ZeroDivisionError), lock.exclusive() as hold:
        hold.downgrade()
        1 / 0  # noqa: B018
    with lock.exclusive():
        pass


# -- following the file


async def ids_of_hits(face: Any, query: Rows) -> list[str]:
    return [hit.memory.id for hit in await face.memories.search(query, limit=100)]


@pytest.fixture
def six(rng: np.random.Generator) -> Rows:
    return vectors(rng, 6)


async def filled(store: Store, six: Rows) -> Store:
    """Six memories with the ids 0 to 5 and keys 1 to 6, in the index."""
    await store.memories.add_many([{"content": str(i), "id": str(i), "embedding": row} for i, row in enumerate(six)])
    await store.assemblies.add("g", members=["0", "1"])
    assert sorted(await ids_of_hits(store, six[0])) == list("012345")
    return store


async def test_the_index_is_current_when_a_verb_returns(store: Store, six: Rows) -> None:
    await filled(store, six)

    async def entry_count() -> int:
        return (await store.stats()).indexed

    assert await entry_count() == 7
    await store.memories.add("new", id="new", embedding=six[0])
    assert await entry_count() == 8
    await store.memories.update("new", embedding=None)
    assert await entry_count() == 7
    async with store.transaction() as tx:
        await tx.memories.delete("5")
        assert await entry_count() == 7
    assert await entry_count() == 6
    await store.assemblies.delete("g")
    assert await entry_count() == 5
    assert store._follower.indexes.applied == await store._database.read(lambda c: _top(c))


def _top(connection: Any) -> int:
    (top,) = connection.exec_driver_sql("SELECT seq FROM sqlite_sequence WHERE name = 'change_log'").one()
    return int(top)


ONES = np.ones(DIMENSION, dtype=np.float32).tobytes()
UNLOGGED = (
    "UPDATE memory_vector SET vector = :ones WHERE memory_pk = 4",
    "DELETE FROM change_log WHERE seq > :top",
)


@pytest.mark.parametrize(
    "sign",
    [
        ("UPDATE store_meta SET epoch = 'another'", "UPDATE sqlite_sequence SET seq = :top WHERE name = 'change_log'"),
        ("UPDATE store_meta SET log_floor = (SELECT seq FROM sqlite_sequence WHERE name = 'change_log')",),
        (
            "DELETE FROM change_log WHERE seq = :top",
            "UPDATE sqlite_sequence SET seq = :top - 1 WHERE name = 'change_log'",
        ),
    ],
    ids=["another epoch", "a log trimmed too far", "an index ahead of the log"],
)
async def test_the_index_is_rebuilt_where_the_log_is_not_enough(
    store: Store, path: Path, six: Rows, caplog: pytest.LogCaptureFixture, sign: tuple[str, ...]
) -> None:
    await filled(store, six)
    caplog.set_level(logging.INFO, "memstore")
    top = store._follower.indexes.applied
    sql(path, *UNLOGGED, *sign, ones=ONES, top=top)
    hits = await store.memories.search(np.ones(8))
    assert hits[0].memory.id == "3"
    assert hits[0].score == pytest.approx(1.0)
    assert "rebuil" in caplog.text
    await store.repair()  # the checksum is unknown, and the composites of what was not logged


COLUMNS = "namespace_pk, id, content, metadata, importance, created_at, updated_at, access_count"
SET_VECTOR_OF_4 = "UPDATE memory_vector SET vector = :ones WHERE memory_pk = 4"
DELETE_VECTOR_OF_5 = "DELETE FROM memory_vector WHERE memory_pk = 5"
RAW: dict[str, tuple[set[str], tuple[str, ...]]] = {
    "a vector updated": (set(), (SET_VECTOR_OF_4,)),
    "a vector replaced": (
        set(),
        ("REPLACE INTO memory_vector (memory_pk, space_pk, vector) VALUES (4, 1, :ones)",),
    ),
    "a vector deleted": ({"4"}, (DELETE_VECTOR_OF_5,)),
    "a vector given to another": (
        {"5"},
        (DELETE_VECTOR_OF_5, "UPDATE memory_vector SET memory_pk = 5 WHERE memory_pk = 6"),
    ),
    "a row deleted": ({"4"}, ("DELETE FROM memory WHERE pk = 5",)),
    "a row replaced": ({"4"}, (f"REPLACE INTO memory ({COLUMNS}) VALUES (1, '4', '', '{{}}', 0.5, 0, 0, 0)",)),
    "a row replaced under its key": (
        {"4"},
        (f"REPLACE INTO memory (pk, {COLUMNS}) VALUES (5, 1, 'new', '', '{{}}', 0.5, 0, 0, 0)",),
    ),
    "an expiry": ({"4"}, ("UPDATE memory SET expires_at = 1 WHERE pk = 5",)),
    "another namespace": (
        {"4"},
        ("INSERT INTO namespace (pk, path) VALUES (7, 'far/')", "UPDATE memory SET namespace_pk = 7 WHERE pk = 5"),
    ),
    "a change undone": (
        set(),
        (
            "SAVEPOINT s",
            "UPDATE memory_vector SET vector = :ones WHERE memory_pk = 5",
            "ROLLBACK TO s",
            SET_VECTOR_OF_4,
        ),
    ),
}
"""Which memories each change removes from searches, and its statements."""


@pytest.mark.parametrize(
    ("which", "foreign_keys"), [*((which, True) for which in RAW), ("a row deleted", False), ("a row replaced", False)]
)
async def test_raw_sql_is_followed(
    path: Path, six: Rows, which: str, foreign_keys: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "memstore")
    removed, statements = RAW[which]
    async with memstore.open(path, dimension=DIMENSION) as store:
        await filled(store, six)
        sql(path, *statements, foreign_keys=foreign_keys, ones=ONES)
        hits = await store.memories.search(np.ones(DIMENSION), limit=100)
        assert {hit.memory.id for hit in hits} == set("012345") - removed
        assert "rebuil" not in caplog.text or not foreign_keys, "the log holds all changes"
        stored = {
            memory.id: memory.embedding async for memory in store.memories.list(where={"embedding": {"$ne": None}})
        }
        assert set(stored) == {hit.memory.id for hit in hits}
        for hit in hits:
            vector = stored[hit.memory.id].astype(float)
            assert hit.score == pytest.approx(vector.sum() / np.linalg.norm(vector) / np.sqrt(DIMENSION), abs=1e-6)
        if "ones" in statements[-1]:
            assert hits[0].memory.id == "3"
            assert hits[0].score == pytest.approx(1.0, abs=1e-6)
        await store.assemblies.search(np.ones(DIMENSION))
        assert {f.kind for f in await store.check()} <= (set() if foreign_keys else {"foreign_key"})
        assert (await store.repair()).remaining == []


@pytest.mark.parametrize("cause", ["damage", "raw SQL"])
async def test_a_transaction_skips_index_entries_of_no_memory(path: Path, six: Rows, cause: str) -> None:
    """REPLACE with foreign keys off deletes a row without a trigger, so the index keeps its key."""
    removed, statements = RAW["a row replaced"] if cause == "raw SQL" else (set(), ())
    async with memstore.open(path, dimension=DIMENSION) as store:
        await filled(store, six)
        sql(path, *statements, foreign_keys=False)
        if cause == "damage":
            await damage(store, "ghost")
        async with store.transaction() as tx:
            expected = sorted(set("012345") - removed)
            assert sorted(await ids_of_hits(tx, np.ones(DIMENSION))) == expected
            await tx.memories.add("new", id="new", embedding=np.ones(DIMENSION))
            assert sorted(await ids_of_hits(tx, np.ones(DIMENSION))) == [*expected, "new"]


@pytest.mark.parametrize(
    ("metric", "value"),
    [("cosine", 0.0), ("spherical", 0.0), ("hyperbolic", 0.4), *itertools.product(WORDS, (np.nan, np.inf))],
)
async def test_an_invalid_stored_vector_is_skipped_by_searches(
    path: Path, six: Rows, metric: Metric, value: float
) -> None:
    six = placed(metric, six)
    async with memstore.open(path, dimension=DIMENSION, metric=metric) as store:
        await filled(store, six)
        bad = np.full(DIMENSION, value, dtype=np.float32).tobytes()
        sql(path, "UPDATE memory_vector SET vector = :bad WHERE memory_pk = 6", bad=bad)
        hits = await store.memories.search(six[0], limit=5)
        assert sorted(hit.memory.id for hit in hits) == list("01234")
        assert np.isfinite([hit.score for hit in hits]).all()
        assert [(finding.kind, finding.id) for finding in await store.check()] == [("unusable", "5")]


async def test_a_key_far_beyond_the_others_is_found(path: Path, six: Rows) -> None:
    """Another tool may choose keys as it likes: a time, a snowflake."""
    async with memstore.open(path, dimension=DIMENSION) as store:
        await filled(store, six)
        row = f"INSERT INTO memory (pk, {COLUMNS}) VALUES (1 << 40, 1, 'far', '', '{{}}', 0.5, 0, 0, 0)"
        sql(path, row, "INSERT INTO memory_vector (memory_pk, space_pk, vector) VALUES (1 << 40, 1, :ones)", ones=ONES)
        assert (await store.memories.search(np.ones(DIMENSION)))[0].memory.id == "far"


async def test_a_search_sees_no_part_of_a_concurrent_change(path: Path, rng: np.random.Generator) -> None:
    """Content and vector change together, over and over, through two stores: a hit never has one without the other."""
    either = vectors(rng, 2)
    async with memstore.open(path, dimension=DIMENSION) as store, memstore.open(path) as other:
        await store.memories.add("0", id="a", embedding=either[0])
        stop = asyncio.Event()

        async def write() -> None:
            for turn in range(120):
                target = store if turn % 3 else other
                await target.memories.update("a", content=str(turn % 2), embedding=either[turn % 2])
            stop.set()

        async def search(searched: Store) -> int:
            search_count = 0
            while not stop.is_set():
                (hit,) = await searched.memories.search(either[0])
                assert hit.memory.embedding.tobytes() == either[int(hit.memory.content)].tobytes()
                assert (hit.score > 0.999) == (hit.memory.content == "0")
                search_count += 1
            return search_count

        async with asyncio.timeout(60):
            _, *search_counts = await asyncio.gather(write(), search(store), search(store), search(other))
        assert min(search_counts) > 5
        assert await store.check() == [] == await other.check()


# -- the import of faiss

IMPORTS = """
import asyncio, sys
import numpy as np
import memstore

async def main(path, engine, count):
    index = memstore.IndexOptions(engine=engine)
    async with memstore.open(path, dimension=4, durability="relaxed", index=index) as store:
        rows = np.random.default_rng(1).standard_normal((count, 4))
        await store.memories.add_many([{"content": "x", "embedding": row} for row in rows])
        assert "faiss" not in sys.modules, "a write loaded it"
        hits = await store.memories.search(rows[0])
        print(hits.plan.engine, "faiss" in sys.modules)

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


@pytest.mark.parametrize(
    ("engine", "count", "expected"),
    [
        ("numpy", FAISS_FROM + 100, "numpy False"),
        ("auto", FAISS_FROM - 1, "numpy False"),
        ("auto", FAISS_FROM, "faiss True" if sys.platform != "darwin" else "numpy False"),
        ("faiss", 1, "faiss True"),
    ],
)
def test_faiss_is_imported_only_when_it_is_used(path: Path, engine: str, count: int, expected: str) -> None:
    command = [sys.executable, "-c", IMPORTS, str(path), engine, str(count)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert ran.stdout.strip() == expected, ran.stderr
