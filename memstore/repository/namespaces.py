"""Namespaces: a path and a key."""

from datetime import datetime

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    ScalarSelect,
    Select,
    and_,
    bindparam,
    exists,
    func,
    insert,
    literal_column,
    or_,
    select,
)

from memstore.models.records import Namespace
from memstore.repository.corruption import corrupt_value, expect_stored
from memstore.repository.statements import Prepared
from memstore.schema.namespace_path import below_end, namespace_parts, namespace_path
from memstore.schema.tables import assembly, live, memory, namespace

_FIND = Prepared(select(namespace.c.pk).where(namespace.c.path == bindparam("path")))
_PATH = Prepared(select(namespace.c.path).where(namespace.c.pk == bindparam("pk")))
_ADD = Prepared(insert(namespace).values(path=bindparam("path")))

_BELOW = Prepared(
    select(namespace.c.pk).where(namespace.c.path >= bindparam("start"), namespace.c.path < bindparam("end"))
)
_SOME = Prepared(select(namespace.c.pk).limit(bindparam("most", type_=Integer)))
_ONE = Prepared(
    select(
        select(namespace.c.pk).where(namespace.c.path == bindparam("path")).scalar_subquery(),
        select(func.count())
        .select_from(select(namespace.c.pk).limit(literal_column("2")).subquery())
        .scalar_subquery(),
    )
)
"""The key of a namespace, and whether there are none, one or more."""


def key(connection: Connection, path: Namespace) -> int | None:
    """The key of a namespace; None while nothing was ever stored in it."""
    row = _FIND.run(connection, path=namespace_path(path)).fetchone()
    return None if row is None else int(row[0])


def path(connection: Connection, key: int) -> Namespace:
    """The namespace of a key. Raises `DamagedError`."""
    row = _PATH.run(connection, pk=key).fetchone()
    if row is None or not isinstance(row[0], str):
        raise corrupt_value("the path of a namespace", row and row[0])
    return namespace_parts(row[0])


def key_made(connection: Connection, path: Namespace) -> int:
    """The key of a namespace, made if need be."""
    found = key(connection, path)
    if found is None:
        found = _ADD.run(connection, path=namespace_path(path)).lastrowid
    if found is None:
        raise RuntimeError("SQLite gave no key to a new namespace")
    return found


def within(path: Namespace, *, recursive: bool) -> ColumnElement[bool]:
    """The condition, on `namespace`, of being *path*, or with *below* also anything below it."""
    text = namespace_path(path)
    if not recursive:
        return namespace.c.path == text
    end = below_end(text)
    return namespace.c.path >= text if end is None else and_(namespace.c.path >= text, namespace.c.path < end)


def keys_within(path: Namespace, *, recursive: bool) -> Select[tuple[int]] | ScalarSelect[int]:
    """Keys of the namespaces `within` speaks of, to be compared with `==` or `in_` as there are one or many."""
    keys = select(namespace.c.pk).where(within(path, recursive=recursive))
    return keys if recursive else keys.scalar_subquery()


def scope(connection: Connection, path: Namespace, *, recursive: bool) -> list[int] | None:
    """Keys of the namespaces a search is in; None when that is every one the file has."""
    text = namespace_path(path)
    if not recursive:
        found, count = _ONE.run(connection, path=text).fetchone()
        keys = [] if found is None else [int(found)]
        return None if count == len(keys) else keys
    if not path:
        return None
    keys = [int(k) for (k,) in _BELOW.run(connection, start=text, end=below_end(text))]
    held = _SOME.run(connection, most=len(keys) + 1).fetchall()
    return None if len(held) == len(keys) else keys


def used(connection: Connection, prefix: Namespace, now: datetime) -> list[Namespace]:
    """The namespaces below *prefix*, itself among them, that hold a memory or an assembly, in order of their paths."""
    held = or_(
        exists().where(memory.c.namespace_pk == namespace.c.pk, live(now)),
        exists().where(assembly.c.namespace_pk == namespace.c.pk),
    )
    paths = select(namespace.c.path).where(within(prefix, recursive=True), held).order_by(namespace.c.path)
    with expect_stored("the path of a namespace"):
        return [namespace_parts(path) for path in connection.execute(paths).scalars()]
