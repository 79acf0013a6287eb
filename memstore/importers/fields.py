"""The fields of a record of the folder as arguments of `add`.

A value without a field in the store is stored unchanged under `metadata.imported`. A value that JSON in SQLite cannot
store is replaced by a text, and a remark says so.
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from memstore.errors import InvalidError, short_repr
from memstore.importers.report import Remarks
from memstore.timestamps import EPOCH
from memstore.validation.values import check_id, check_time, check_topics, check_words

IMPORTED = "imported"
"""The key in metadata of the values that have no field in the store."""

NO_VECTOR = "the memory is stored without a vector, so searches do not find it"

_MEMORY = frozenset(
    {
        "id",
        "content",
        "embedding",
        "timestamp",
        "quickrecal_score",
        "quickrecal_updated",
        "metadata",
        "access_count",
        "last_access_time",
    }
)
_ASSEMBLY = frozenset(
    {
        "assembly_id",
        "name",
        "description",
        "creation_time",
        "memories",
        "memory_ids",
        "composite_embedding",
        "tags",
        "topics",
        "metadata",
        "activation_level",
        "activation_count",
        "last_activation",
    }
)
_MAX_COUNT = 2**62
_INT64 = range(-(2**63), 2**63)
_MAX_DEPTH = 90  # deeper metadata is not checked here: the store raises an error for it
_SURROGATES = re.compile("[\ud800-\udfff]")
_NOT_IN_JSON = re.compile("[\0\ud800-\udfff]")


class FieldReader:
    """Reads one record field by field. *unmapped* collects the values for `metadata.imported`."""

    def __init__(self, values: Mapping[str, Any], remarks: Remarks) -> None:
        self.values = values
        self.remarks = remarks
        self.unmapped: dict[str, Any] = {}

    def keep(self, name: str, problem: str = "") -> None:
        """Move a value to `metadata.imported`. With *problem*, add a remark."""
        if self.values.get(name) is not None:
            self.unmapped[name] = self.values[name]
            if problem:
                self.remarks.add("mended", "field", f"{name}: {problem}. The value is in metadata.{IMPORTED}")

    def time(self, name: str) -> datetime | None:
        """A time in any of the formats of `time_of`; another value is kept."""
        value = self.values.get(name)
        time = None if value is None else time_of(value)
        if time is None:
            self.keep(name, f"expected a time, found {short_repr(value)}")
        return time

    def created(self, name: str, at: datetime | None) -> datetime | None:
        """The time of creation from the record, or else *at* from the index. None, if unknown, is the current time."""
        time = self.time(name) or at
        if time is None:
            self.remarks.add("mended", "field", f"{name}: no time in the record or the index. The current time is used")
        return time

    def text(self, name: str) -> str:
        """A text; empty where there is none."""
        value = self.values.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            self.keep(name, f"expected text, found {type(value).__name__}")
            return ""
        text = _SURROGATES.sub("\ufffd", value)
        if text != value:
            self.remarks.add(
                "mended", "field", f"{name}: halves of surrogate pairs are not valid text. U+FFFD replaces each"
            )
        return text

    def words(self, values: Mapping[str, Any], name: str, *, ordered: bool = False) -> list[str]:
        """The valid tags or topics. If one is invalid, all are kept in `metadata.imported`, too."""
        value = values.get(name)
        if value is None:
            return []
        words: list[str] = []
        invalid: list[object] = []
        for word in value if isinstance(value, list) else [value]:
            try:
                words += check_topics([word]) if ordered else check_words(name, [word])
            except InvalidError:
                invalid.append(word)
        if invalid:
            self.unmapped[name] = value
            examples = ", ".join(map(short_repr, invalid[:3]))
            self.remarks.add(
                "mended", "field", f"{name}: {examples} cannot be stored. All values are in metadata.{IMPORTED}"
            )
        return words

    def metadata(self, value: object) -> dict[str, Any]:
        """The metadata *value* of the record, with the unmapped values below one key."""
        document = dict(value) if isinstance(value, dict) else {}
        if value is not None and not isinstance(value, dict):
            self.unmapped["metadata"] = value
        if IMPORTED in document:
            self.unmapped["metadata"] = {IMPORTED: document.pop(IMPORTED)}
        if self.unmapped:
            document[IMPORTED] = self.unmapped
        storable, differs = _storable(document, 0)
        if differs:
            self.remarks.add(
                "mended", "field", "metadata: SQLite's JSON has no NaN, infinity, U+0000, half of a surrogate pair or "
                "integer beyond 64 bits. Texts replace them"
            )  # fmt: skip
        return dict(storable)


def memory_of(
    values: Mapping[str, Any], id: str, dimension: int, at: datetime | None, remarks: Remarks
) -> dict[str, Any]:
    """The arguments of `memories.add` for a memory's JSON.

    Args:
        values: the JSON of the memory.
        id: the id under which it is stored.
        dimension: the dimension of the store; 0 while it has none.
        at: the time of creation where the record has none.
        remarks: collects the remarks.

    Raises:
        InvalidError: the record has no text.
    """
    if not isinstance(values.get("content"), str):
        raise InvalidError(f"Invalid content: expected text, found {short_repr(values.get('content'))}")
    reader = FieldReader(values, remarks)
    metadata = values.get("metadata")
    tags: list[str] = []
    if isinstance(metadata, dict) and "tags" in metadata:
        tags = reader.words(metadata, "tags")
        metadata = {name: value for name, value in metadata.items() if name != "tags"}
    created = reader.created("timestamp", at)
    updated = reader.time("quickrecal_updated")
    item = {
        "id": id,
        "content": reader.text("content"),
        "embedding": _vector(values.get("embedding"), dimension, remarks),
        "tags": tags,
        "importance": _share(reader, "quickrecal_score"),
        "created_at": created,
        "updated_at": created if updated is None or (created is not None and updated < created) else updated,
        "accessed_at": reader.time("last_access_time"),
        "access_count": _count(reader, "access_count"),
    }
    for name in sorted(values.keys() - _MEMORY):
        reader.keep(name)
    return {**item, "metadata": reader.metadata(metadata)}


def assembly_of(values: Mapping[str, Any], id: str, at: datetime | None, remarks: Remarks) -> dict[str, Any]:
    """The arguments of `assemblies.add` without members, for the JSON of an assembly; arguments as of `memory_of`."""
    reader = FieldReader(values, remarks)
    created = reader.created("creation_time", at)
    item: dict[str, Any] = {
        "id": id,
        "name": reader.text("name"),
        "description": reader.text("description"),
        "tags": reader.words(values, "tags"),
        "topics": reader.words(values, "topics", ordered=True),
        "created_at": created,
        "updated_at": created,
    }
    level = _share(reader, "activation_level")
    if level:
        # Without a time of activation, that system let a level decay from the last access.
        item["activation_level"] = level
        item["activated_at"] = reader.time("last_activation") or time_of(values.get("last_access_time")) or created
    else:
        item["activated_at"] = reader.time("last_activation")
    item["activation_count"] = _count(reader, "activation_count")
    for name in sorted(values.keys() - _ASSEMBLY):
        reader.keep(name)
    return {**item, "metadata": reader.metadata(values.get("metadata"))}


def members_of(values: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any] | None], list[object]]:
    """The ids of the members of an assembly in order, each with its copy or None, and the entries without an id."""
    members: dict[str, dict[str, Any] | None] = {}
    invalid: list[object] = []
    for name in ("memories", "memory_ids"):
        entries = values.get(name)
        if isinstance(entries, dict):
            entries = [{"id": id, **copy} if isinstance(copy, dict) else id for id, copy in entries.items()]
        elif not isinstance(entries, list):
            entries = [] if entries is None else [entries]
        for member in entries:
            copy = member if isinstance(member, dict) else None
            id = usable_id(member if copy is None else copy.get("id", copy.get("memory_id")))
            if id is None:
                invalid.append(member)
            elif members.get(id) is None:
                members[id] = copy
    return members, invalid


def usable_id(value: object) -> str | None:
    """*value* if it is a valid id, else None."""
    try:
        return check_id(value)
    except InvalidError:
        return None


def time_of(value: object) -> datetime | None:
    """The time of *value*: seconds since 1970, also as text, or ISO 8601, in UTC without a zone. Else None."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            try:
                when = datetime.fromisoformat(str(value).strip())
                return check_time("time", when if when.tzinfo is not None else when.replace(tzinfo=UTC))
            except ValueError:
                return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return EPOCH + timedelta(seconds=value)
    except (OverflowError, ValueError):
        return None


def _vector(value: object, dimension: int, remarks: Remarks) -> list[float] | None:
    """The vector if it has numbers of the store's dimension. The store checks the rest."""
    if value is None:
        return None
    problem = ""
    if not isinstance(value, list) or not all(type(x) in (int, float) for x in value):
        problem = f"Invalid embedding: expected a list of numbers, found {short_repr(value)}"
    elif dimension and len(value) != dimension:
        problem = f"Invalid embedding: expected {dimension:,} numbers, found {len(value):,}"
    elif not _finite(value):
        problem = "Invalid embedding: expected finite numbers, found NaN or infinity"
    if problem:
        remarks.add("left_out", "vector", f"{problem}; {NO_VECTOR}")
        return None
    return value  # type: ignore[return-value]


def _finite(value: list[Any]) -> bool:
    try:
        return bool(np.isfinite(np.array(value, dtype=np.float64)).all())
    except OverflowError:
        return False


def _share(reader: FieldReader, name: str) -> float | None:
    """A number, clipped to 0 to 1. A clipped number is kept in `metadata.imported`, too."""
    value = reader.values.get(name)
    if value is None:
        return None
    if type(value) not in (int, float) or math.isnan(value):
        reader.keep(name, f"expected a number, found {short_repr(value)}")
        return None
    if not 0 <= value <= 1:
        reader.unmapped[name] = value
    return float(min(1, max(0, value)))


def _count(reader: FieldReader, name: str) -> int | None:
    value = reader.values.get(name)
    if value is None:
        return None
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 <= value <= _MAX_COUNT:
        reader.keep(name, f"expected a whole number of 0 or more, found {short_repr(value)}")
        return None
    return value


def _storable(value: Any, depth: int) -> tuple[Any, bool]:
    """*value* as metadata can store it, and whether that differs."""
    if isinstance(value, str):
        text = _NOT_IN_JSON.sub("\ufffd", value)
        return text, text != value
    if type(value) is float and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity", True
    if type(value) is int and value not in _INT64:
        return str(value), True
    if depth > _MAX_DEPTH or not isinstance(value, dict | list):
        return value, False
    if isinstance(value, list):
        pairs = [_storable(item, depth + 1) for item in value]
        return [item for item, _ in pairs], any(differs for _, differs in pairs)
    document, differs = {}, False
    for key, item in value.items():
        name, key_differs = _storable(key, depth)
        document[name], item_differs = _storable(item, depth + 1)
        differs = differs or key_differs or item_differs
    return document, differs
