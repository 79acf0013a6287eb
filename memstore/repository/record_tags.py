"""Tags of records: rows of the tag join tables."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import repeat
from typing import Any

from sqlalchemy import (
    Connection,
    and_,
    bindparam,
    delete,
    insert,
    select,
)

from memstore.concurrency import chunks
from memstore.repository.corruption import corrupt_value
from memstore.repository.key_lists import keys_json, listed_keys
from memstore.repository.record_types import RECORD_TYPES, RecordType
from memstore.repository.statements import PAIR, InListQuery, MultiRowInsert, PairListQuery, prepared_by_kind
from memstore.schema.tables import tag

_PAIRS = 3_000  # pairs of a record and a tag that are collected before a statement lets other threads run
_TAG_WIDTH = 300  # rows an INSERT statement: a tag's are short

_TAG_KEYS_OF = prepared_by_kind(lambda t: select(t.tag_owner, t.tags.c.tag_pk).where(t.tag_owner.in_(listed_keys())))
_TAGS_OF = prepared_by_kind(
    lambda t: (
        select(t.tag_owner, tag.c.name).join(tag, tag.c.pk == t.tags.c.tag_pk).where(t.tag_owner.in_(listed_keys()))
    )
)
_REMOVE = prepared_by_kind(
    lambda t: delete(t.tags).where(t.tag_owner == bindparam("owner"), t.tags.c.tag_pk == bindparam("tag"))
)


def _add_pairs(t: RecordType) -> MultiRowInsert:
    pair: dict[Any, Any] = {t.tag_owner: bindparam("owner"), t.tags.c.tag_pk: bindparam("tag")}
    return MultiRowInsert(lambda: insert(t.tags).values(pair), _TAG_WIDTH)


_ADD = {record_type.kind: _add_pairs(record_type) for record_type in RECORD_TYPES}
_ADD_NAMES = MultiRowInsert(
    lambda: insert(tag).values(namespace_pk=bindparam("namespace"), name=bindparam("name")), _TAG_WIDTH
)
_NAMED = InListQuery(
    lambda names: select(tag.c.name, tag.c.pk).where(
        tag.c.namespace_pk == bindparam("namespace"), tag.c.name.in_(names)
    )
)
_NAMED_IN_MANY = PairListQuery(
    lambda: select(PAIR.c.key, PAIR.c.text, tag.c.pk).join_from(
        PAIR, tag, and_(tag.c.namespace_pk == PAIR.c.key, tag.c.name == PAIR.c.text)
    )
)


def tag_keys(connection: Connection, namespace_pk: int, names: AbstractSet[str]) -> dict[str, int]:
    """Keys of the tags *names* of a namespace; missing tags are added."""
    keys = dict(_NAMED.rows(connection, list(names), namespace=namespace_pk)) if names else {}
    missing = sorted(names - keys.keys())
    if missing:
        _ADD_NAMES.insert(connection, ([namespace_pk] * len(missing), missing))
        keys |= _NAMED.rows(connection, missing, namespace=namespace_pk)
    return keys


def _keys_by_owner(
    connection: Connection, owners: Sequence[int], tags: Iterable[AbstractSet[str]]
) -> list[Mapping[str, int]]:
    """For each record the keys of tags of its namespace by name, of its *tags* at least; missing ones are added."""
    if len(set(owners)) == 1:
        return [tag_keys(connection, owners[0], set().union(*tags))] * len(owners)
    names: dict[int, set[str]] = {}
    for owner, words in zip(owners, tags, strict=True):
        names.setdefault(owner, set()).update(words)
    pairs = [(owner, name) for owner, words in names.items() for name in sorted(words)]
    keys: dict[int, dict[str, int]] = {owner: {} for owner in names}
    _find(connection, pairs, keys)
    missing = [(owner, name) for owner, name in pairs if name not in keys[owner]]
    if missing:
        _ADD_NAMES.insert(connection, list(zip(*missing, strict=True)))
        _find(connection, missing, keys)
    return [keys[owner] for owner in owners]


def _find(connection: Connection, pairs: Sequence[tuple[int, str]], keys: Mapping[int, dict[str, int]]) -> None:
    """Add the keys of existing tags to *keys*, by namespace and name."""
    for owner, name, key in _NAMED_IN_MANY.rows(connection, pairs):
        keys[owner][name] = key


def add_tags(
    connection: Connection,
    record_type: RecordType,
    owners: int | Sequence[int],
    pks: Sequence[int],
    tags: Sequence[AbstractSet[str]],
) -> None:
    """Give the records *pks* the *tags* of the same position, which they do not have yet.

    *owners* is the key of their namespace, or one for each.
    """
    if not any(tags):
        return
    if isinstance(owners, int):
        keys: Iterable[Mapping[str, int]] = repeat(tag_keys(connection, owners, set().union(*tags)))
    else:
        keys = _keys_by_owner(connection, owners, tags)
    _insert(connection, record_type, zip(pks, keys, tags, strict=False))


def replace_tags(
    connection: Connection,
    record_type: RecordType,
    owners: int | Sequence[int],
    tags: Mapping[int, AbstractSet[str]],
) -> None:
    """Give records, named by key, these tags and no others. Tags that a record already has are only read.

    *owners* is the key of their namespace, or one for each.
    """
    if not tags:
        return
    owner_list = [owners] * len(tags) if isinstance(owners, int) else owners
    keys = dict(zip(tags, _keys_by_owner(connection, owner_list, tags.values()), strict=True))
    removed: list[tuple[int, int]] = []
    added: list[tuple[int, Mapping[str, int], list[str]]] = []
    for pks in chunks(list(tags)):
        stored: dict[int, set[int]] = {pk: set() for pk in pks}
        for pk, key in _TAG_KEYS_OF[record_type.kind].run(connection, keys=keys_json(pks)):
            stored[pk].add(key)
        for pk, before in stored.items():
            key_of = keys[pk]
            after = {key_of[name] for name in tags[pk]}
            if after != before:
                removed += [(pk, key) for key in before - after]
                added.append((pk, key_of, [name for name in tags[pk] if key_of[name] not in before]))
    _REMOVE[record_type.kind].many(connection, removed)
    _insert(connection, record_type, added)


def _insert(
    connection: Connection,
    record_type: RecordType,
    tags: Iterable[tuple[int, Mapping[str, int], Collection[str]]],
) -> None:
    """Add tags to records: for each its key, the keys of tags by name, and the names."""
    owners: list[int] = []
    tag_pks: list[int] = []
    for pk, keys, names in tags:
        owners += [pk] * len(names)
        tag_pks += sorted(map(keys.__getitem__, names))
        if len(owners) >= _PAIRS:
            _ADD[record_type.kind].insert(connection, (owners, tag_pks))
            owners, tag_pks = [], []
    if owners:
        _ADD[record_type.kind].insert(connection, (owners, tag_pks))


def tags_of(connection: Connection, record_type: RecordType, keys: str) -> dict[int, set[str]]:
    """The tags of records, named by a JSON array of *keys*."""
    tags: dict[int, set[str]] = {}
    for pk, name in _TAGS_OF[record_type.kind].run(connection, keys=keys):
        if type(name) is not str:
            raise corrupt_value("tag.name", "str", name)
        tags.setdefault(pk, set()).add(name)
    return tags
