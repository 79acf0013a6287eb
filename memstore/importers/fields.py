"""What becomes of the fields of a record: the arguments of `add`, and what has no field, kept in metadata.

A value is taken where the store has a place for it, and kept as it was under `metadata.imported` where it has not; a
value that cannot even be kept so is bent as little as can be, and a remark says so.
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
"""The key of metadata that holds what a record had and the store has no field for."""

NO_VECTOR = "the memory is stored without a vector, so no search finds it"

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
_MOST_COUNT = 2**62
_INT64 = range(-(2**63), 2**63)
_DEEPEST = 90  # metadata that is deeper the store refuses, and says so
_UNFIT = re.compile("[\ud800-\udfff]")
_UNFIT_IN_JSON = re.compile("[\0\ud800-\udfff]")


class Taking:
    """One record, field by field: what is taken, what is kept, what there is to remark."""

    def __init__(self, values: Mapping[str, Any], remarks: Remarks) -> None:
        self.values = values
        self.remarks = remarks
        self.kept: dict[str, Any] = {}
        self.item: dict[str, Any] = {}

    def keep(self, name: str, why: str = "") -> None:
        """Keep a value as it is; with *why*, remark that it is not where it belongs."""
        if self.values.get(name) is not None:
            self.kept[name] = self.values[name]
            if why:
                self.remarks.add("mended", "field", f"{name} {why}: it is kept in metadata.{IMPORTED}")

    def time(self, name: str) -> datetime | None:
        """A time, however it was written; one that is none is kept."""
        value = self.values.get(name)
        found = None if value is None else time_of(value)
        if found is None:
            self.keep(name, f"is no time, but {short_repr(value)}")
        return found

    def made(self, name: str, at: datetime | None) -> datetime | None:
        """When the record was made, by itself or else by the index; None, which the store takes for now, if unknown."""
        found = self.time(name) or at
        if found is None:
            self.remarks.add("mended", "field", f"neither {name} nor the index says when it was made: now, then")
        return found

    def text(self, name: str) -> str:
        """A text; empty where there is none."""
        value = self.values.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            self.keep(name, f"is no text, but {type(value).__name__}")
            return ""
        text = _UNFIT.sub("\ufffd", value)
        if text != value:
            self.remarks.add(
                "mended", "field", f"{name} held halves of surrogate pairs, which are no text: U+FFFD stands for each"
            )
        return text

    def words(self, values: Mapping[str, Any], name: str, *, ordered: bool = False) -> list[str]:
        """Tags or topics, those that can be ones; the rest stays in *values* or is kept."""
        given = values.get(name)
        if given is None:
            return []
        words: list[str] = []
        refused: list[object] = []
        for word in [given] if isinstance(given, str) else given if isinstance(given, list) else [given]:
            try:
                words += check_topics([word]) if ordered else check_words(name, [word])
            except InvalidError:
                refused.append(word)
        if refused:
            self.kept[name] = given
            few = ", ".join(map(short_repr, refused[:3]))
            self.remarks.add(
                "mended", "field", f"{name} held {few}, which cannot be one: all are kept in metadata.{IMPORTED}"
            )
        return words

    def metadata(self, own: object) -> dict[str, Any]:
        """The metadata of the record: its own, and below one key what was kept."""
        if isinstance(own, dict):
            made = dict(own)
        else:
            made = {}
            if own is not None:
                self.kept["metadata"] = own
        if IMPORTED in made:
            self.kept["metadata"] = {IMPORTED: made.pop(IMPORTED)}
        if self.kept:
            made[IMPORTED] = self.kept
        fit, bent = _fit(made, 0)
        if bent:
            self.remarks.add(
                "mended", "field", "metadata held what JSON in SQLite does not (NaN, infinity, U+0000, half of a "
                "surrogate pair, an integer beyond 64 bits): texts stand there instead"
            )  # fmt: skip
        return dict(fit)


def memory_of(
    values: Mapping[str, Any], id: str, dimension: int, at: datetime | None, remarks: Remarks
) -> dict[str, Any]:
    """The arguments of `memories.add` for a memory's JSON.

    Args:
        values: its JSON.
        id: its id.
        dimension: the store's.
        at: when it was made, if it does not say so itself.
        remarks: where to say what is not as it was.

    Raises:
        InvalidError: it has no text.
    """
    if not isinstance(values.get("content"), str):
        raise InvalidError(f"its content is no text, but {short_repr(values.get('content'))}")
    taking = Taking(values, remarks)
    own = values.get("metadata")
    tags: list[str] = []
    if isinstance(own, dict) and "tags" in own:
        tags = taking.words(own, "tags")
        own = {name: value for name, value in own.items() if name != "tags"}
    made = taking.made("timestamp", at)
    changed = taking.time("quickrecal_updated")
    item = {
        "id": id,
        "content": taking.text("content"),
        "embedding": _vector(values.get("embedding"), dimension, remarks),
        "tags": tags,
        "importance": _share(taking, "quickrecal_score"),
        "created_at": made,
        "updated_at": made if changed is None or (made is not None and changed < made) else changed,
        "accessed_at": taking.time("last_access_time"),
        "access_count": _count(taking, "access_count"),
    }
    for name in sorted(values.keys() - _MEMORY):
        taking.keep(name)
    return {**item, "metadata": taking.metadata(own)}


def assembly_of(values: Mapping[str, Any], id: str, at: datetime | None, remarks: Remarks) -> dict[str, Any]:
    """The arguments of `assemblies.add`, but for the members, for an assembly's JSON; arguments as of `memory_of`."""
    taking = Taking(values, remarks)
    made = taking.made("creation_time", at)
    item: dict[str, Any] = {
        "id": id,
        "name": taking.text("name"),
        "description": taking.text("description"),
        "tags": taking.words(values, "tags"),
        "topics": taking.words(values, "topics", ordered=True),
        "created_at": made,
        "updated_at": made,
    }
    level = _share(taking, "activation_level")
    if level:
        # Who wrote a level without saying when had it fade from the last time anything was done with it.
        item["activation_level"] = level
        item["activated_at"] = taking.time("last_activation") or time_of(values.get("last_access_time")) or made
    else:
        item["activated_at"] = taking.time("last_activation")
    item["activation_count"] = _count(taking, "activation_count")
    for name in sorted(values.keys() - _ASSEMBLY):
        taking.keep(name)
    return {**item, "metadata": taking.metadata(values.get("metadata"))}


def members_of(values: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any] | None], list[object]]:
    """The members that an assembly names, each with its copy if there is one, and what names none; in order."""
    members: dict[str, dict[str, Any] | None] = {}
    refused: list[object] = []
    for name in ("memories", "memory_ids"):
        given = values.get(name)
        if isinstance(given, dict):
            given = [{"id": id, **copy} if isinstance(copy, dict) else id for id, copy in given.items()]
        elif given is None:
            given = []
        elif not isinstance(given, list):
            given = [given]
        for member in given:
            copy = member if isinstance(member, dict) else None
            id = usable_id(member if copy is None else copy.get("id", copy.get("memory_id")))
            if id is None:
                refused.append(member)
            elif members.get(id) is None:
                members[id] = copy
    return members, refused


def usable_id(value: object) -> str | None:
    """*value* if it can be an id, else None."""
    try:
        return check_id(value)
    except InvalidError:
        return None


def time_of(value: object) -> datetime | None:
    """The time that *value* names: seconds since 1970, also as text, or ISO 8601, in UTC where it names no zone."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            try:
                when = datetime.fromisoformat(str(value).strip())
                return check_time("a time", when if when.tzinfo is not None else when.replace(tzinfo=UTC))
            except ValueError:
                return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return EPOCH + timedelta(seconds=value)
    except (OverflowError, ValueError):
        return None


def _vector(value: object, dimension: int, remarks: Remarks) -> list[float] | None:
    """The vector, if it can be one of the store at all; what else its space refuses, the store says."""
    if value is None:
        return None
    reason = ""
    if not isinstance(value, list) or not all(type(x) in (int, float) for x in value):
        reason = f"it is no list of numbers, but {short_repr(value)}"
    elif len(value) != dimension:
        reason = f"it has {len(value):,} numbers, and the store's have {dimension:,}"
    elif not _finite(value):
        reason = "it holds NaN or infinity"
    if reason:
        remarks.add("left_out", "vector", f"{reason}; {NO_VECTOR}")
        return None
    return value  # type: ignore[return-value]


def _finite(value: list[Any]) -> bool:
    try:
        return bool(np.isfinite(np.array(value, dtype=np.float64)).all())
    except OverflowError:
        return False


def _share(taking: Taking, name: str) -> float | None:
    """A number, clipped to 0 to 1: outside of it, it is kept too."""
    value = taking.values.get(name)
    if value is None:
        return None
    if type(value) not in (int, float) or math.isnan(value):
        taking.keep(name, f"is no number, but {short_repr(value)}")
        return None
    if not 0 <= value <= 1:
        taking.kept[name] = value
    return float(min(1, max(0, value)))


def _count(taking: Taking, name: str) -> int | None:
    value = taking.values.get(name)
    if value is None:
        return None
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 <= value <= _MOST_COUNT:
        taking.keep(name, f"is no count, but {short_repr(value)}")
        return None
    return value


def _fit(value: Any, depth: int) -> tuple[Any, bool]:
    """*value* as metadata can hold it, and whether that differs."""
    if isinstance(value, str):
        text = _UNFIT_IN_JSON.sub("\ufffd", value)
        return text, text != value
    if type(value) is float and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity", True
    if type(value) is int and value not in _INT64:
        return str(value), True
    if depth > _DEEPEST or not isinstance(value, dict | list):
        return value, False
    if isinstance(value, list):
        pairs = [_fit(item, depth + 1) for item in value]
        return [item for item, _ in pairs], any(bent for _, bent in pairs)
    fit, bent = {}, False
    for key, item in value.items():
        name, odd = _fit(key, depth)
        fit[name], other = _fit(item, depth + 1)
        bent = bent or odd or other
    return fit, bent
