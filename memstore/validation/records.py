"""Checks of whole records: every field of an item, and the record that is built from it.

An accepted value is stored exactly and read back equal. No value is changed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, Generic, TypeVar, cast

from memstore.concurrency import CHUNK_SIZE, yield_gil
from memstore.errors import InvalidError, short_repr
from memstore.models.fields import RECORD_FIELDS, RecordField
from memstore.models.ids import id_stream, new_id
from memstore.models.records import Assembly, Memory, Namespace, RecordKind, memory
from memstore.validation.merge_patch import Patch
from memstore.validation.text import MAX_TEXT_BYTES, check_metadata, check_text, copy_plain
from memstore.validation.values import (
    MAX_TAGS,
    check_count,
    check_flag,
    check_id,
    check_namespace_within,
    check_share,
    check_tags,
    check_time,
    check_topics,
    check_ttl,
)
from memstore.vectors.encoding import as_embedding
from memstore.vectors.space import Space

RecordT = TypeVar("RecordT")

MAX_COUNT = 2**62
"""The largest value of a counter that a caller can pass."""


@dataclass(frozen=True, slots=True)
class Draft(Generic[RecordT]):
    """A record before it is stored.

    Attributes:
        record: the record, as it is stored if its id does not exist.
        named: the names of the fields that the caller passed.
        patches: merge patches of the metadata of the record that it replaces.
    """

    record: RecordT
    named: frozenset[str]
    patches: tuple[Patch, ...] = ()


def _check_of(field: RecordField) -> Callable[[object], object]:
    """The check of a field's value, which returns the value or raises `InvalidError`."""
    match field.kind:
        case "text":
            return check_id if field.name == "id" else partial(check_text, field.name)
        case "tags":
            return check_tags
        case "json":
            return check_topics if field.name == "topics" else check_metadata
        case "boolean":
            return partial(check_flag, field.name)
        case "number" if field.integer:
            return partial(_check_counter, field.name)
        case "time" if field.optional:
            return lambda value: None if value is None else check_time(field.name, value)
        case "time":
            return partial(check_time, field.name)
        case _:
            return partial(check_share, field.name)


def _check_counter(name: str, value: object) -> int:
    return check_count(name, value, 0, MAX_COUNT)


def _checks(kind: RecordKind) -> dict[str, Callable[[object], object]]:
    fields = RECORD_FIELDS[kind]
    return {field.name: _check_of(field) for field in fields if field.kind != "vector" and not field.computed}


_MEMORY = _checks("memory")
_ASSEMBLY = _checks("assembly")
MEMORY_FIELDS = frozenset({*_MEMORY, "embedding", "ttl"})
ASSEMBLY_FIELDS = frozenset({*_ASSEMBLY, "members"})


def memory_changes(item: Mapping[str, object], space: Space, at: datetime) -> dict[str, object]:
    """The checked fields of *item*; `ttl` becomes `expires_at`. Raises `InvalidError`."""
    _refuse_unknown(item, MEMORY_FIELDS, "memory")
    changes = {name: _MEMORY[name](value) for name, value in item.items() if name in _MEMORY}
    if "ttl" in item and item["ttl"] is None:
        changes.setdefault("expires_at", None)
    elif "ttl" in item:
        if item.get("expires_at") is not None:
            raise InvalidError("Conflicting arguments ttl and expires_at: both set the expiry. Pass one of them")
        changes["expires_at"] = check_ttl(item["ttl"], at)
    if "embedding" in item:
        value = item["embedding"]
        changes["embedding"] = (
            None
            if value is None
            else as_embedding(value, space.dimension, allow_zero=space.allow_zero, max_norm=space.max_norm)
        )
    return changes


def new_memory(
    item: Mapping[str, object],
    namespace: Namespace,
    space: Space,
    at: datetime,
    make_id: Callable[[], str] = new_id,
) -> Memory:
    """The memory that *item*, a mapping with the keyword names of `memories.add`, describes. Raises `InvalidError`.

    `namespace` in *item* is that of the memory: *namespace* or one below it.
    """
    values = _without_defaults(item, "memory")
    if "namespace" in values:
        namespace = check_namespace_within(values.pop("namespace"), namespace)
    fields = memory_changes(values, space, at)
    if "content" not in fields:
        raise InvalidError("Missing content: expected a text for every memory")
    fields.setdefault("created_at", at)
    fields.setdefault("updated_at", max(at, cast("datetime", fields["created_at"])))
    if "id" not in fields:
        fields["id"] = make_id()
    return Memory(namespace=namespace, **fields)  # type: ignore[arg-type]


def new_memories(
    items: Sequence[Mapping[str, object]], namespace: Namespace, space: Space, at: datetime
) -> Iterator[Memory]:
    """The memories that *items* describe, in order. Yields the interpreter lock between chunks.

    Valid items of plain types, which are most, take a quarter of the time of `new_memory`. Every other item is passed
    to `new_memory`, so that one function defines what is valid.

    Raises:
        InvalidError: as `new_memory`; of several items, the message starts with the index and the id of that item.
    """
    make_id = id_stream(len(items)).__next__
    builder = _PlainItemBuilder(namespace, space, at, make_id)
    for i, item in enumerate(items):
        if i and i % CHUNK_SIZE == 0:
            yield_gil()
        try:
            record = builder.memory(item)
        except InvalidError:
            record = None  # of several faults, `new_memory` decides which one it reports
        if record is None:
            try:
                record = new_memory(item, namespace, space, at, make_id)
            except InvalidError as error:
                raise error.of_item(i, id_of(item)) if len(items) > 1 else error from None
        if not space.dimension and record.embedding is not None:  # the first vector fixes it
            space = replace(space, dimension=len(record.embedding))
            builder.dimension = space.dimension
        yield record


class _PlainItemBuilder:
    """Builds memories from valid items that are dicts of plain types."""

    def __init__(self, namespace: Namespace, space: Space, at: datetime, make_id: Callable[[], str]) -> None:
        self._namespace = namespace
        self.dimension = space.dimension
        self._allow_zero, self._max_norm = space.allow_zero, space.max_norm
        self._at = at
        self._make_id = make_id
        self._valid_tags: set[str] = set()
        self._tag_sets: dict[tuple[str, ...], frozenset[str]] = {}  # equal tags of several items share one set

    def memory(self, item: Mapping[str, Any]) -> Memory | None:
        """The memory that *item* describes; None, or `InvalidError`, where `new_memory` has to decide."""
        if type(item) is not dict or not item.keys() <= _PLAIN_FIELDS:
            return None
        get, at = item.get, self._at
        content, metadata, vector = get("content"), get("metadata"), get("embedding")
        if type(content) is not str:
            return None
        if len(content) > MAX_TEXT_BYTES or not content.isascii():
            check_text("content", content)
        if metadata is not None:
            metadata = copy_plain(metadata) if type(metadata) is dict else None
            if metadata is None:
                return None
        tags = self._tags(get("tags"))
        if tags is None:
            return None
        if vector is not None:
            vector = as_embedding(vector, self.dimension, allow_zero=self._allow_zero, max_norm=self._max_norm)
        namespace = self._namespace
        if "namespace" in item and item["namespace"] is not None:
            namespace = check_namespace_within(item["namespace"], namespace)
        id, importance, count = get("id"), get("importance"), get("access_count")
        created, updated = get("created_at"), get("updated_at")
        expires, accessed, pinned = get("expires_at"), get("accessed_at"), get("pinned")
        created = at if created is None else check_time("created_at", created)
        return memory(
            self._make_id() if id is None else check_id(id),
            namespace,
            content,
            vector,
            tags,
            {} if metadata is None else metadata,
            0.5 if importance is None else check_share("importance", importance),
            created,
            max(at, created) if updated is None else check_time("updated_at", updated),
            None if expires is None else check_time("expires_at", expires),
            None if accessed is None else check_time("accessed_at", accessed),
            0 if count is None else check_count("access_count", count, 0, MAX_COUNT),
            False if pinned is None else check_flag("pinned", pinned),
        )

    def _tags(self, value: object) -> frozenset[str] | None:
        if value is None:
            return _NO_TAGS
        if type(value) not in _COLLECTIONS:
            return None
        words = tuple(cast("Iterable[str]", value))  # a copy, so that the checked tags are those that are stored
        for word in words:
            if type(word) is not str:
                return None
        tags = self._tag_sets.get(words)
        if tags is not None:
            return tags
        tags = frozenset(words)
        if not tags <= self._valid_tags:
            self._valid_tags |= check_tags(tags - self._valid_tags)
        if len(tags) > MAX_TAGS:
            return None
        if len(self._tag_sets) < _TAG_SETS:
            self._tag_sets[words] = tags
        return tags


_PLAIN_FIELDS = MEMORY_FIELDS - {"ttl"} | {"namespace"}
_COLLECTIONS = frozenset({list, tuple, set, frozenset})
_NO_TAGS: frozenset[str] = frozenset()
_TAG_SETS = 1_000  # most loads use few sets of tags, and every further set costs time in the garbage collector


def assembly_changes(item: Mapping[str, object]) -> dict[str, object]:
    """The checked fields of *item* without its members. Raises `InvalidError`."""
    _refuse_unknown(item, ASSEMBLY_FIELDS, "assembly")
    return {name: _ASSEMBLY[name](value) for name, value in item.items() if name in _ASSEMBLY}


def new_assembly(item: Mapping[str, object], namespace: Namespace, at: datetime) -> Draft[Assembly]:
    """The assembly, without members, that *item* describes; `namespace` as in `new_memory`. Raises `InvalidError`."""
    values = _without_defaults(item, "assembly")
    if "namespace" in values:
        namespace = check_namespace_within(values.pop("namespace"), namespace)
    fields = assembly_changes(values)
    if "id" not in fields:
        raise InvalidError("Missing id: expected a text for every assembly")
    named = frozenset(fields)
    fields.setdefault("created_at", at)
    if fields.get("activation_level"):
        fields.setdefault("activated_at", at)
    fields.setdefault("updated_at", max(at, cast("datetime", fields["created_at"])))
    return Draft(Assembly(namespace=namespace, **fields), named)  # type: ignore[arg-type]


def _without_defaults(item: object, kind: RecordKind) -> dict[str, object]:
    """*item* without None, which is the default of every field except the embedding."""
    if not isinstance(item, Mapping):
        raise InvalidError(f"Invalid {kind}: expected a mapping of field names to values, found {type(item).__name__}")
    return {name: value for name, value in item.items() if value is not None or name == "embedding"}


def id_of(item: object) -> object:
    """The id in *item*, for a message; None where it has none."""
    return item.get("id") if isinstance(item, Mapping) else None


def _refuse_unknown(item: Mapping[str, object], fields: frozenset[str], kind: RecordKind) -> None:
    unknown = sorted(short_repr(name) for name in item if name not in fields)
    if unknown:
        raise InvalidError(f"Unknown {kind} field {', '.join(unknown)}: expected fields of {', '.join(sorted(fields))}")
