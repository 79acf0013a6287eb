"""How SQLite answers filters: from indexes, with the statistics of `ANALYZE` and without."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Connection, NullPool, create_engine

import memstore
from memstore import filters
from memstore.database import raw
from memstore.repository import key_lists, records, selection
from memstore.repository.record_types import ASSEMBLY, MEMORY, RecordType
from memstore.repository.selection import Selection
from memstore.repository.sqlite_only import metadata_indexes
from memstore.timestamps import now
from tests.search.test_filters_indexed import HOSTILE, bracketed

START = datetime(2024, 5, 1, tzinfo=UTC)
COUNT = 3_000
OWNED = "ix_memory_namespace_pk_"
TAG = "ix_memory_tag_tag_pk_memory_pk"


def item(n: int) -> dict[str, object]:
    return {
        "content": "x",
        "id": f"{n % 97:02}-{n}",
        "tags": {"all", f"a{n % 10}", f"b{n % 100}"},
        "metadata": {"user_id": f"u{n % 50}", "source": {"kind": n % 5}, "n": n / COUNT, "it's": n},
        "importance": (n * 7919 % 1000) / 1000,
        "created_at": START + timedelta(minutes=n),
        "updated_at": START + timedelta(minutes=n * 31 % COUNT),
    }


async def fill(path: Path) -> None:
    declared = ["user_id", "source.kind", "n", '["it\'s"]']
    async with memstore.open(path, dimension=2, indexed_metadata=declared) as store:
        await store.namespace("main").load(item(n) for n in range(COUNT))
        for k in range(10):
            await store.namespace("other", f"n{k}").load(item(n) for n in range(0, COUNT, 100))
        await store.namespace("main").assemblies.add_many(
            {"id": f"g{n}", "name": "G", "tags": {f"a{n % 10}"}, "created_at": START, "updated_at": START}
            for n in range(200)
        )


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 3,000 memories, most of them in one namespace of eleven."""
    path = tmp_path_factory.mktemp("plans") / "store.db"
    asyncio.run(fill(path))
    return path


@pytest.fixture(scope="module", params=["as it is", "analyzed"])
def connection(
    filled: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Connection]:
    path = tmp_path_factory.mktemp("copy") / "store.db"
    with closing(sqlite3.connect(filled)) as source, closing(sqlite3.connect(path)) as target:
        source.backup(target)
        if request.param == "analyzed":
            target.execute("ANALYZE")
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    with engine.connect() as connection:
        yield connection


def select(
    where: dict[str, object] | None = None,
    *tags: str,
    namespace: tuple[str, ...] = ("main",),
    recursive: bool = False,
    noun: RecordType = MEMORY,
) -> Selection:
    node = filters.parse(where, noun.kind) if where else None
    return Selection(
        record_type=noun, namespace=namespace, now=now(), recursive=recursive, tags=frozenset(tags), where=node
    )


def plan(connection: Connection, ask: Callable[[], object]) -> list[str]:
    """How SQLite answers the statements on records and tags that *ask* runs, a line a step."""
    base, plans = raw(connection), []
    base.set_trace_callback(plans.append)
    try:
        ask()
    finally:
        base.set_trace_callback(None)
    selects = [sql for sql in plans if sql.startswith("SELECT") and "sqlite_master" not in sql]
    assert selects
    return [row[3] for sql in selects for row in base.execute(f"EXPLAIN QUERY PLAN {sql}")]


def check_served(lines: list[str], *names: str) -> None:
    """Nothing is read from end to end, no namespace is read whole, and the indexes *names* are used."""
    for line in lines:
        assert not line.startswith(("SCAN memory", "SCAN assembly", "SCAN tag", "SCAN namespace")), lines
        assert not line.endswith("(namespace_pk=?)"), lines
        assert "USE TEMP B-TREE" not in line, lines
    for name in names:
        assert any(name in line for line in lines), (name, lines)


def index_of(path: str) -> str:
    """The name of the index on a path in metadata."""
    return metadata_indexes._statement(filters.indexed([path])[0]).split()[2]


LATE = {"$gte": START + timedelta(minutes=COUNT - 100)}
USER, KIND, NUMBER = index_of("user_id"), index_of("source.kind"), index_of("n")
FORMS: dict[str, tuple[Selection, tuple[str, ...]]] = {
    "a tag": (select(None, "a1"), (TAG,)),
    "a rare tag": (select(None, "b1"), (TAG,)),
    "several tags": (select(None, "a1", "b1"), (TAG,)),
    "wide tags": (select(None, "all", "a1"), (TAG,)),
    "a tag in a filter": (select({"tags": {"$contains": "a1"}}), (TAG,)),
    "any of two tags": (select({"$or": [{"tags": {"$contains": "a1"}}, {"tags": {"$contains": "b2"}}]}), (TAG,)),
    "an id": (select({"id": "05-5"}), ("sqlite_autoindex_memory_1",)),
    "ids": (select({"id": {"$in": ["05-5", "06-6", "no"]}}), ("sqlite_autoindex_memory_1",)),
    "the beginning of an id": (select({"id": {"$startswith": "05"}}), ("sqlite_autoindex_memory_1",)),
    "created": (select({"created_at": LATE}), (f"{OWNED}created_at",)),
    "created between": (
        select({"created_at": {"$gt": START, "$lt": START + timedelta(hours=1)}}),
        (f"{OWNED}created_at (namespace_pk=? AND created_at>? AND created_at<?)",),
    ),
    "updated": (select({"updated_at": LATE}), (f"{OWNED}updated_at",)),
    "importance": (select({"importance": {"$gt": 0.99}}), (f"{OWNED}importance",)),
    "an importance": (select({"importance": 0.5}), (f"{OWNED}importance",)),
    "metadata": (select({"metadata.user_id": "u1"}), (USER,)),
    "metadata in": (select({"metadata.user_id": {"$in": ["u1", "u2", None, 5, True]}}), (USER,)),
    "metadata beginning": (select({"metadata.user_id": {"$startswith": "u1"}}), (USER,)),
    "metadata range": (select({"metadata.n": {"$lt": 0.01}}), (NUMBER,)),
    "metadata between": (select({"metadata.n": {"$lt": 0.02, "$gte": 0.01}}), (NUMBER,)),
    "metadata deeper": (select({"metadata.source.kind": 3}), (KIND,)),
    "metadata exists": (select({"metadata.n": {"$exists": True}}), (NUMBER,)),
    "metadata or metadata": (select({"$or": [{"metadata.n": 0}, {"metadata.user_id": "u1"}]}), (NUMBER, USER)),
    "tag and metadata": (select({"metadata.user_id": "u1"}, "a1"), (TAG, USER)),
    "tag and importance": (select({"importance": {"$gt": 0.1}}, "b1"), (TAG,)),
    "metadata and importance": (select({"importance": {"$gt": 0.1}, "metadata.user_id": "u1"}), (USER,)),
    "created and importance": (select({"importance": {"$gt": 0.1}, "created_at": LATE}), (f"{OWNED}created_at",)),
    "tag or both of two": (
        select({"$or": [{"tags": {"$contains": "b1"}}, {"metadata.n": {"$lt": 0.01}, "content": "x"}]}),
        (TAG, NUMBER),
    ),
    "tag and text": (select({"content": {"$contains": "x"}}, "b1"), (TAG,)),
    "tag and not another": (select({"tags": {"$not": {"$contains": "a1"}}}, "b1"), (TAG,)),
}


@pytest.mark.parametrize("recursive", [False, True], ids=["one namespace", "below"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("few", [0, selection.FEW])
def test_every_form_is_served_by_its_index(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, form: str, few: int, *, recursive: bool
) -> None:
    criteria, names = FORMS[form]
    if recursive:
        criteria = select_recursively(criteria)
    monkeypatch.setattr(selection, "FEW", few)
    check_served(plan(connection, lambda: selection.allowed(connection, criteria)), *names)
    check_served(plan(connection, lambda: selection.selected(connection, criteria)), *names)


def select_recursively(criteria: Selection) -> Selection:
    return Selection(
        record_type=criteria.record_type,
        namespace=("other",),
        now=criteria.now,
        recursive=True,
        tags=criteria.tags,
        where=criteria.where,
    )


@pytest.mark.parametrize(
    "criteria",
    [
        select({"id": "g1"}, noun=ASSEMBLY),
        select({"updated_at": LATE}, noun=ASSEMBLY),
        select({"created_at": {"$lt": START}}, noun=ASSEMBLY),
        select(None, "a1", noun=ASSEMBLY),
        select({"tags": {"$contains": "a1"}}, "a2", noun=ASSEMBLY),
    ],
)
def test_assemblies_are_served_too(connection: Connection, criteria: Selection) -> None:
    check_served(plan(connection, lambda: selection.allowed(connection, criteria)))


def test_for_a_tag_no_memory_is_looked_at(connection: Connection) -> None:
    for criteria in (select(None, "a1"), select(None, "a1", "b1"), select_recursively(select(None, "a1"))):
        lines = plan(connection, lambda criteria=criteria: selection.allowed(connection, criteria))
        assert not [line for line in lines if line.startswith(("SEARCH memory ", "SCAN memory "))], lines


@pytest.mark.parametrize(
    "where", [{"content": {"$contains": "y"}}, {"metadata.other": 1}, {"tags": {"$ne": ["a1"]}}, {"embedding": None}]
)
def test_what_no_index_answers_reads_the_rows_of_its_namespaces_only_and_as_they_lie(
    connection: Connection, where: dict[str, object]
) -> None:
    for criteria in (select(where), select(where, namespace=("other",), recursive=True)):
        lines = plan(connection, lambda criteria=criteria: selection.allowed(connection, criteria))
        read = [line for line in lines if line.startswith(("SEARCH memory ", "SCAN memory "))]
        assert any(f"{OWNED}created_at (namespace_pk=? AND created_at>?)" in line for line in read), lines
        assert not any(line.startswith("SCAN memory ") for line in read), lines


@pytest.mark.parametrize("order", ["created_at", "updated_at", "importance", "id"])
@pytest.mark.parametrize("form", FORMS)
def test_a_list_looks_few_records_up_and_reads_many_in_its_order(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, form: str, order: str
) -> None:
    criteria, _ = FORMS[form]

    def lines() -> list[str]:
        place = records.Position({"importance": 0.5, "id": "05"}.get(order, 1), 7)
        listed = records.SortOrder(order)
        first = plan(connection, lambda: records.page(connection, criteria, listed, None, 200))
        return first + plan(connection, lambda: records.page(connection, criteria, listed, place, 200))

    looked_up = [line for line in lines() if line.startswith("SEARCH memory USING INTEGER PRIMARY KEY")]
    keys = selection._small(connection, criteria)
    assert len(looked_up) >= 2 or keys is None
    monkeypatch.setattr(selection, "FEW", 0)
    if selection._small(connection, criteria) is None:
        read = lines()
        name = "sqlite_autoindex_memory_1" if order == "id" else f"{OWNED}{order}"
        assert len([line for line in read if line.startswith(f"SEARCH memory USING INDEX {name} (")]) >= 2, read
        assert not any("ORDER BY" in line for line in read), read


def test_a_count_of_a_namespace_reads_an_index_alone(connection: Connection) -> None:
    lines = plan(connection, lambda: selection.count(connection, select()))
    assert [line for line in lines if "memory" in line and "COVERING" not in line and "expires_at" not in line] == []


@pytest.mark.parametrize("key", HOSTILE)
async def test_any_key_can_be_indexed_and_served(path: Path, key: str) -> None:
    async with memstore.open(path, dimension=2, indexed_metadata=[bracketed(key)]):
        pass
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    where = {f"metadata{bracketed(key)}": {"$in": ["a", "'; --"]}}
    with engine.connect() as connection:
        connection.exec_driver_sql("INSERT INTO namespace VALUES (1, '')")
        lines = plan(connection, lambda: selection.allowed(connection, select(where, namespace=())))
    check_served(lines, index_of(bracketed(key)))


# What the keys are


def test_long_lists_of_keys_are_read_in_pieces(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = selection.allowed(connection, select(None, "all"))
    assert len(expected) == COUNT
    for size in (1, 2, 7, 1_000, 10**6):
        monkeypatch.setattr(key_lists, "_PIECE", size)
        assert np.array_equal(selection.allowed(connection, select(None, "all")), expected)


def test_rows_are_looked_up_in_slices(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    criteria = select({"importance": {"$gte": 0}, "content": {"$contains": "x"}})
    assert selection.count(connection, criteria) == COUNT
    monkeypatch.setattr(selection, "_ROWS", 7)
    assert selection.count(connection, criteria) == COUNT


async def test_what_raw_sql_moved_is_found_by_its_tags_in_no_namespace(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        for name in ("a", "b"):
            await store.namespace(name).memories.add("x", id="moved", embedding=[1, 1], tags={"t"})
            await store.namespace(name).memories.add("x", id="stays", embedding=[1, 1], tags={"t"})
        with closing(sqlite3.connect(path, isolation_level=None)) as base:
            base.execute(
                "UPDATE memory SET id = 'came', namespace_pk = (SELECT pk FROM namespace WHERE path = 'b/') "
                "WHERE id = 'moved' AND namespace_pk = (SELECT pk FROM namespace WHERE path = 'a/')"
            )
        here = store.namespace("a").memories
        assert [hit.memory.id for hit in await here.search([1, 1], tags={"t"})] == ["stays"]
        assert [memory.id async for memory in here.list(tags={"t"})] == ["stays"]
        assert await here.count(tags={"t"}) == 1
        assert await here.delete_many(where={"tags": {"$contains": "t"}}) == 1
        assert await store.namespace("b").memories.count() == 3


async def test_what_has_expired_is_found_by_no_filter(path: Path) -> None:
    async with memstore.open(path, dimension=2, indexed_metadata=["a"]) as store:
        for id, ttl in (("stays", None), ("goes", timedelta(milliseconds=1))):
            await store.memories.add("x", id=id, embedding=[1, 1], tags={"t"}, metadata={"a": 1}, ttl=ttl)
        while await store.memories.count() > 1:
            pass
        for asked_for in ({"tags": {"t"}}, {"where": {"metadata.a": 1}}, {"where": {"content": "x"}}):
            assert [hit.memory.id for hit in await store.memories.search([1, 1], **asked_for)] == ["stays"]
            assert await store.memories.count(**asked_for) == 1
        assert await store.memories.delete_many(where={"metadata.a": 1}) == 1
