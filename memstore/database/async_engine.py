"""SQLAlchemy's asynchronous engine over aiosqlite, which opens the connections of a store.

`Database.open` imports this module when it first opens a file: `sqlalchemy.ext.asyncio` loads the whole ORM, which
takes 0.05 s that `import memstore` need not.
"""

from types import ModuleType
from typing import Any

import aiosqlite
from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_dbapi
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from memstore.config import Settings
from memstore.database.engine import IsolatedPool, isolated, uri
from memstore.database.sqlite import sqlite3


def async_engine(settings: Settings, *, immutable: bool = False) -> AsyncEngine:
    """An engine whose connections each have a thread. The store keeps them open, so nothing pools them.

    Args:
        settings: the file and the timeout.
        immutable: read the file without locks and without a log; see `read_only`.
    """
    query = {"mode": "ro" if settings.read_only else "rw", "uri": "true", **({"immutable": "1"} if immutable else {})}
    url = URL.create("sqlite+aiosqlite", database=uri(settings.path, "rw").partition("?")[0], query=query)
    arguments = {
        "isolation_level": None,
        "cached_statements": 512,
        "timeout": settings.timeout,
        "check_same_thread": False,
    }
    engine = create_async_engine(
        url, module=_async_dbapi(), poolclass=IsolatedPool, connect_args=arguments, hide_parameters=True
    )
    isolated(engine.sync_engine)
    return engine


def _async_dbapi() -> Any:
    """The database interface of SQLAlchemy's async dialect: aiosqlite, over the `sqlite3` that memstore uses."""
    names = ("connect", *(name for name in vars(aiosqlite) if name.endswith("Error") or name.startswith("sqlite_")))
    bridge = ModuleType("aiosqlite")
    vars(bridge).update(vars(aiosqlite))
    vars(bridge).update({name: getattr(sqlite3, name) for name in names if name != "connect"})
    vars(bridge)["connect"] = _connect
    return AsyncAdapt_aiosqlite_dbapi(bridge, sqlite3)


def _connect(database: str, **options: Any) -> aiosqlite.Connection:
    return aiosqlite.Connection(lambda: sqlite3.connect(database, **options), iter_chunk_size=64)
