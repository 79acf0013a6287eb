"""Tags of records: rows of the tag join tables."""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

from sqlalchemy import (
    Connection,
    bindparam,
    delete,
    insert,
    select,
)

from memstore.concurrency import chunks
from memstore.repository.corruption import corrupt_value
from memstore.repository.key_lists import keys_in, keys_json
from memstore.repository.record_types import RECORD_TYPES, RecordType
from memstore.repository.statements import Among, Prepared, Wide
from memstore.schema.tables import tag

_PAIRS = 3_000  # of a record and a tag, put together before a statement lets others run
_TAG_WIDTH = 300  # rows an INSERT statement: a tag's are short


def tag_keys(connection: Connection, namespace_pk: int, names: AbstractSet[str]) -> dict[str, int]:
    """Keys of the tags *names* of a namespace, made if need be."""
    keys = dict(_TAGS_NAMED.rows(connection, list(names), namespace=namespace_pk)) if names else {}
    new = sorted(names - keys.keys())
    if new:
        _ADD_TAGS.insert(connection, ([namespace_pk] * len(new), new))
        keys |= _TAGS_NAMED.rows(connection, new, namespace=namespace_pk)
    return keys


def add_tags(
    connection: Connection, noun: RecordType, namespace_pk: int, tags: Iterable[tuple[int, AbstractSet[str]]]
) -> None:
    """Give records, named by key, tags they do not have yet."""
    carried = [(pk, names) for pk, names in tags if names]
    keys = tag_keys(connection, namespace_pk, set().union(*(names for _, names in carried)))
    _carry(connection, noun, ((pk, sorted([keys[name] for name in names])) for pk, names in carried))


def replace_tags(
    connection: Connection, noun: RecordType, namespace_pk: int, tags: Mapping[int, AbstractSet[str]]
) -> None:
    """Give records, named by key, these tags and no others. What one has and keeps is only looked at."""
    keys = tag_keys(connection, namespace_pk, set().union(*tags.values()))
    gone: list[tuple[int, int]] = []
    fresh: list[tuple[int, list[int]]] = []
    for some in chunks(list(tags)):
        held: dict[int, set[int]] = {pk: set() for pk in some}
        for pk, key in _CARRIED[noun.kind].run(connection, keys=keys_json(some)):
            held[pk].add(key)
        for pk, had in held.items():
            wanted = {keys[name] for name in tags[pk]}
            if wanted != had:
                gone += [(pk, key) for key in had - wanted]
                fresh.append((pk, sorted(wanted - had)))
    _DROP_TAGS[noun.kind].many(connection, gone)
    _carry(connection, noun, fresh)


def _carry(connection: Connection, noun: RecordType, tags: Iterable[tuple[int, list[int]]]) -> None:
    owners: list[int] = []
    keys: list[int] = []
    for pk, some in tags:
        owners += [pk] * len(some)
        keys += some
        if len(owners) >= _PAIRS:
            _CARRY[noun.kind].insert(connection, (owners, keys))
            owners, keys = [], []
    if owners:
        _CARRY[noun.kind].insert(connection, (owners, keys))


def tags_of(connection: Connection, noun: RecordType, keys: str) -> dict[int, set[str]]:
    """The tags of records, named by a JSON array of *keys*."""
    found: dict[int, set[str]] = {}
    for pk, name in _TAGS_OF[noun.kind].run(connection, keys=keys):
        if type(name) is not str:
            raise corrupt_value("the name of a tag", name)
        found.setdefault(pk, set()).add(name)
    return found


_CARRIED = {
    n.kind: Prepared(select(n.tag_owner, n.tags.c.tag_pk).where(n.tag_owner.in_(select(keys_in().c.value))))
    for n in RECORD_TYPES
}
_DROP_TAGS = {
    n.kind: Prepared(delete(n.tags).where(n.tag_owner == bindparam("owner"), n.tags.c.tag_pk == bindparam("tag")))
    for n in RECORD_TYPES
}
_ADD_TAGS = Wide(insert(tag).values(namespace_pk=bindparam("namespace"), name=bindparam("name")), _TAG_WIDTH)
_TAGS_NAMED = Among(
    lambda names: select(tag.c.name, tag.c.pk).where(
        tag.c.namespace_pk == bindparam("namespace"), tag.c.name.in_(names)
    )
)
_CARRY = {
    noun.kind: Wide(
        insert(noun.tags).values({noun.tag_owner: bindparam("owner"), noun.tags.c.tag_pk: bindparam("tag")}),
        _TAG_WIDTH,
    )
    for noun in RECORD_TYPES
}
_TAGS_OF = {
    noun.kind: Prepared(
        select(noun.tag_owner, tag.c.name)
        .join(tag, tag.c.pk == noun.tags.c.tag_pk)
        .where(noun.tag_owner.in_(select(keys_in().c.value)))
    )
    for noun in RECORD_TYPES
}
