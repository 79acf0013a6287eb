"""What a caller may put in a record: the check of every field, its limits, and the record that comes of it.

A value is refused, never bent: what a check lets through is stored exactly, and comes back equal.
"""

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, SupportsIndex, TypeVar, cast

from memstore.errors import InvalidError, shown
from memstore.records import Assembly, Memory, Namespace, memory, new_id, new_ids
from memstore.settings import Space
from memstore.texts import MAX_TEXT_BYTES, check_json_text, check_metadata, check_text, plain
from memstore.threads import SLICE, breathe
from memstore.vectors import as_embedding

MAX_ID_BYTES = 65_536
MAX_TAG_BYTES = 1_024
MAX_TAGS = 1_000
MAX_NAMESPACE_PARTS = 32
MAX_NAMESPACE_BYTES = 4_096
MAX_LIMIT = 10_000

RecordT = TypeVar("RecordT")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def now() -> datetime:
    """The time as records keep it: aware, UTC, whole microseconds."""
    return datetime.now(UTC)


def to_micros(when: datetime) -> int:
    """An aware datetime as stored: whole microseconds since 1970, UTC."""
    return (when - EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The stored time as a datetime, aware, UTC."""
    return EPOCH + timedelta(0, 0, micros)  # by name it takes twice as long


def check_id(value: object) -> str:
    """*value* as an id, else `InvalidError`. Any text is one, 1 to 65,536 bytes of UTF-8."""
    return check_text("id", value, least=1, most=MAX_ID_BYTES)


def check_ids(values: Iterable[object], name: str = "ids") -> list[str]:
    """*values* as ids, in order, each once."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise InvalidError(f"{name} is a list of ids; got one {type(values).__name__}")
    return list(dict.fromkeys(check_id(value) for value in values))


def check_namespace(value: object) -> Namespace:
    """*value* as a namespace, else `InvalidError`: a tuple of at most 32 texts, 4,096 bytes in all."""
    if not isinstance(value, tuple) or len(value) > MAX_NAMESPACE_PARTS:
        raise InvalidError(f"a namespace is a tuple of at most {MAX_NAMESPACE_PARTS} texts; got {shown(value)}")
    size = sum(len(check_text("a part of a namespace", part, most=MAX_NAMESPACE_BYTES).encode()) for part in value)
    if size > MAX_NAMESPACE_BYTES:
        raise InvalidError(f"a namespace has at most {MAX_NAMESPACE_BYTES:,} bytes of UTF-8; this one has {size:,}")
    return value


def check_words(name: str, value: object) -> list[str]:
    """*value* as words in order, each once: what tags and topics are made of."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise InvalidError(f"{name} is a collection of texts, such as {{'a', 'b'}}; got {shown(value)}")
    words: dict[str, None] = {}
    for word in value:
        words[check_text(f"one of {name}", word, least=1, most=MAX_TAG_BYTES)] = None
        if len(words) > MAX_TAGS:  # asked for each, because an iterator need not end
            raise InvalidError(f"a record has at most {MAX_TAGS:,} {name}")
    return list(words)


def check_tags(value: object) -> frozenset[str]:
    """*value* as a set of tags, else `InvalidError`."""
    return frozenset(check_words("tags", value))


def check_topics(value: object) -> tuple[str, ...]:
    """*value* as topics in order, else `InvalidError`; a set has no order and is refused."""
    if isinstance(value, AbstractSet):
        raise InvalidError("topics are in order: give a list or a tuple, not a set")
    return tuple(check_json_text(word, "a topic") for word in check_words("topics", value))


def check_importance(value: object) -> float:
    """*value* as an importance from 0 to 1, else `InvalidError`."""
    return check_share("importance", value)


def check_share(name: str, value: object) -> float:
    """*value* as a number from 0 to 1, else `InvalidError`."""
    number = check_number(name, value)
    if not 0 <= number <= 1:
        raise InvalidError(f"{name} is a number from 0 to 1; got {number}")
    return number


def check_number(name: str, value: object) -> float:
    """*value* as a number, infinity too, else `InvalidError`."""
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    except OverflowError:
        number = math.nan
    if math.isnan(number):
        raise InvalidError(f"{name} is a number; got {shown(value)}")
    return number


def check_time(name: str, value: object) -> datetime:
    """*value* as an aware datetime in UTC, else `InvalidError`."""
    try:
        if isinstance(value, datetime) and value.tzinfo is not None and value.utcoffset() is not None:
            return from_micros(to_micros(value))  # a plain datetime, in UTC, whatever subclass was given
    except OverflowError as error:
        raise InvalidError(f"{name} lies outside the years 1 to 9999 in UTC; got {shown(value)}") from error
    except Exception as error:
        raise InvalidError(f"{name} has a time zone that does not tell its offset ({shown(error)})") from error
    raise InvalidError(f"{name} is an aware datetime, such as datetime.now(UTC); got {shown(value)}")


def check_ttl(value: object, since: datetime) -> datetime:
    """The end of a time to live of *value* (seconds or a timedelta) that began at *since*."""
    if not isinstance(value, int | float | timedelta) or isinstance(value, bool):
        raise InvalidError(f"ttl is in seconds, or a timedelta; got {shown(value)}")
    try:
        return since + (value if isinstance(value, timedelta) else timedelta(seconds=value))
    except (OverflowError, ValueError) as error:
        raise InvalidError(f"ttl {shown(value)} ends outside the years 1 to 9999") from error


def check_count(name: str, value: object, least: int, most: int) -> int:
    """*value* as a whole number from *least* to *most*, else `InvalidError`."""
    if type(value) is int and least <= value <= most:
        return value  # looking for a protocol takes ten times as long
    try:
        if isinstance(value, SupportsIndex) and not isinstance(value, bool):
            number = int.__int__(operator.index(value))
            if least <= number <= most:
                return number
    except TypeError:
        pass  # an array has the method too
    raise InvalidError(f"{name} is a whole number, {least:,} to {most:,}; got {shown(value)}")


def check_flag(name: str, value: object) -> bool:
    """*value* as True or False, else `InvalidError`."""
    if not isinstance(value, bool):
        raise InvalidError(f"{name} is True or False; got {shown(value)}")
    return value


@dataclass(frozen=True, slots=True)
class Draft(Generic[RecordT]):
    """A record as it will be stored, and which fields the caller named."""

    record: RecordT
    named: frozenset[str]


_MEMORY: dict[str, Callable[[object], object]] = {
    "id": check_id,
    "content": lambda v: check_text("content", v),
    "tags": check_tags,
    "metadata": check_metadata,
    "importance": check_importance,
    "created_at": lambda v: check_time("created_at", v),
    "updated_at": lambda v: check_time("updated_at", v),
    "expires_at": lambda v: None if v is None else check_time("expires_at", v),
    "accessed_at": lambda v: None if v is None else check_time("accessed_at", v),
    "access_count": lambda v: check_count("access_count", v, 0, 2**62),
    "pinned": lambda v: check_flag("pinned", v),
}
MEMORY_FIELDS = frozenset({*_MEMORY, "embedding", "ttl"})

_ASSEMBLY: dict[str, Callable[[object], object]] = {
    "id": check_id,
    "name": lambda v: check_text("name", v),
    "description": lambda v: check_text("description", v),
    "tags": check_tags,
    "topics": check_topics,
    "metadata": check_metadata,
    "created_at": lambda v: check_time("created_at", v),
    "updated_at": lambda v: check_time("updated_at", v),
    "activation_level": lambda v: check_share("activation_level", v),
    "activated_at": lambda v: None if v is None else check_time("activated_at", v),
    "activation_count": lambda v: check_count("activation_count", v, 0, 2**62),
}
ASSEMBLY_FIELDS = frozenset({*_ASSEMBLY, "members"})


def memory_changes(item: Mapping[str, object], space: Space, at: datetime) -> dict[str, object]:
    """The fields of *item*, each checked, `ttl` turned into `expires_at`. Raises `InvalidError`."""
    _refuse_unknown(item, MEMORY_FIELDS, "memory")
    changes = {name: _MEMORY[name](value) for name, value in item.items() if name in _MEMORY}
    if "ttl" in item and item["ttl"] is None:
        changes.setdefault("expires_at", None)
    elif "ttl" in item:
        if item.get("expires_at") is not None:
            raise InvalidError("ttl and expires_at say the same thing: give one of them")
        changes["expires_at"] = check_ttl(item["ttl"], at)
    if "embedding" in item:
        value = item["embedding"]
        changes["embedding"] = (
            None if value is None else as_embedding(value, space.dimension, zero_ok=space.zero_ok, within=space.within)
        )
    return changes


def new_memory(
    item: Mapping[str, object],
    namespace: Namespace,
    space: Space,
    at: datetime,
    make_id: Callable[[], str] = new_id,
) -> Memory:
    """The memory that *item*, a mapping with the keyword names of `memories.add`, describes. Raises `InvalidError`."""
    fields = memory_changes(_without_defaults(item, "memory"), space, at)
    if "content" not in fields:
        raise InvalidError("a memory needs content")
    fields.setdefault("created_at", at)
    fields.setdefault("updated_at", max(at, cast("datetime", fields["created_at"])))
    if "id" not in fields:
        fields["id"] = make_id()
    return Memory(namespace=namespace, **fields)  # type: ignore[arg-type]


def new_memories(
    items: Sequence[Mapping[str, object]], namespace: Namespace, space: Space, at: datetime
) -> Iterator[Memory]:
    """The memories that *items* describe, in order, with a breath between slices.

    Ordinary items, which are most, take a quarter of the time of `new_memory`; any in which something is wrong is left
    to it, so that one function says what is right.

    Raises:
        InvalidError: as `new_memory`; a note names the item.
    """
    ids: list[str] = []
    ordinary = _Ordinary(namespace, space, at, ids.pop)
    for i, item in enumerate(items):
        if i and i % SLICE == 0:
            breathe()
        if not ids:
            ids += reversed(new_ids(min(SLICE, len(items) - i)))
        made = ordinary.memory(item)
        if made is None:
            try:
                made = new_memory(item, namespace, space, at, ids.pop)
            except InvalidError as error:
                if len(items) > 1:
                    error.add_note(f"this was item {i} of {len(items)}; none was stored")
                raise
        yield made


class _Ordinary:
    """Makes memories of items that are dicts of plain types, in which nothing is wrong."""

    def __init__(self, namespace: Namespace, space: Space, at: datetime, make_id: Callable[[], str]) -> None:
        self._namespace = namespace
        self._dimension = space.dimension
        self._zero_ok, self._within = space.zero_ok, space.within
        self._at = at
        self._make_id = make_id
        self._words: set[str] = set()  # tags that were checked
        self._sets: dict[tuple[str, ...], frozenset[str]] = {}  # sets of them, so that few are made over and over

    def memory(self, item: Mapping[str, Any]) -> Memory | None:
        """The memory that *item* describes; None if `new_memory` has to look at it."""
        if type(item) is not dict or not item.keys() <= _ORDINARY:
            return None
        try:
            return self._memory(item)
        except InvalidError:
            return None  # of several things that are wrong, `new_memory` knows which to name

    def _memory(self, item: dict[str, Any]) -> Memory | None:
        get, at = item.get, self._at
        content, metadata, vector = get("content"), get("metadata"), get("embedding")
        if type(content) is not str:
            return None
        if len(content) > MAX_TEXT_BYTES or not content.isascii():
            check_text("content", content)
        if metadata is not None:
            metadata = plain(metadata) if type(metadata) is dict else None
            if metadata is None:
                return None
        tags = self._tags(get("tags"))
        if tags is None:
            return None
        if vector is not None:
            vector = as_embedding(vector, self._dimension, zero_ok=self._zero_ok, within=self._within)
        id, importance, count = get("id"), get("importance"), get("access_count")
        created, updated = get("created_at"), get("updated_at")
        expires, accessed, pinned = get("expires_at"), get("accessed_at"), get("pinned")
        created = at if created is None else check_time("created_at", created)
        return memory(
            self._make_id() if id is None else check_id(id),
            self._namespace,
            content,
            vector,
            tags,
            {} if metadata is None else metadata,
            0.5 if importance is None else check_importance(importance),
            created,
            max(at, created) if updated is None else check_time("updated_at", updated),
            None if expires is None else check_time("expires_at", expires),
            None if accessed is None else check_time("accessed_at", accessed),
            0 if count is None else check_count("access_count", count, 0, 2**62),
            False if pinned is None else check_flag("pinned", pinned),
        )

    def _tags(self, value: object) -> frozenset[str] | None:
        if value is None:
            return _NO_TAGS
        if type(value) not in _COLLECTIONS:
            return None
        given = tuple(cast("Iterable[object]", value))  # a copy, so that what is looked at is what is kept
        for word in given:
            if type(word) is not str:
                return None
        words = self._sets.get(cast("tuple[str, ...]", given))
        if words is not None:
            return words
        words = frozenset(cast("tuple[str, ...]", given))
        if not words <= self._words:
            self._words |= check_tags(words - self._words)
        if len(words) > MAX_TAGS:
            return None
        if len(self._sets) < _SETS:
            self._sets[cast("tuple[str, ...]", given)] = words
        return words


_ORDINARY = MEMORY_FIELDS - {"ttl"}
_COLLECTIONS = frozenset({list, tuple, set, frozenset})
_NO_TAGS: frozenset[str] = frozenset()
_SETS = 1_000  # sets of tags that are known again: as a rule there are few, and each is the garbage collector's work


def assembly_changes(item: Mapping[str, object]) -> dict[str, object]:
    """The fields of *item* but its members, each checked. Raises `InvalidError`."""
    _refuse_unknown(item, ASSEMBLY_FIELDS, "assembly")
    return {name: _ASSEMBLY[name](value) for name, value in item.items() if name in _ASSEMBLY}


def new_assembly(item: Mapping[str, object], namespace: Namespace, at: datetime) -> Draft[Assembly]:
    """The assembly, without members, that *item* describes. Raises `InvalidError`."""
    fields = assembly_changes(_without_defaults(item, "assembly"))
    if "id" not in fields:
        raise InvalidError("an assembly needs an id")
    named = frozenset(fields)
    fields.setdefault("created_at", at)
    if fields.get("activation_level"):
        fields.setdefault("activated_at", at)
    fields.setdefault("updated_at", max(at, cast("datetime", fields["created_at"])))
    return Draft(Assembly(namespace=namespace, **fields), named)  # type: ignore[arg-type]


def _without_defaults(item: object, noun: str) -> dict[str, object]:
    """*item* without what says nothing: None is the default of every field but the embedding."""
    if not isinstance(item, Mapping):
        raise InvalidError(f"one {noun} is a mapping of field names to values; got {type(item).__name__}")
    return {name: value for name, value in item.items() if value is not None or name == "embedding"}


def _refuse_unknown(item: Mapping[str, object], known: frozenset[str], noun: str) -> None:
    unknown = sorted(repr(name) for name in item if name not in known)
    if unknown:
        raise InvalidError(f"a {noun} has no field {', '.join(unknown)}; it has {', '.join(sorted(known))}")
