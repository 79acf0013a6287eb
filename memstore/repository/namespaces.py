"""Namespaces: a path and a key."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile

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

from memstore.concurrency import chunks
from memstore.models.records import Namespace
from memstore.repository.corruption import corrupt_value, expect_stored
from memstore.repository.statements import InListQuery, MultiRowInsert, Prepared
from memstore.schema.namespace_path import below_end, namespace_parts, namespace_path
from memstore.schema.tables import assembly, live, memory, namespace

ANY = "*"
"""The part of a pattern that stands for any part."""

_MATCHED_AT_ONCE = 1_000  # namespaces that are compared with a pattern before other threads may run

_FIND = Prepared(lambda: select(namespace.c.pk).where(namespace.c.path == bindparam("path")))
_PATH = Prepared(lambda: select(namespace.c.path).where(namespace.c.pk == bindparam("pk")))
_ADD = Prepared(lambda: insert(namespace).values(path=bindparam("path")))
_FIND_MANY = InListQuery(lambda paths: select(namespace.c.path, namespace.c.pk).where(namespace.c.path.in_(paths)))
_ADD_MANY = MultiRowInsert(lambda: insert(namespace).values(path=bindparam("path")), 100)
_BELOW = Prepared(
    lambda: select(namespace.c.pk).where(namespace.c.path >= bindparam("start"), namespace.c.path < bindparam("end"))
)
_FROM = Prepared(lambda: select(namespace.c.pk).where(namespace.c.path >= bindparam("start")))
_FIRST = Prepared(lambda: select(namespace.c.pk).limit(bindparam("most", type_=Integer)))
_KEY_AND_COUNT = Prepared(
    lambda: select(
        select(namespace.c.pk).where(namespace.c.path == bindparam("path")).scalar_subquery(),
        select(func.count())
        .select_from(select(namespace.c.pk).limit(literal_column("2")).subquery())
        .scalar_subquery(),
    )
)
"""The key of a namespace, and whether the file has none, one or more."""


def _used() -> Select[tuple[str]]:
    """The paths from `start` on of namespaces that have a live memory or an assembly."""
    in_use = or_(
        exists().where(memory.c.namespace_pk == namespace.c.pk, live(bindparam("now"))),
        exists().where(assembly.c.namespace_pk == namespace.c.pk),
    )
    paths = select(namespace.c.path).where(namespace.c.path >= bindparam("start"), in_use)
    return paths.order_by(namespace.c.path)


_ALL_USED = Prepared(_used)
_USED_BELOW = Prepared(lambda: _used().where(namespace.c.path < bindparam("end")))


def key(connection: Connection, path: Namespace) -> int | None:
    """The key of a namespace; None while nothing was ever stored in it."""
    row = _FIND.run(connection, path=namespace_path(path)).fetchone()
    return None if row is None else int(row[0])


def keys_at(connection: Connection, path: Namespace, *, recursive: bool) -> list[int]:
    """The keys of a namespace and, with *recursive*, of all below it; none where nothing was ever stored there."""
    if not recursive:
        pk = key(connection, path)
        return [] if pk is None else [pk]
    start = namespace_path(path)
    end = below_end(start)
    return _FROM.column(connection, start=start) if end is None else _BELOW.column(connection, start=start, end=end)


def path(connection: Connection, key: int) -> Namespace:
    """The namespace of a key. Raises `DamagedError`."""
    row = _PATH.run(connection, pk=key).fetchone()
    if row is None or not isinstance(row[0], str):
        raise corrupt_value("namespace.path", f"str for key {key}", row and row[0])
    return namespace_parts(row[0])


def ensure_key(connection: Connection, path: Namespace) -> int:
    """The key of a namespace, which is added where it is missing."""
    pk = key(connection, path)
    if pk is None:
        pk = _ADD.run(connection, path=namespace_path(path)).lastrowid
    if pk is None:
        raise RuntimeError("SQLite returned no key for a new namespace")
    return pk


def keys(connection: Connection, paths: Iterable[Namespace]) -> dict[Namespace, int]:
    """The keys of those namespaces in which something was ever stored."""
    by_text = {namespace_path(path): path for path in dict.fromkeys(paths)}
    return {by_text[text]: int(pk) for text, pk in _FIND_MANY.rows(connection, list(by_text)) if text in by_text}


def ensure_keys(connection: Connection, paths: Iterable[Namespace]) -> dict[Namespace, int]:
    """The keys of namespaces; missing ones are added."""
    unique = list(dict.fromkeys(paths))
    present = keys(connection, unique)
    missing = [path for path in unique if path not in present]
    if missing:
        _ADD_MANY.insert(connection, [list(map(namespace_path, missing))])
        present |= keys(connection, missing)
    return present


def within(path: Namespace, *, recursive: bool) -> ColumnElement[bool]:
    """The condition, on `namespace`, of being *path*; with *recursive*, also of being below it."""
    text = namespace_path(path)
    if not recursive:
        return namespace.c.path == text
    end = below_end(text)
    return namespace.c.path >= text if end is None else and_(namespace.c.path >= text, namespace.c.path < end)


def keys_within(path: Namespace, *, recursive: bool) -> Select[tuple[int]] | ScalarSelect[int]:
    """Keys of the namespaces of `within`: compare with `==` the one key, with `in_` those of *recursive*."""
    keys = select(namespace.c.pk).where(within(path, recursive=recursive))
    return keys if recursive else keys.scalar_subquery()


def scope(connection: Connection, path: Namespace, *, recursive: bool) -> list[int] | None:
    """Keys of the namespaces a search is in; None when these are all namespaces of the file."""
    text = namespace_path(path)
    if not recursive:
        pk, count = _KEY_AND_COUNT.run(connection, path=text).fetchone()
        keys = [] if pk is None else [int(pk)]
        return None if count == len(keys) else keys
    if not path:
        return None
    keys = [int(pk) for pk in _BELOW.column(connection, start=text, end=below_end(text))]
    first = _FIRST.run(connection, most=len(keys) + 1).fetchall()
    return None if len(first) == len(keys) else keys


@dataclass(frozen=True, slots=True)
class NamespacePattern:
    """Which namespaces at or below *owner* a list has, and how they are written.

    Attributes:
        owner: their first parts.
        prefix: the parts after those; `ANY` stands for any part.
        suffix: the last parts, after those of *owner*.
        depth: the number of parts after those of *owner* that are written; None for all.
    """

    owner: Namespace
    prefix: Namespace
    suffix: Namespace
    depth: int | None

    @property
    def fixed(self) -> Namespace:
        """The parts with which all of them begin."""
        return (*self.owner, *takewhile(ANY.__ne__, self.prefix))

    def matches(self, path: Namespace) -> bool:
        """Whether the namespace *path*, which begins with *owner*, is one of them."""
        below = path[len(self.owner) :]
        first, last = below[: len(self.prefix)], below[len(below) - len(self.suffix) :]
        return (
            len(below) >= max(len(self.prefix), len(self.suffix))
            and all(word in (ANY, part) for word, part in zip(self.prefix, first, strict=True))
            and all(word in (ANY, part) for word, part in zip(self.suffix, last, strict=True))
        )


def matching(connection: Connection, pattern: NamespacePattern, now: datetime) -> set[Namespace]:
    """The namespaces of *pattern* that contain a memory or an assembly."""
    paths: set[Namespace] = set()
    length = None if pattern.depth is None else len(pattern.owner) + pattern.depth
    for chunk in chunks(used(connection, pattern.fixed, now), _MATCHED_AT_ONCE):
        paths.update(path[:length] for path in chunk if pattern.matches(path))
    return paths


def used(connection: Connection, prefix: Namespace, now: datetime) -> list[Namespace]:
    """The namespaces at or below *prefix* that contain a memory or an assembly, in order of their paths."""
    start = namespace_path(prefix)
    end = below_end(start)
    if end is None:
        paths = _ALL_USED.column(connection, start=start, now=now)
    else:
        paths = _USED_BELOW.column(connection, start=start, end=end, now=now)
    with expect_stored("namespace.path"):
        return [namespace_parts(path) for path in paths]
