"""Invalid and unusual arguments: a memstore error with nothing stored, or exactly the given value.

No argument leads to another error, to an endless call, or to more memory than the argument itself takes. Errors of a
caller's iterable are raised unchanged.
"""

# ruff: noqa: E501 - tables of values read better across

import asyncio
import enum
import fractions
import itertools
import math
import os
import re
from collections import UserDict, UserList
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import memstore
from memstore import FilterError, InvalidError, Memory, MemstoreError, OpenError, Store
from memstore.filters import parse
from memstore.testing import temporary_store
from memstore.validation import text
from memstore.validation.values import MAX_TAGS
from memstore.vectors.encoding import as_embedding
from tests.conftest import DIMENSION
from tests.support.index_options import with_index
from tests.support.programs import run_python

ROOT = Path(__file__).parents[2]
ONES = [1.0] * DIMENSION
HUGE = 10**5_000  # Python refuses to write it out in digits


class CallersError(Exception):
    """What a caller's own class raises."""


NAIVE = datetime(2020, 1, 1)  # noqa: DTZ001


class Evil:
    """Raises in every method."""

    def _raise(self, *_: object, **__: object) -> Any:
        raise CallersError

    __repr__ = __str__ = __array__ = __iter__ = __len__ = __getitem__ = __index__ = __float__ = __eq__ = _raise
    __hash__ = object.__hash__
    mask = property(_raise)


class EvilText(str):
    """A string whose methods return other results."""

    __slots__ = ()

    def encode(self, *_: Any, **__: Any) -> bytes:
        return b""

    def __iter__(self) -> Any:
        return iter(())

    def startswith(self, *_: Any) -> bool:
        return False

    def isascii(self) -> bool:
        return True


class EvilNumber(int):
    def __float__(self) -> float:
        return 7.0

    def __index__(self) -> int:
        return -5

    def __int__(self) -> int:
        return -5


class EvilFloat(float):
    def __float__(self) -> float:
        return math.nan


class EvilDict(dict[str, Any]):
    def items(self) -> Any:
        return [("a", object())]


class HalfAZone(tzinfo):
    """A zone without an offset: Python's own base class raises `NotImplementedError`."""


class OddZone(tzinfo):
    def __init__(self, offset: Any) -> None:
        self._offset = offset

    def utcoffset(self, when: Any) -> Any:
        if isinstance(self._offset, Exception):
            raise self._offset
        return self._offset


class OddTime(datetime):
    def __sub__(self, other: Any) -> Any:
        return "soon"


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    TEA = "tea"


class Changing:
    """An array that is valid at the first conversion only."""

    def __init__(self) -> None:
        self.conversions = 0

    def __array__(self, *_: Any, **__: Any) -> Any:
        self.conversions += 1
        return np.full(DIMENSION, 1.0 if self.conversions == 1 else np.nan)


def cyclic_dict() -> dict[str, Any]:
    cycle: dict[str, Any] = {}
    cycle["a"] = {"b": [cycle]}
    return cycle


def cyclic_list() -> list[Any]:
    cycle: list[Any] = [1.0]
    cycle.append(cycle)
    return cycle


def doubling(levels: int, first: Any, of: Callable[[Any], Any]) -> Any:
    """A value of 2 ** *levels* parts that share memory."""
    for _ in range(levels):
        first = of(first)
    return first


def deep(levels: int) -> dict[str, Any]:
    return doubling(levels, {}, lambda inner: {"a": inner})


TEXTS: list[Any] = [
    b"tea", None, 5, HUGE, Evil(), EvilText("tea"), Word.TEA, "\ud800", "a\udfff", ["tea"], np.str_("tea"), object(),
]  # fmt: skip
IDS = [
    "", "x" * 65_537, "é" * 32_769, "\0", " ", "'; DROP TABLE memory; --", '"', "\ufeff", "\U0010ffff", "a\r\n", "%s",
]  # fmt: skip
TAGS: list[Any] = [
    "tea", b"tea", 5, HUGE, Evil(), {"a": 1}, {""}, {"x" * 1_025}, {"\ud800"}, {5}, [["a"]], {EvilText("a")}, {None},
    itertools.count(), map(str, itertools.count()), [str(i) for i in range(MAX_TAGS + 1)], {"\0"}, {"a\nb"}, ["a", "a"],
    frozenset(), (), iter(["a"]), np.array(["a"]), {Word.TEA},
]  # fmt: skip
METADATA: list[Any] = [
    5, HUGE, Evil(), [], "{}", b"{}", object(), {1: 2}, {None: 1}, {HUGE: 1}, {Evil(): 1}, {"a": HUGE}, {"a": 2**63},
    {"a": -(2**63) - 1}, {"a": 2**63 - 1}, {"a": -(2**63)}, {"a": math.nan}, {"a": [math.inf]}, {"a": -math.inf},
    {"a": 5e-324, "b": 1.7976931348623157e308, "c": -0.0}, {"a": "\0"}, {"\0": 1}, {"a": ["\ud800"]}, {"\udfff": 1},
    {"a": (1, 2)}, {"a": {1, 2}}, {"a": b"x"}, {"a": Evil()}, {"a": Level.LOW}, {"a": Word.TEA}, {EvilText("a"): 1},
    {"a": EvilText("x")}, {"a": EvilNumber(3)}, {"a": EvilFloat(1)}, {"a": EvilDict(a=1)}, EvilDict(a=1),
    MappingProxyType({"a": 1}), UserDict({"a": 1}), {"a": UserDict()}, {"a": UserList()}, {"a": np.float64(1)},
    {"a": np.int64(1)}, {"a": np.ones(2)}, {"a": datetime.now(UTC)}, {"a": Decimal(1)}, cyclic_dict(),
    {"a": cyclic_list()}, deep(99), deep(100), deep(5_000), doubling(90, {}, lambda x: {"a": x, "b": x}),
    {"a": doubling(90, ["x"], lambda x: [x, x])}, {"a": ["x" * 1_000_000] * 101}, {"a": [None] * 100_001},
    dict.fromkeys(map(str, range(40)), "x" * 5_000_000),
    {"": 1, '"': 2, "\\": 3, "a.b": 4, "$eq": 5, "'": 6, "\u2028": 7}, {"a": "'; DROP TABLE memory; --"},
]  # fmt: skip
NUMBERS: list[Any] = [
    math.nan, math.inf, -math.inf, -1, 2, HUGE, -HUGE, "0.5", None, True, Evil(), [0.5], np.array([1, 2]), 1 + 0j,
    EvilNumber(1), EvilFloat(0.5), Decimal("0.5"), np.float64(0.25), np.float32(0.5), 5e-324, -0.0, 1, 0,
    fractions.Fraction(1, 2), datetime.now(UTC), object(), Level.LOW,
]  # fmt: skip
TIMES: list[Any] = [
    5, "2020-01-01", HUGE, Evil(), NAIVE, datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC),
    datetime.min.replace(tzinfo=timezone(timedelta(hours=14))), datetime.max.replace(tzinfo=timezone(-timedelta(hours=14))),
    datetime(2020, 1, 1, tzinfo=HalfAZone()), datetime(2020, 1, 1, tzinfo=OddZone(timedelta(days=2))),
    datetime(2020, 1, 1, tzinfo=OddZone("x")), datetime(2020, 1, 1, tzinfo=OddZone(CallersError())),
    datetime(2020, 1, 1, tzinfo=OddZone(None)), datetime(2020, 1, 1, 0, 0, 0, 1, timezone(timedelta(microseconds=7))),
    OddTime(2020, 1, 1, tzinfo=UTC), datetime(2020, 11, 1, 1, 30, tzinfo=UTC, fold=1), np.datetime64("2020-01-01"),
    datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=-23))), object(),
]  # fmt: skip
WIDE = np.broadcast_to(np.float32(1), (10**13,))
VECTORS: list[Any] = [
    5, 1.0, HUGE, "11111111", b"11111111", {}, set(), Evil(), object(), [], [[]], [ONES], ONES[:-1], [*ONES, 1.0], [True] * 8,
    [None] * 8, ["1"] * 8, [1j] * 8, [math.nan] * 8, [*ONES[:-1], math.inf], [1e39] * 8, [0.0] * 8, [1e-46] * 8,
    [HUGE] * 8, [10**30] * 8, [Decimal(1)] * 8, [Decimal("NaN")] * 8, [fractions.Fraction(1, 3)] * 8, [Evil()] * 8,
    [EvilFloat(1)] * 8, cyclic_list(), doubling(60, [1.0], lambda x: [x, x]), [1.0, *[[1.0] * 65_000] * 7], range(10**9),
    range(8), WIDE, np.broadcast_to(np.float64(1), (10**13,)), np.ones(()), np.ones((8, 1)), np.ones((1, 8)),
    np.ones(8, ">f4"), np.ones(8, ">f8"), np.ones(8, np.float16), np.ones(8, np.longdouble), np.ones(8, np.int8),
    np.ones(8, np.uint64) * (2**64 - 1), np.ones(8, bool), np.ones(8, "M8[s]"), np.ones(8, "S1"),
    np.ones(8, [("a", "f4")]), np.ones(8, complex), np.ones(16, "f4")[::2], np.ones(8, "f4")[::-1],
    np.ma.masked_array(np.ones(8), mask=[0, 1] * 4), np.ma.masked_array(np.ones(8)),
    np.full(8, 1e-45, "f4"), np.full(8, 3.4e38, "f4"), memoryview(np.ones(8, "f4")), memoryview(b"12345678"),
    bytearray(b"12345678"), UserList(ONES), Changing(), tuple(ONES), iter(ONES), np.array([1, "a"] * 4, object),
]  # fmt: skip
COUNTS: list[Any] = [
    0, -1, 10_001, 2**62 + 1, HUGE, -HUGE, "3", None, 1.0, True, Evil(), EvilNumber(3), np.array([1, 2]), np.array(3),
    np.int8(3), np.float32(3), [3], object(), Level.LOW,
]  # fmt: skip
LISTS: list[Any] = [
    5, None, "x", b"x", {}, {"a": 1}, HUGE, Evil(), object(), [5], [None], ["x"], [[]], [Evil()], ["\ud800"],
]  # fmt: skip


async def typed(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """The result of *call*, or its error."""
    error: Exception
    try:
        result = call(*arguments, **options)
        async with asyncio.timeout(60):
            return await result if isinstance(result, Awaitable) else [item async for item in result]
    except MemstoreError as refusal:
        error = refusal
    except CallersError as error:
        return error
    assert len(str(error)) < 2_000, "an error shows only the beginning of a value"
    return error


@contextmanager
def about(name: str, number: int, value: object) -> Iterator[None]:
    """Add the number and type of the value to an error."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"{name}, value {number}, of type {type(value).__name__}")
        raise


ADDED: dict[str, list[Any]] = {
    "content": TEXTS,
    "id": [*TEXTS, *IDS],
    "tags": TAGS,
    "metadata": METADATA,
    "importance": NUMBERS,
    "created_at": TIMES,
    "updated_at": TIMES,
    "expires_at": TIMES,
    "accessed_at": TIMES,
    "ttl": [*NUMBERS, timedelta.max, timedelta.min, timedelta(days=1)],
    "access_count": COUNTS,
    "pinned": [*NUMBERS, "yes", b"1", np.bool_(0), [], {}, True, False, None],
    "embedding": VECTORS,
}


@pytest.mark.parametrize("field", ADDED)
async def test_a_memory_is_stored_as_given_or_refused_with_nothing_stored(store: Store, field: str) -> None:
    for i, value in enumerate(ADDED[field]):
        with about(field, i, value):
            result = await typed(store.memories.add_many, [{"content": "x", "embedding": ONES, field: value}])
            if isinstance(result, list):
                await _as_given(store, result[0], field, value)
                await store.memories.delete_many(ids=[result[0].id])
            else:
                assert isinstance(result, InvalidError | CallersError)
            assert await store.memories.count(recursive=True) == 0


async def _as_given(store: Store, memory: Memory, field: str, value: Any) -> None:
    if memory.expires_at is None or memory.expires_at > datetime.now(UTC):
        assert await store.memories.get(memory.id) == memory
    if value is None:
        return
    if field in ("content", "id", "metadata", "importance", "access_count", "pinned"):
        assert getattr(memory, field) == value
    if field == "metadata":
        assert repr(memory.metadata) == repr(
            {key: getattr(item, "item", lambda x=item: x)() for key, item in dict(value).items()}
        )
    if field == "tags":
        assert all(type(tag) is str for tag in memory.tags)
    if field in ("created_at", "updated_at", "accessed_at"):
        assert getattr(memory, field) - value == timedelta(0)
        assert getattr(memory, field).tzinfo is UTC
    if field == "embedding" and not isinstance(value, Changing):
        assert memory.embedding.tobytes() == np.asarray(value).astype(np.float32).tobytes()


@pytest.mark.parametrize("field", sorted(ADDED.keys() - {"id"}))
async def test_an_update_is_done_as_given_or_changes_nothing(store: Store, field: str) -> None:
    more = {"embedding": None} if field == "content" else {}
    for i, value in enumerate(ADDED[field]):
        with about(field, i, value):
            before = await store.memories.upsert("x", id="a", embedding=ONES, tags={"t"}, metadata={"k": 1})
            result = await typed(store.memories.update, "a", **{field: value}, **more)
            if not isinstance(result, Memory):
                assert await store.memories.get("a") == before
            elif result.expires_at is None or result.expires_at > datetime.now(UTC):
                assert await store.memories.get("a") == result


ASSEMBLED: dict[str, list[Any]] = {
    "id": [*TEXTS, *IDS],
    "name": TEXTS,
    "description": TEXTS,
    "members": [*LISTS, 0, False, "", np.array([]), np.array([1, 2])],
    "tags": TAGS,
    "topics": [*TAGS, ["\0"]],
    "metadata": METADATA,
    "created_at": TIMES,
    "activation_level": NUMBERS,
    "activated_at": TIMES,
    "activation_count": COUNTS,
}


@pytest.mark.parametrize("field", ASSEMBLED)
async def test_an_assembly_is_stored_as_given_or_refused_with_nothing_stored(store: Store, field: str) -> None:
    for i, value in enumerate(ASSEMBLED[field]):
        with about(field, i, value):
            result = await typed(store.assemblies.add_many, [{"id": "g", field: value}])
            if isinstance(result, list):
                assert await store.assemblies.get(result[0].id) == result[0]
                await store.assemblies.delete(result[0].id)
            assert await store.assemblies.count() == 0


async def _activated(store: Store, **options: Any) -> object:
    return await store.memories.search(ONES, boost=memstore.AssemblyBoost(**options))


CALLS: dict[str, tuple[Callable[[Store, Any], Any], list[Any]]] = {
    "search": (lambda s, v: s.memories.search(v), [*VECTORS, "a text"]),
    "search_many": (lambda s, v: s.memories.search_many(v), LISTS),
    "limit": (lambda s, v: s.memories.search(ONES, v), COUNTS),
    "min_score": (lambda s, v: s.memories.search(ONES, min_score=v), NUMBERS),
    "search tags": (lambda s, v: s.memories.search(ONES, tags=v), TAGS),
    "list limit": (lambda s, v: s.memories.list(limit=v), COUNTS),
    "list order": (lambda s, v: s.memories.list(order=v), [*TEXTS, "", "-", "--id", "pk", "id; --", "metadata", []]),
    "get": (lambda s, v: s.memories.get(v), [*TEXTS, *IDS]),
    "get_many": (lambda s, v: s.memories.get_many(v), LISTS),
    "delete": (lambda s, v: s.memories.delete(v), [*TEXTS, *IDS]),
    "delete_many": (lambda s, v: s.memories.delete_many(ids=v), LISTS),
    "touch": (lambda s, v: s.memories.touch(v), LISTS),
    "get as_of": (lambda s, v: s.memories.get("m", as_of=v), TIMES),
    "list as_of": (lambda s, v: s.assemblies.list(as_of=v), TIMES),
    "history": (lambda s, v: s.memories.history(v), [*TEXTS, *IDS]),
    "history limit": (lambda s, v: s.assemblies.history("g", limit=v), COUNTS),
    "undo": (lambda s, v: s.undo(v), LISTS),
    "add_many": (lambda s, v: s.memories.add_many(v), LISTS),
    "upsert_many": (lambda s, v: s.memories.upsert_many(v), LISTS),
    "assemblies.add_many": (lambda s, v: s.assemblies.add_many(v), LISTS),
    "assemblies.upsert_many": (lambda s, v: s.assemblies.upsert_many(v), LISTS),
    "add_members": (lambda s, v: s.assemblies.add_members("g", v), LISTS),
    "remove_members": (lambda s, v: s.assemblies.remove_members("g", v), LISTS),
    "members": (lambda s, v: s.assemblies.members(v), [*TEXTS, *IDS]),
    "containing": (lambda s, v: s.assemblies.containing(v), [*TEXTS, *IDS]),
    "activate": (lambda s, v: s.assemblies.activate(v), LISTS),
    "level": (lambda s, v: s.assemblies.activate(["g"], v), NUMBERS),
    "levels": (lambda s, v: s.assemblies.activate({"g": v}), NUMBERS),
    "sync_state": (lambda s, v: s.assemblies.sync_state(v), [*TEXTS, *IDS]),
    "explain": (lambda s, v: s.memories.explain(ONES, v), [*TEXTS, *IDS]),
    "explain namespace": (lambda s, v: s.memories.explain(ONES, "m", namespace=v), [*TEXTS, *LISTS]),
    "activated": (lambda s, v: s.memories.search(ONES, boost=v), [*NUMBERS, *TEXTS]),
    **{
        f"activation {name}": (lambda s, v, name=name: _activated(s, **{name: v}), values)
        for name, values in {
            "threshold": NUMBERS,
            "limit": COUNTS,
            "weight": NUMBERS,
            "priming": NUMBERS,
            "max_age": NUMBERS,
        }.items()
    },
    "rename": (lambda s, v: s.tags.rename("t", v), [*TEXTS, *IDS]),
    "tags.delete": (lambda s, v: s.tags.delete(v), [*TEXTS, *IDS]),
    "load": (lambda s, v: s.load(v), LISTS),
    "load chunk": (lambda s, v: s.load([], chunk=v), COUNTS),
    "namespaces": (lambda s, v: s.namespaces(v), [*LISTS, ("a",) * 33, ("x" * 4_097,), (5,), ("\ud800",), ("",)]),
    "namespaces suffix": (lambda s, v: s.namespaces(suffix=v), [*LISTS, ("a",) * 33, (5,), ("\ud800",)]),
    "namespaces depth": (lambda s, v: s.namespaces(depth=v), COUNTS),
    "namespaces limit": (lambda s, v: s.namespaces(limit=v, offset=v), COUNTS),
    "page": (lambda s, v: s.memories.page(limit=v), COUNTS),
    "page after": (lambda s, v: s.memories.page(after=v), [*TEXTS, *IDS]),
    "list offset": (lambda s, v: s.memories.list(offset=v), COUNTS),
    "search offset": (lambda s, v: s.memories.search(ONES, offset=v), COUNTS),
    "embeddings": (lambda s, v: s.memories.search(ONES, embeddings=v), [*NUMBERS, *TEXTS]),
    "vectors tags": (lambda s, v: s.memories.vectors(tags=v), TAGS),
    "get_many namespaces": (lambda s, v: s.memories.get_many([(v, "m")]), [*LISTS, *TEXTS]),
    "get_many ids": (lambda s, v: s.memories.get_many([((), v)]), [*TEXTS, *IDS]),
    "item namespace": (
        lambda s, v: s.memories.add_many([{"content": "x", "namespace": v}, {"content": "y", "id": ""}]),
        [*LISTS, *TEXTS, ("a",) * 33, (5,), ("\ud800",)],
    ),
    "on_duplicate": (lambda s, v: s.memories.add_many([{"content": "x", "id": "m"}], on_duplicate=v), TEXTS),
    "on_duplicate items": (lambda s, v: s.memories.add_many(v, on_duplicate="skip"), LISTS),
    "metadata_patch": (lambda s, v: s.memories.update("m", metadata_patch=v), METADATA),
    "upsert metadata_patch": (lambda s, v: s.memories.upsert("x", id="m", metadata_patch=v), METADATA),
    "assembly metadata_patch": (lambda s, v: s.assemblies.update_many(ids=["g"], metadata_patch=v), METADATA),
    "update_many": (lambda s, v: s.memories.update_many(ids=v, importance=0.1), LISTS),
    "update_many tags": (lambda s, v: s.memories.update_many(where={}, tags=v), TAGS),
    "touch ttl": (lambda s, v: s.memories.touch(["m"], ttl=v), NUMBERS),
    "touch expires_at": (lambda s, v: s.memories.touch(["m"], expires_at=v), TIMES),
    "backup": (
        lambda s, v: s.backup(v),
        [5, None, "", "\0", "x" * 300, "\ud800", b"x", Evil(), "/dev/null", "/", ":memory:"],
    ),
}


@pytest.mark.parametrize("name", CALLS)
async def test_an_argument_of_any_verb_is_understood_or_refused(
    store: Store, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call, values = CALLS[name]
    for i, value in enumerate(values):
        with about(name, i, value):
            await store.memories.upsert("x", id="m", embedding=ONES, tags={"t"})
            await store.assemblies.upsert("g", members=["m"])
            if isinstance(await typed(call, store, value), Exception):
                assert [m.id async for m in store.memories.list()] == ["m"]
                assert [g.member_count async for g in store.assemblies.list()] == [1]
            await store.clear()


@pytest.mark.parametrize(
    "parts",
    [("\ud800",), (5,), (None,), ("a",) * 33, ("x" * 4_097,), (Evil(),), (HUGE,)],
    ids=lambda parts: type(parts[0]).__name__,
)
async def test_a_namespace_that_cannot_be_is_refused(store: Store, parts: Any) -> None:
    with pytest.raises(InvalidError):
        store.namespace(*parts)


@pytest.mark.parametrize(
    "value", [("",), ("/", "~"), ("..", "."), ("a\0b",), ("%",), ("'; --",), ("x" * 4_096,)], ids=repr
)
async def test_any_other_namespace_keeps_what_is_in_it(store: Store, value: tuple[str, ...]) -> None:
    await store.namespace(*value).memories.add("x", id="a", embedding=ONES)
    assert await store.namespaces() == [value]
    assert (await store.namespace(*value).memories.get("a")).namespace == value
    assert (await store.memories.search(ONES, recursive=True))[0].memory.namespace == value


OPENED = [
    (name, value)
    for name, values in {
        "dimension": [*COUNTS[:1], -1, 65_537, HUGE, "3", 1.0, True, Evil(), np.float64(3), [3]],
        "metric": [*TEXTS[:2], "cosines", HUGE, Evil(), np.array([1, 2]), ["cosine"], {}],
        "curvature": [0, -1, math.nan, math.inf, HUGE, "1", True, Evil(), np.array([1.0, 2.0]), [1], 1.0],
        "timeout": [-1, math.nan, math.inf, HUGE, "1", None, True, Evil(), 1e7, [1]],
        "durability": [None, "off", HUGE, Evil(), np.array(["full"]), []],
        "engine": [None, "scann", Evil(), []],
        "index": ["ivf", Evil(), [], HUGE],
        "graph": [5, {}, Evil(), HUGE],
        "vector_type": ["int8", Evil(), []],
        "embedder": [5, "wordllama", Evil(), object()],
        "activation_half_life": [0, -1, math.nan, math.inf, HUGE, "1", None, True, Evil(), [1]],
        "indexed_metadata": [5, "a", HUGE, Evil(), [5], [""], ["a" * 2_000], ["\ud800"], ['["a'], [Evil()], ['a"'], ["a..b"], [str(i) for i in range(17)]],
    }.items()
    for value in values
    if not (value is None and name in ("metric", "embedder"))
]  # fmt: skip


async def test_a_setting_that_cannot_be_is_refused_before_there_is_a_file(path: Path) -> None:
    for i, (name, value) in enumerate(OPENED):
        with about(name, i, value), pytest.raises((InvalidError, CallersError)):
            options = {"dimension": 3, name: value}
            async with memstore.open(path, **(options if name == "index" else with_index(options))):
                pass
        assert not path.exists(), name


@pytest.mark.parametrize(
    "name",
    ["", "\0", "a\0b", "\ud800", ":memory:", "x" * 300, "no/such/folder", "/dev/null", "/", ".", "pipe", "ring", 5, None, b"x",
     Evil(), HUGE],
    ids=lambda name: repr(name)[:20] if isinstance(name, str) else type(name).__name__,
)  # fmt: skip
async def test_a_path_that_cannot_be_a_store_is_refused(
    name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    os.symlink("ring", "ring")
    before = sorted(os.listdir())
    for read_only in (False, True):
        with pytest.raises((InvalidError, OpenError)):
            async with asyncio.timeout(60), memstore.open(name, dimension=3, read_only=read_only):
                pass
    assert sorted(os.listdir()) == before


async def test_a_file_whose_name_is_no_utf_8_is_a_file_like_any_other(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe #?%41.db")
    for _ in range(2):
        async with memstore.open(path, dimension=3, timeout=5) as store:
            await store.memories.upsert("x", id="a")
    assert {os.fsencode(name) for name in os.listdir(tmp_path)} == {b"\xff\xfe #?%41.db"}


# -- filters


FILTERS: list[Any] = [
    5, 0, "", "x", b"", [], [{}], HUGE, Evil(), np.array([1, 2]), {5: 1}, {HUGE: 1}, {None: 1}, {"": 1}, {"$": 1}, {"$or": []},
    {"$or": [HUGE]}, {"$and": {}}, {"$or": HUGE}, {"$not": 5}, {"$nor": []}, {"$where": "1=1"}, {"id": {"$regex": "."}},
    {"id; DROP TABLE memory": 1}, {"id' OR 1=1 --": 1}, {"pk": 1}, {"namespace_pk": 1}, {"metadata.a'b": 1}, {'metadata.a"b': 1},
    {"metadata.a\\b": 1}, {"metadata.": 1}, {"metadata..a": 1}, {"metadata[0]": 1}, {'metadata["': 1}, {"metadata[": 1},
    {'metadata["\\ud800"]': 1}, {"metadata.\ud800": 1}, {"metadata.\0": 1}, {"metadata" + ".a" * 5_000: 1},
    {"metadata." + "a" * 1_000_000: 1}, {"metadata.$eq": 1}, {"metadata.a": "' OR 1=1 --"}, {"content": {"$contains": "%_\\"}},
    {"metadata.a": HUGE}, {"metadata.a": 2**63}, {"metadata.a": math.nan}, {"metadata.a": math.inf}, {"metadata.a": "\ud800"},
    {"metadata.a": "\0"}, {"metadata.a": b"x"}, {"metadata.a": Evil()}, {"metadata.a": object()}, {"metadata.a": {Evil(): 1}},
    {"metadata.a": {"$in": list(range(1_001))}}, {"metadata.a": {"$in": itertools.count()}}, {"metadata.a": {"$in": HUGE}},
    {"metadata.a": {"$in": [list(range(999))]}}, {"metadata.a": cyclic_list()}, {"metadata.a": cyclic_dict()},
    {"metadata.a": doubling(60, [1], lambda x: [x, x])}, doubling(30, {}, lambda x: {"$and": [x]}), doubling(5_000, {}, lambda x: {"$not": x}),
    doubling(18, {"id": "a"}, lambda x: {"$or": [x, x]}), doubling(60, {}, lambda x: {"$and": [x, x]}), {"tags": 5}, {"tags": [5]},
    {"tags": {"$in": [5]}}, {"tags": {"$gt": 1}}, {"embedding": [1.0]}, {"created_at": {"$gt": NAIVE}},
    {"created_at": {"$gt": datetime(2020, 1, 1, tzinfo=HalfAZone())}}, {"created_at": datetime.min.replace(tzinfo=timezone(timedelta(hours=3)))},
    {"metadata.a": {"$gt": Evil()}}, {"metadata.a": {"$gt": None}}, {"metadata.a": {"$exists": 1}}, {"metadata.a": {"$eq": 1, "b": 2}},
    {"metadata.a": {"$contains": HUGE}}, {"id": {"$startswith": 5}}, {"id": {"$startswith": ""}}, {"metadata.a": EvilFloat(1)},
    {EvilText("$not"): {}}, {EvilText('metadata.a"b'): 1}, {"metadata.a": {EvilText('"'): 1}}, {"id": {EvilText("$eq"): "a"}},
    {"metadata.a": EvilText("x")}, MappingProxyType({"id": "m"}), UserDict({"id": "m"}), {"id": Word.TEA}, {"metadata.a": -0.0},
    {"metadata.a": 5e-324}, {"importance": 10**18}, {"access_count": -(2**63)}, {"id": {}}, {"metadata": {}}, {"metadata": {"k": 1}},
]  # fmt: skip


async def test_a_filter_is_of_the_language_or_refused_by_every_verb_alike(store: Store) -> None:
    await store.memories.add("x", id="m", embedding=ONES, metadata={"k": 1})
    for i, where in enumerate(FILTERS):
        with about("filter", i, where):
            results = [
                await typed(store.memories.count, where=where),
                await typed(store.memories.list, where=where),
                await typed(store.memories.search, ONES, where=where),
            ]
            if isinstance(results[0], int):
                assert len(results[1]) == len(results[2]) == results[0]
            else:
                results.append(await typed(store.memories.delete_many, where=where))
                assert all(isinstance(error, FilterError | CallersError) for error in results), results
                assert await store.memories.count() == 1


ENUMS = """
import asyncio, enum
from memstore.testing import temporary_store

class Level(enum.IntEnum):
    LOW = 1

async def main():
    async with temporary_store(dimension=2) as store:
        await store.memories.add("x", access_count=1, metadata={"level": 1}, id="a")
        for where in ({"access_count": Level.LOW}, {"metadata.level": {"$in": [Level.LOW]}}, {"metadata.level": {"$gte": Level.LOW}}):
            assert await store.memories.count(where=where) == 1, where

asyncio.run(main())
"""


def test_an_enum_s_number_in_a_filter_is_its_number_and_takes_no_time() -> None:
    # In another process: an endless conversion keeps the interpreter, so that no time limit in it works.
    process = run_python("-c", ENUMS)
    assert process.returncode == 0, process.stderr


# -- random arguments

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=8)
    | st.binary(max_size=3)
    | st.datetimes(timezones=st.just(UTC) | st.none())
    | st.sampled_from([2**63, Level.LOW, Word.TEA, EvilText("a"), EvilNumber(1), EvilFloat(1)])
)
KEYS = st.text(max_size=6) | st.sampled_from(
    ["$eq", "$or", "$in", "metadata.a", "metadata.a.b", "id", "tags", "$not", "$gt"]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.tuples(inner)
        | st.dictionaries(SCALARS, inner, max_size=2)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(VALUES)
def test_any_metadata_is_copied_exactly_or_refused(value: Any) -> None:
    try:
        copy = text.check_metadata(value)
    except InvalidError:
        return
    assert repr(copy) == repr(value)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(KEYS, VALUES, max_size=4), st.sampled_from(["memory", "assembly"]))
def test_any_mapping_is_a_filter_or_refused(where: Any, noun: Any) -> None:
    message = ""
    try:
        parse(where, noun)
    except FilterError as error:
        message = str(error)
    assert len(message) < 2_000


DTYPES = ["<f4", ">f4", "<f8", ">f8", "<f2", "<i4", ">i8", "<u8", "?", "<c8", "S3", "<U2", "O", "M8[s]", "V4"]


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 12), max_size=3),
    st.binary(min_size=8 * 12**2, max_size=8 * 12**2),
    st.sampled_from([1, 2, -1]),
    st.booleans(),
)
def test_any_array_is_rounded_to_float32_or_refused(
    dtype: str, shape: list[int], data: bytes, step: int, zero_ok: bool
) -> None:
    count = math.prod(shape) if math.prod(shape) * 8 <= len(data) else 0
    flat = np.frombuffer(data[: count * 8], "u1") if dtype == "O" else np.frombuffer(data, dtype)[:count]
    array = (flat[:count].astype("O") if dtype == "O" else flat)[::step]
    if len(shape) != 1 and array.size == math.prod(shape):
        array = array.reshape(shape)
    try:
        vector = as_embedding(array, 6, allow_zero=zero_ok)
    except InvalidError:
        return
    assert vector.shape == (6,)
    assert np.isfinite(vector).all()
    assert not vector.flags.writeable
    assert vector.tobytes() == array.astype(np.float32).tobytes()


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from(["tags", "metadata", "id", "importance", "ttl", "x"]), VALUES), max_size=4))
def test_items_made_of_anything_are_all_stored_or_none(pairs: list[tuple[str, Any]]) -> None:
    async def run() -> None:
        async with temporary_store(dimension=2) as store:
            await store.memories.add("x", id="before")
            result = await typed(store.memories.add_many, [{"content": "y", name: value} for name, value in pairs])
            added = 0 if isinstance(result, MemstoreError) else len(result)
            assert await store.memories.count() <= 1 + added
            assert (await store.memories.count() > 1) <= (added > 0)
            assert await store.check() == []

    asyncio.run(run())


# -- documented limits


LIMITS: dict[str, tuple[str, Callable[[Store, int], Any]]] = {
    "id": (r"1 to ([\d,]+) bytes", lambda s, n: s.memories.add("x", id="x" * n)),
    "content, name, description": (r"([\d,]+) bytes", lambda s, n: s.memories.add("x" * n)),
    "tag, topic": (r"1 to ([\d,]+) bytes", lambda s, n: s.memories.add("x", tags={"x" * n})),
    "tags or topics of one record": (r"([\d,]+)", lambda s, n: s.memories.add("x", tags=map(str, range(n)))),
    "namespace": (r"([\d,]+) parts", lambda s, n: s.namespaces(("x",) * n)),
    "metadata": (r"([\d,]+) levels", lambda s, n: s.memories.add("x", metadata=deep(n - 1))),
    "values in the metadata of one record": (r"([\d,]+)", lambda s, n: s.memories.add("x", metadata={"a": [None] * (n - 1)})),
    "filter": (r"([\d,]+) operands", lambda s, n: s.memories.count(where={"metadata.a": {"$in": [None] * n}})),
    "`limit` of a search, with its `offset`": (r"1 to ([\d,]+)", lambda s, n: s.memories.search(ONES, n)),
    "`chunk` of a load": (r"1 to ([\d,]+)", lambda s, n: s.load([], chunk=n)),
    "indexes on metadata (`indexed_metadata`)": (
        r"([\d,]+) a file",
        lambda s, n: _close(memstore.open(s._database.settings.path, indexed_metadata=[f"k{i}" for i in range(n)])),
    ),
}  # fmt: skip


async def _close(opening: Awaitable[Store]) -> None:
    await (await opening).close()


async def test_the_page_of_limits_says_what_is_refused_and_by_which_error(store: Store) -> None:
    rows = dict(re.findall(r"^\| (.+?) \| (.+ \| .+?) \|$", (ROOT / "docs/limits.md").read_text("utf-8"), re.MULTILINE))
    for what, (pattern, call) in LIMITS.items():
        limit, error = rows[what].split(" | ")
        most = int(re.search(pattern, limit)[1].replace(",", ""))
        kind = getattr(memstore, error.strip("`"))
        await call(store, most)
        refusal = await typed(call, store, most + 1)
        assert type(refusal) is kind, what
