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

from memstore.errors import InvalidError
from memstore.records import Assembly, Json, Memory, Namespace, memory, new_id, new_ids
from memstore.settings import Space
from memstore.threads import SLICE, breathe
from memstore.vectors import as_embedding

MAX_ID_BYTES = 65_536
MAX_TAG_BYTES = 1_024
MAX_TAGS = 1_000
MAX_NAMESPACE_PARTS = 32
MAX_NAMESPACE_BYTES = 4_096
MAX_TEXT_BYTES = 100_000_000
MAX_METADATA_DEPTH = 100
MAX_LIMIT = 10_000

RecordT = TypeVar("RecordT")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_INT64 = range(-(2**63), 2**63)


def now() -> datetime:
    """The time as records keep it: aware, UTC, whole microseconds."""
    return datetime.now(UTC)


def to_micros(when: datetime) -> int:
    """An aware datetime as stored: whole microseconds since 1970, UTC."""
    return (when - EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The stored time as a datetime, aware, UTC."""
    return EPOCH + timedelta(0, 0, micros)  # by name it takes twice as long


def check_text(name: str, value: object, *, most: int = MAX_TEXT_BYTES, least: int = 0) -> str:
    """*value* as text of *least* to *most* bytes of UTF-8, else `InvalidError`."""
    if type(value) is not str:
        raise InvalidError(f"{name} is text (str); got {type(value).__name__}")
    try:
        size = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError as error:
        raise InvalidError(
            f"{name} holds half of a surrogate pair, which is no text: decode it before storing"
        ) from error
    if not least <= size <= most:
        raise InvalidError(f"{name} has {size:,} bytes of UTF-8; {least:,} to {most:,} can be stored")
    return value


def check_id(value: object) -> str:
    """*value* as an id, else `InvalidError`. Any text is one, 1 to 65,536 bytes of UTF-8."""
    return check_text("id", value, least=1, most=MAX_ID_BYTES)


def check_ids(values: Iterable[object], name: str = "ids") -> list[str]:
    """*values* as ids, in order, each once."""
    if isinstance(values, str | bytes | Mapping):
        raise InvalidError(f"{name} is a list of ids; got one {type(values).__name__}")
    return list(dict.fromkeys(check_id(value) for value in values))


def check_namespace(value: object) -> Namespace:
    """*value* as a namespace, else `InvalidError`: a tuple of at most 32 texts, 4,096 bytes in all."""
    if not isinstance(value, tuple) or len(value) > MAX_NAMESPACE_PARTS:
        raise InvalidError(f"a namespace is a tuple of at most {MAX_NAMESPACE_PARTS} texts; got {value!r}")
    size = sum(len(check_text("a part of a namespace", part, most=MAX_NAMESPACE_BYTES).encode()) for part in value)
    if size > MAX_NAMESPACE_BYTES:
        raise InvalidError(f"a namespace has at most {MAX_NAMESPACE_BYTES:,} bytes of UTF-8; this one has {size:,}")
    return value


def check_words(name: str, value: object) -> list[str]:
    """*value* as words in order, each once: what tags and topics are made of."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise InvalidError(f"{name} is a collection of texts, such as {{'a', 'b'}}; got {value!r}")
    words = list(dict.fromkeys(check_text(f"one of {name}", word, least=1, most=MAX_TAG_BYTES) for word in value))
    if len(words) > MAX_TAGS:
        raise InvalidError(f"a record has at most {MAX_TAGS:,} {name}; got {len(words):,}")
    return words


def check_tags(value: object) -> frozenset[str]:
    """*value* as a set of tags, else `InvalidError`."""
    return frozenset(check_words("tags", value))


def check_topics(value: object) -> tuple[str, ...]:
    """*value* as topics in order, else `InvalidError`; a set has no order and is refused."""
    if isinstance(value, AbstractSet):
        raise InvalidError("topics are in order: give a list or a tuple, not a set")
    return tuple(_json_text(word, "a topic") for word in check_words("topics", value))


def check_metadata(value: object) -> dict[str, Json]:
    """A copy of *value* as a JSON object that comes back equal, else `InvalidError` naming the place."""
    if not isinstance(value, Mapping):
        raise InvalidError(f"metadata is a dict; got {type(value).__name__}")
    given = dict(value)
    try:
        copy = _plain(given)
    except InvalidError:
        copy = None
    return cast("dict[str, Json]", _json(given, "metadata", 1) if copy is None else copy)


def _plain(value: dict[str, Any]) -> dict[str, Json] | None:
    """A copy of *value*, or None where `_json` has to look, which knows each place by name and takes its time."""
    texts: list[str] = []
    copy = _copied(value, texts, 1)
    if copy is None:
        return None
    text = "".join(texts)  # looked through once, not one by one
    return copy if "\0" not in text and (text.isascii() or _encodes(text)) else None


def _copied(value: dict[str, Any], texts: list[str], depth: int) -> dict[str, Json] | None:
    """A copy of *value* if it is made of plain types, its texts added to *texts* to be looked through."""
    copy = value.copy()
    texts += copy
    for key, item in copy.items():
        kind = type(item)
        if type(key) is not str:
            return None
        if kind is str:
            texts.append(item)
        elif kind is int:
            if item not in _INT64:
                return None
        elif kind is float:
            if not math.isfinite(item):
                return None
        elif kind is dict and depth < MAX_METADATA_DEPTH:
            copy[key] = inner = _copied(item, texts, depth + 1)
            if inner is None:
                return None
        elif kind is list:
            copy[key] = _json(item, "metadata", depth + 1)
        elif item is not None and kind is not bool:
            return None
    return copy


def _encodes(text: str) -> bool:
    try:
        return len(text.encode()) <= MAX_TEXT_BYTES
    except UnicodeEncodeError:
        return False


def _json(value: object, place: str, depth: int) -> Json:
    kind = type(value)
    if kind is str:
        return _json_text(value, place)  # type: ignore[arg-type]
    if value is None or kind is bool:
        return value  # type: ignore[return-value]
    if kind is int:
        if value not in _INT64:
            raise InvalidError(
                f"{place} is an integer beyond 64 bits, which no JSON reader keeps exactly: store it as text"
            )
        return value  # type: ignore[return-value]
    if kind is float:
        if not math.isfinite(value):  # type: ignore[arg-type]
            raise InvalidError(f"{place} is {value}, which JSON does not have: use None")
        return value  # type: ignore[return-value]
    if depth > MAX_METADATA_DEPTH:
        raise InvalidError(f"metadata is nested more than {MAX_METADATA_DEPTH} levels deep")
    if kind is list:
        return [_json(item, f"{place}[{i}]", depth + 1) for i, item in enumerate(cast("list[object]", value))]
    if kind is dict:
        return {_json_key(k, place): _json(v, f"{place}.{k}", depth + 1) for k, v in value.items()}  # type: ignore[attr-defined]
    raise InvalidError(f"{place} is a {kind.__name__}, which would not come back as one from JSON: convert it first")


def _json_key(key: object, place: str) -> str:
    if type(key) is not str:
        raise InvalidError(f"{place} has the key {key!r}: keys are text, JSON would silently turn others into it")
    return _json_text(key, f"a key of {place}")


def _json_text(value: str, place: str) -> str:
    if "\0" in value:
        raise InvalidError(f"{place} holds U+0000, at which SQLite's JSON functions end a text: remove it")
    return value if value.isascii() else check_text(place, value)


def check_importance(value: object) -> float:
    """*value* as an importance from 0 to 1, else `InvalidError`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InvalidError(f"importance is a number from 0 to 1; got {value!r}")
    return float(value)


def check_time(name: str, value: object) -> datetime:
    """*value* as an aware datetime in UTC, else `InvalidError`."""
    if not isinstance(value, datetime) or value.tzinfo is None or value.utcoffset() is None:
        raise InvalidError(f"{name} is an aware datetime, such as datetime.now(UTC); got {value!r}")
    try:
        return from_micros(to_micros(value))  # a plain datetime, in UTC, whatever subclass was given
    except OverflowError as error:
        raise InvalidError(f"{name} lies outside the years 1 to 9999 in UTC; got {value!r}") from error


def check_ttl(value: object, since: datetime) -> datetime:
    """The end of a time to live of *value* (seconds or a timedelta) that began at *since*."""
    if not isinstance(value, int | float | timedelta) or isinstance(value, bool):
        raise InvalidError(f"ttl is in seconds, or a timedelta; got {value!r}")
    try:
        return since + (value if isinstance(value, timedelta) else timedelta(seconds=value))
    except (OverflowError, ValueError) as error:
        raise InvalidError(f"ttl {value!r} ends outside the years 1 to 9999") from error


def check_count(name: str, value: object, least: int, most: int) -> int:
    """*value* as a whole number from *least* to *most*, else `InvalidError`."""
    if type(value) is int and least <= value <= most:
        return value  # looking for a protocol takes ten times as long
    if isinstance(value, SupportsIndex) and not isinstance(value, bool) and least <= operator.index(value) <= most:
        return operator.index(value)
    raise InvalidError(f"{name} is a whole number, {least:,} to {most:,}; got {value!r}")


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
            None if value is None else as_embedding(value, space.dimension, zero_ok=space.metric != "cosine")
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
        self._zero_ok = space.metric != "cosine"
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
            metadata = _plain(metadata) if type(metadata) is dict else None
            if metadata is None:
                return None
        tags = self._tags(get("tags"))
        if tags is None:
            return None
        if vector is not None:
            vector = as_embedding(vector, self._dimension, zero_ok=self._zero_ok)
        id, importance, count = get("id"), get("importance"), get("access_count")
        created, updated = get("created_at"), get("updated_at")
        expires, accessed = get("expires_at"), get("accessed_at")
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
