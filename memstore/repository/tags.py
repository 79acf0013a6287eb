"""Tags: words of a namespace that memories and assemblies have."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Integer, Select, bindparam, delete, exists, func, or_, select, update

from memstore.models.records import Namespace, Tag
from memstore.repository.key_lists import key_lists, keys_json, listed_keys
from memstore.repository.record_types import ASSEMBLY, MEMORY, RECORD_TYPES, RecordType
from memstore.repository.statements import Prepared, prepared_by_kind
from memstore.schema.namespace_path import namespace_path
from memstore.schema.tables import journal, live, memory, metadata, namespace, tag


def _owner() -> ColumnElement[int]:
    return select(namespace.c.pk).where(namespace.c.path == bindparam("path")).scalar_subquery()


def _in_use() -> list[ColumnElement[bool]]:
    """The conditions, on `tag`, that a live memory has it, and that an assembly has it."""
    tags = MEMORY.tags.c
    return [
        exists().where(tags.tag_pk == tag.c.pk, tags.memory_pk == memory.c.pk, live(bindparam("now"))),
        exists().where(ASSEMBLY.tags.c.tag_pk == tag.c.pk),
    ]


def _page() -> Select[tuple[str, int, int]]:
    joined = MEMORY.tags.join(memory, memory.c.pk == MEMORY.tags.c.memory_pk)
    memories = select(func.count()).select_from(joined).where(MEMORY.tags.c.tag_pk == tag.c.pk, live(bindparam("now")))
    assemblies = select(func.count()).select_from(ASSEMBLY.tags).where(ASSEMBLY.tags.c.tag_pk == tag.c.pk)
    return (
        select(tag.c.name, memories.scalar_subquery(), assemblies.scalar_subquery())
        .where(tag.c.namespace_pk == _owner(), or_(*_in_use()))
        .order_by(tag.c.name)
        .limit(bindparam("most", type_=Integer))
    )


def _rename_owners(t: RecordType) -> ColumnElement[bool]:
    """The condition, on the tags of records, that a record has the tag `old` and not the tag `new`."""
    with_new = select(t.tag_owner).where(t.tags.c.tag_pk == bindparam("new"))
    return (t.tags.c.tag_pk == bindparam("old")) & t.tag_owner.not_in(with_new)


def _owners(t: RecordType) -> Select[Any]:
    owners = select(t.tag_owner).where(t.tags.c.tag_pk == bindparam("tag"))
    return owners.join(memory, memory.c.pk == t.tag_owner).where(live(bindparam("now"))) if t is MEMORY else owners


_FIRST_PAGE = Prepared(_page)
_NEXT_PAGE = Prepared(lambda: _page().where(tag.c.name > bindparam("after")))
_FIND = Prepared(lambda: select(tag.c.pk).where(tag.c.namespace_pk == _owner(), tag.c.name == bindparam("name")))
_OWNERS = prepared_by_kind(_owners)
_RENAME = Prepared(lambda: update(tag).where(tag.c.pk == bindparam("row")).values(name=bindparam("new_name")))
_REPLACE = prepared_by_kind(lambda t: update(t.tags).where(_rename_owners(t)).values(tag_pk=bindparam("new")))
_DELETE = Prepared(lambda: delete(tag).where(tag.c.pk == bindparam("row")))
_STAMP = prepared_by_kind(
    lambda t: (
        update(t.table)
        .where(t.table.c.pk.in_(select(t.tag_owner).where(t.tags.c.tag_pk == bindparam("tag"))))
        .values(updated_at=bindparam("now"))
    )
)
_DELETE_UNUSED = Prepared(
    lambda: delete(tag).where(~or_(*(exists().where(t.tags.c.tag_pk == tag.c.pk) for t in RECORD_TYPES)))
)
_OWNED = [table for table in metadata.tables.values() if "namespace_pk" in table.c]
_EMPTIED_NAMESPACES = Prepared(
    lambda: select(namespace.c.pk).where(
        ~or_(*(exists().where(t.c.namespace_pk == namespace.c.pk) for t in _OWNED if t is not journal))
    )
)
# The history has no index of all namespaces, so it is read once, not once for each namespace.
_NAMESPACES_WITH_HISTORY = Prepared(lambda: select(journal.c.namespace_pk).distinct())
_DELETE_NAMESPACES = Prepared(lambda: delete(namespace).where(namespace.c.pk.in_(listed_keys())))
_COUNT = Prepared(lambda: select(func.count()).select_from(tag).where(or_(*_in_use())))


def page(connection: Connection, path: Namespace, now: datetime, after: str | None, limit: int) -> list[Tag]:
    """The next *limit* tags in use after the name *after*, by name."""
    statement, start = (_FIRST_PAGE, {}) if after is None else (_NEXT_PAGE, {"after": after})
    rows = statement.run(connection, path=namespace_path(path), now=now, most=limit, **start)
    return [Tag(name=name, memory_count=memories, assembly_count=assemblies) for name, memories, assemblies in rows]


def find(connection: Connection, path: Namespace, name: str) -> int | None:
    """The key of a tag; None where no record ever had it."""
    key = _FIND.value(connection, path=namespace_path(path), name=name)
    return None if key is None else int(key)


def owners(connection: Connection, record_type: RecordType, tag_pk: int, now: datetime) -> list[int]:
    """Keys of the records that have a tag and have not expired at *now*."""
    return [int(key) for key in _OWNERS[record_type.kind].column(connection, tag=tag_pk, now=now)]


def rename(connection: Connection, path: Namespace, old: int, new: str, now: datetime) -> None:
    """Give the records that have the tag *old* the tag named *new* instead."""
    target = find(connection, path, new)
    _stamp(connection, old, now)
    if target is None:
        _RENAME.run(connection, row=old, new_name=new)
        return
    for statement in _REPLACE.values():
        statement.run(connection, old=old, new=target)
    drop(connection, old, None)


def drop(connection: Connection, tag_pk: int, now: datetime | None) -> None:
    """Delete a tag from all records that have it; with *now*, set their `updated_at`."""
    if now is not None:
        _stamp(connection, tag_pk, now)
    _DELETE.run(connection, row=tag_pk)


def _stamp(connection: Connection, tag_pk: int, now: datetime) -> None:
    for statement in _STAMP.values():
        statement.run(connection, tag=tag_pk, now=now)


def drop_unused(connection: Connection) -> None:
    """Delete tags that no record has, and namespaces without a row in any table."""
    _DELETE_UNUSED.run(connection)
    emptied = _EMPTIED_NAMESPACES.column(connection)
    if emptied:
        with_history = set(_NAMESPACES_WITH_HISTORY.column(connection))
        for part in key_lists([key for key in emptied if key not in with_history]):
            _DELETE_NAMESPACES.run(connection, keys=keys_json(part))


def count(connection: Connection, now: datetime) -> int:
    """How many tags are in use, in all namespaces together; one name in two namespaces is two tags."""
    return int(_COUNT.value(connection, now=now))
