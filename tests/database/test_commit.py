"""A second commit finds out whether a COMMIT that raised was stored, and the caller gets that result."""

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import Connection, NullPool, create_engine

import memstore
from memstore import CommitUnknownError, StorageError, Store
from memstore.database import transactions
from memstore.database.transactions import raw
from tests.database.test_group_commit import on_thread, refusing


class FlakyConnection(sqlite3.Connection):
    """SQLite whose COMMIT reports a failed disk: before or after it took place, once or for good."""

    fail = ""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)
        self.commits: list[str] = []

    def execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:
        if sql == "COMMIT":
            self.commits.append(sql)
        if sql != "COMMIT" or not self.fail:
            return super().execute(sql, *parameters)
        mode = self.fail
        if mode != "for good":
            self.fail = ""
        if mode == "after":
            super().execute(sql)
        if mode == "lost":
            super().execute("ROLLBACK")
        error = sqlite3.OperationalError("disk I/O error")
        if mode == "full":
            error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_FULL, "SQLITE_FULL"
        raise error


@pytest.fixture
def connection(path: Path):
    memstore.migrate(str(path))
    engine = create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(path, isolation_level=None, factory=FlakyConnection),
        poolclass=NullPool,
    )
    with engine.connect() as opened:
        yield opened
    engine.dispose()


def write(connection: Connection, fail: str) -> None:
    transactions.begin_write(connection, 1.0)
    raw(connection).execute("INSERT INTO namespace (path) VALUES ('new/')")
    raw(connection).fail = fail
    try:
        transactions.commit(connection)
    finally:
        transactions.rollback(connection)


def stored(connection: Connection) -> int:
    return raw(connection).execute("SELECT count(*) FROM namespace").fetchone()[0]


def test_commit_that_was_stored_returns_although_sqlite_raised(connection: Connection) -> None:
    write(connection, "after")
    assert stored(connection) == 1


@pytest.mark.parametrize("fail", ["before", "lost"])
def test_commit_that_was_not_stored_raises_and_leaves_nothing(connection: Connection, fail: str) -> None:
    with pytest.raises(StorageError, match="disk I/O error") as caught:
        write(connection, fail)
    assert not isinstance(caught.value, CommitUnknownError)
    assert stored(connection) == 0
    write(connection, "")
    assert stored(connection) == 1


def test_outcome_is_unknown_when_settling_fails_too(connection: Connection) -> None:
    with pytest.raises(CommitUnknownError, match="next write that succeeds settles it"):
        write(connection, "for good")
    assert not raw(connection).in_transaction


async def test_commit_that_sqlite_refuses_leaves_nothing_and_the_store_goes_on(store: Store) -> None:
    """A deferred foreign key makes the real COMMIT raise and leaves the transaction open."""

    def orphan(connection: Connection) -> None:
        raw(connection).execute("PRAGMA defer_foreign_keys=ON")
        raw(connection).execute("INSERT INTO tag (namespace_pk, name) VALUES (999, 'orphan')")

    with pytest.raises(StorageError, match="FOREIGN KEY"):
        await store._database.write(orphan)
    await store.memories.add("goes on")
    assert await store.memories.count() == 1


async def test_write_after_an_unknown_commit_settles_it_and_the_store_goes_on(path: Path) -> None:
    store = await memstore.open(path, dimension=2)
    await store.memories.add("before", id="b")
    await on_thread(store, refusing(True))
    for _ in range(2):
        with pytest.raises(CommitUnknownError, match="next write that succeeds settles it"):
            await store.memories.add("unknown")
    with pytest.raises(CommitUnknownError):
        async with store.transaction() as tx:
            await tx.memories.add("unknown")
    await on_thread(store, refusing(False))
    await store.memories.add("after", id="a")
    assert [memory.id async for memory in store.memories.list()] == ["b", "a"]
    await store.close()
    async with memstore.open(path) as again:
        assert [memory.id async for memory in again.memories.list()] == ["b", "a"]
        assert await again.check() == []


def test_commit_on_a_full_disk_is_not_stored_and_needs_no_second_commit(connection: Connection) -> None:
    raw(connection).commits.clear()
    with pytest.raises(StorageError, match="disk is full") as caught:
        write(connection, "full")
    assert not isinstance(caught.value, CommitUnknownError)
    assert raw(connection).commits == ["COMMIT"]
    assert stored(connection) == 0
    write(connection, "")
    assert stored(connection) == 1


async def test_index_that_cannot_follow_a_commit_is_rebuilt(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    await store.memories.add("a", embedding=[1.0] * 8)
    await store.memories.search([1.0] * 8)
    store._follower.indexes.by_kind["memory"].table.storage = None  # as after running out of memory halfway
    await store.memories.add("b", id="b", embedding=[-1.0] * 8)
    assert "could not be updated" in caplog.text
    assert (await store.memories.search([-1.0] * 8))[0].memory.id == "b"


async def authorize(store: Store, denied: int | None) -> None:
    """Make SQLite deny this action to the writer's connection, or none."""
    await on_thread(store, lambda c: raw(c).set_authorizer(lambda action, *_: sqlite3.SQLITE_DENY * (action == denied)))


async def test_errors_of_sqlite_in_a_transaction_are_translated(store: Store) -> None:
    await authorize(store, sqlite3.SQLITE_READ)
    with pytest.raises(StorageError, match="prohibited"):
        async with store.transaction():
            pass
    await authorize(store, None)
    async with store.transaction() as tx:
        await authorize(store, sqlite3.SQLITE_READ)
        with pytest.raises(StorageError, match="prohibited"):
            await tx.memories.count()
        with pytest.raises(StorageError, match="prohibited"):
            await tx.memories.search([1.0] * 8)
        await authorize(store, None)


def undone(connection: Connection) -> None:
    transactions.begin_savepoint(connection, "part")
    transactions.cache_item(connection, "of the part", 1)
    transactions.undo_savepoint(connection, "part")


def given_up(connection: Connection) -> None:
    raw(connection).execute("ROLLBACK")  # as SQLite does by itself when the disk is full
    transactions.begin_write(connection, 1.0)


@pytest.mark.parametrize("end", [undone, given_up, transactions.rollback])
def test_rollback_empties_the_transaction_cache(connection: Connection, end) -> None:
    transactions.begin_write(connection, 1.0)
    transactions.cache_item(connection, "a", 1)
    end(connection)
    assert transactions.take_cached(connection) == []


def test_items_of_the_transaction_cache_are_taken_once_and_in_order(connection: Connection) -> None:
    transactions.begin_write(connection, 1.0)
    for thing in ("a", 1, "b"):
        transactions.cache_item(connection, thing, 1)
    transactions.begin_savepoint(connection, "part")
    transactions.end_savepoint(connection, "part")
    transactions.commit(connection)
    assert transactions.take_cached(connection) == ["a", 1, "b"]
    assert transactions.take_cached(connection) == []
