"""A program whose listeners on the classes of SQLAlchemy would break every connection: `python -m … STORE OLD_FILE`."""

import asyncio
import sqlite3
import sys

from sqlalchemy import Connection, Engine, Pool, create_engine, event

import memstore

calls: list[str] = []


def register() -> None:
    """Register what programs register on the class, for their own engines."""

    @event.listens_for(Engine, "connect")
    def pragmas(connection: sqlite3.Connection, record: object) -> None:
        calls.append("connect")
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.row_factory = sqlite3.Row
        connection.text_factory = bytes

    @event.listens_for(Pool, "connect")
    def refuse(connection: object, record: object) -> None:
        calls.append("pool")

    @event.listens_for(Engine, "do_connect")
    def other_file(dialect: object, record: object, arguments: object, options: object) -> sqlite3.Connection:
        calls.append("do_connect")
        return sqlite3.connect(":memory:")

    @event.listens_for(Engine, "begin")
    def begin(connection: Connection) -> None:
        calls.append("begin")
        connection.exec_driver_sql("BEGIN")

    @event.listens_for(Engine, "before_cursor_execute", retval=True)
    def rewrite(*arguments: object) -> tuple[str, tuple[()]]:
        calls.append("execute")
        return "SELECT 1", ()


async def use(path: str) -> list[str]:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add("new", embedding=[1, 2], tags={"t"})
        async with store.transaction() as tx:
            await tx.assemblies.add("group")
        assert await store.check() == []
        return [hit.memory.content for hit in await store.memories.search([1, 2])]


async def main() -> None:
    register()
    store, old = sys.argv[1:]
    sys.stdout.write(f"{await use(store)}\n")
    memstore.migrate(old)
    sys.stdout.write(f"{memstore.migrate(old) == (await memstore.verify(old)).revision} {calls}\n")
    with create_engine("sqlite://").connect():
        sys.stdout.write(f"{bool(calls)}\n")


asyncio.run(main())
