"""Tags: words of a namespace, carried by memories and assemblies."""

from datetime import datetime

from sqlalchemy import Connection, delete, exists, func, or_, select, update

from memstore.models.records import Namespace, Tag
from memstore.repository import namespaces
from memstore.repository.record_types import RECORD_TYPES, RecordType
from memstore.schema.tables import assembly_tag, live, memory, memory_tag, metadata, namespace, tag


def page(connection: Connection, path: Namespace, now: datetime, after: str | None, limit: int) -> list[Tag]:
    """The next *limit* tags in use after the name *after*, by name."""
    memories = (
        select(func.count())
        .select_from(memory_tag.join(memory, memory.c.pk == memory_tag.c.memory_pk))
        .where(memory_tag.c.tag_pk == tag.c.pk, live(now))
        .scalar_subquery()
    )
    assemblies = (
        select(func.count()).select_from(assembly_tag).where(assembly_tag.c.tag_pk == tag.c.pk).scalar_subquery()
    )
    carried = exists().where(memory_tag.c.tag_pk == tag.c.pk, memory_tag.c.memory_pk == memory.c.pk, live(now))
    used = select(tag.c.name, memories, assemblies).where(
        tag.c.namespace_pk == namespaces.keys_within(path, recursive=False),
        or_(carried, exists().where(assembly_tag.c.tag_pk == tag.c.pk)),
    )
    if after is not None:
        used = used.where(tag.c.name > after)
    rows = connection.execute(used.order_by(tag.c.name).limit(limit))
    return [Tag(name=name, memory_count=m, assembly_count=a) for name, m, a in rows]


def find(connection: Connection, path: Namespace, name: str) -> int | None:
    """The key of a tag; None where no record ever carried it."""
    owner = namespaces.keys_within(path, recursive=False)
    key = connection.execute(select(tag.c.pk).where(tag.c.namespace_pk == owner, tag.c.name == name)).scalar()
    return None if key is None else int(key)


def carriers(connection: Connection, noun: RecordType, tag_pk: int) -> list[int]:
    """Keys of the records that carry a tag."""
    keys = select(noun.tag_owner).where(noun.tags.c.tag_pk == tag_pk)
    return [int(k) for k in connection.execute(keys).scalars()]


def rename(connection: Connection, path: Namespace, old: int, new: str, now: datetime) -> None:
    """Give the carriers of a tag another instead."""
    target = find(connection, path, new)
    if target is None:
        connection.execute(update(tag).where(tag.c.pk == old).values(name=new))
        for noun in RECORD_TYPES:
            _stamp(connection, noun, old, now)
        return
    for noun in RECORD_TYPES:
        _stamp(connection, noun, old, now)
        has_both = select(noun.tag_owner).where(noun.tags.c.tag_pk == target)
        moved = update(noun.tags).where(noun.tags.c.tag_pk == old, noun.tag_owner.not_in(has_both))
        connection.execute(moved.values(tag_pk=target))
    drop(connection, old, None)


def drop(connection: Connection, tag_pk: int, now: datetime | None) -> None:
    """Take a tag from whatever carries it; with *now*, note the time on them."""
    if now is not None:
        for noun in RECORD_TYPES:
            _stamp(connection, noun, tag_pk, now)
    connection.execute(delete(tag).where(tag.c.pk == tag_pk))


def _stamp(connection: Connection, noun: RecordType, tag_pk: int, now: datetime) -> None:
    carried = select(noun.tag_owner).where(noun.tags.c.tag_pk == tag_pk)
    connection.execute(update(noun.table).where(noun.table.c.pk.in_(carried)).values(updated_at=now))


def drop_unused(connection: Connection) -> None:
    """Delete tags that nothing carries and namespaces that hold nothing."""
    carried = [exists().where(noun.tags.c.tag_pk == tag.c.pk) for noun in RECORD_TYPES]
    connection.execute(delete(tag).where(~or_(*carried)))
    owned = [table for table in metadata.tables.values() if "namespace_pk" in table.c]
    held = [exists().where(table.c.namespace_pk == namespace.c.pk) for table in owned]
    connection.execute(delete(namespace).where(~or_(*held)))


def count(connection: Connection, now: datetime) -> int:
    """How many tags are carried by anything, in all namespaces together; one name in two namespaces is two tags."""
    carried = [
        exists().where(memory_tag.c.tag_pk == tag.c.pk, memory_tag.c.memory_pk == memory.c.pk, live(now)),
        exists().where(assembly_tag.c.tag_pk == tag.c.pk),
    ]
    return int(connection.execute(select(func.count()).select_from(tag).where(or_(*carried))).scalar_one())
