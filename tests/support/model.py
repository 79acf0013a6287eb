"""The oracle of a store: a slow second implementation in dicts and float64.

`Model` has the verbs by name and raises the store's errors. It follows the documentation, not the code of the library.
Rows are plain dicts in the order of their creation. A time that the store sets is a `TimeRange` until the record was
read; from then on it is exact.
"""

import copy
import itertools
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from memstore import (
    Assembly,
    AssemblyForgetPolicy,
    DuplicateError,
    ForgetPolicy,
    InvalidError,
    Memory,
    MemstoreError,
    NotFoundError,
)
from tests.support.spaces import mean, score

Namespace = tuple[str, ...]
Key = tuple[Namespace, str]
Row = dict[str, Any]
Wide = npt.NDArray[np.float64]

MEMORY_DEFAULTS: Row = {
    "embedding": None,
    "tags": frozenset(),
    "metadata": {},
    "importance": 0.5,
    "expires_at": None,
    "accessed_at": None,
    "access_count": 0,
    "pinned": False,
}
ASSEMBLY_DEFAULTS: Row = {"name": "", "description": "", "tags": frozenset(), "topics": (), "metadata": {}}


def clock() -> datetime:
    return datetime.now(UTC)


@dataclass(eq=False)
class TimeRange:
    """A time that the store sets, between the start and the end of a call."""

    low: datetime = field(default_factory=clock)
    high: datetime | None = None

    def end(self) -> None:
        self.high = clock()

    def later(self, seconds: float) -> "Later":
        return Later(self, timedelta(seconds=seconds))


@dataclass(eq=False)
class Later:
    """A time *shift* after a time that the store sets."""

    moment: TimeRange
    shift: timedelta


def agrees(expected: object, actual: object) -> bool:
    """Whether the value of a field matches the expected one."""
    if isinstance(expected, TimeRange):
        return isinstance(actual, datetime) and expected.low <= actual <= (expected.high or clock())
    if isinstance(expected, Later):
        return isinstance(actual, datetime) and agrees(expected.moment, actual - expected.shift)
    if isinstance(expected, np.ndarray):
        return isinstance(actual, np.ndarray) and expected.tobytes() == actual.tobytes()
    return type(expected) is type(actual) and expected == actual


def since(time: TimeRange | datetime) -> TimeRange:
    """A time between *time* and now."""
    return TimeRange(low=time.low if isinstance(time, TimeRange) else time)


def is_past(when: object) -> bool:
    if isinstance(when, Later):
        return when.shift <= timedelta(0)
    return isinstance(when, datetime) and when <= clock()


@dataclass(frozen=True)
class Command:
    """One call of a verb: `face.namespace(*namespace).noun.verb(**arguments)`."""

    noun: str
    verb: str
    namespace: Namespace
    arguments: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Where:
    """A filter, and a function that decides whether it matches a row."""

    where: Mapping[str, Any]
    says: Callable[[Key, Row], bool]

    def __repr__(self) -> str:
        return repr(self.where)


@dataclass(frozen=True, eq=False)
class Archived:
    """A record in the trash, or a source of a merge.

    Attributes:
        partners: the uids of the other ends of its memberships.
    """

    noun: str
    key: Key
    row: Row
    partners: frozenset[int]
    cause: str


def tolerance(metric: str, query: Wide, vectors: Iterable[Wide]) -> float:
    """The largest error of a score that float32 rounding explains."""
    longest = max((float(np.linalg.norm(v)) for v in vectors), default=0.0)
    if metric == "inner_product":
        return 2e-6 * float(np.linalg.norm(query)) * longest
    if metric == "hyperbolic":
        return 3e-6 + 3e-7 / (1 - longest)  # the nearer to the edge, the farther a rounding moves a vector
    return 3e-6


class Model:
    """The contents of a store, and its verbs. Every row has a `uid` for its whole life; later rows have higher ones."""

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.memories: dict[Key, Row] = {}
        self.assemblies: dict[Key, Row] = {}
        self.archived: list[Archived] = []  # the oldest first
        self.uids = itertools.count()

    def copy(self) -> "Model":
        other = Model(self.metric)
        other.adopt(self)
        return other

    def adopt(self, other: "Model") -> None:
        self.memories = {key: dict(row) for key, row in other.memories.items()}
        self.assemblies = {key: dict(row) for key, row in other.assemblies.items()}
        self.archived = list(other.archived)
        self.uids = other.uids

    # -- reads

    def rows(self, noun: str) -> dict[Key, Row]:
        """The rows that a read sees, in order of creation."""
        if noun == "assemblies":
            return self.assemblies
        return {key: row for key, row in self.memories.items() if not is_past(row["expires_at"])}

    def selected(
        self, noun: str, namespace: Namespace, *, recursive: bool, tags: Iterable[str], where: Where | None
    ) -> list[Key]:
        depth = len(namespace)
        return [
            key
            for key, row in self.rows(noun).items()
            if (key[0] == namespace or (recursive and key[0][:depth] == namespace))
            and row["tags"] >= set(tags)
            and (where is None or where.says(key, row))
        ]

    def vector(self, noun: str, key: Key) -> Wide | None:
        if noun == "assemblies":
            return self.composite(key)
        embedding = self.memories[key]["embedding"]
        return None if embedding is None else embedding.astype(np.float64)

    def members(self, key: Key, *, expired: bool = True) -> list[Key]:
        rows = self.memories if expired else self.rows("memories")
        return [k for k in rows if k[0] == key[0] and k[1] in self.assemblies[key]["members"]]

    def composite(self, key: Key, *, expired: bool = True) -> Wide | None:
        vectors = [self.memories[k]["embedding"] for k in self.members(key, expired=expired)]
        return mean(self.metric, [v for v in vectors if v is not None])

    def of(self, memory: Key) -> list[Key]:
        """The assemblies a memory is a member of."""
        return [k for k, row in self.assemblies.items() if k[0] == memory[0] and memory[1] in row["members"]]

    def trash(self, noun: str, namespace: Namespace) -> list[str]:
        """The ids in the trash, the latest first."""
        ids = [e.key[1] for e in self.archived if (e.cause, e.noun, e.key[0]) == ("forgotten", noun, namespace)]
        return ids[::-1]

    def tag_counts(self, namespace: Namespace) -> dict[str, tuple[int, int]]:
        counts: dict[str, list[int]] = {}
        for place, noun in enumerate(("memories", "assemblies")):
            for key, row in self.rows(noun).items():
                for tag in row["tags"] if key[0] == namespace else ():
                    counts.setdefault(tag, [0, 0])[place] += 1
        return {tag: (m, a) for tag, (m, a) in sorted(counts.items())}

    # -- writes

    def run(self, command: Command, moment: TimeRange) -> Any:
        """Apply *command*, or raise its error and change nothing."""
        before = self.copy()
        verb = getattr(self, f"{command.noun}_{command.verb}")
        try:
            self.purge()
            return verb(command.namespace, moment, **copy.deepcopy(dict(command.arguments)))
        except MemstoreError:
            self.adopt(before)
            raise

    def purge(self) -> None:
        """Delete expired memories; every write begins with it."""
        for owner in self.assemblies:
            self.stamp_expiries(owner)
        for key in [key for key, row in self.memories.items() if is_past(row["expires_at"])]:
            self.drop_memory(key)

    def stamp_expiries(self, owner: Key) -> None:
        """Set `updated_at` of an assembly to the time at which its last member expired."""
        row = self.assemblies[owner]
        for key in self.members(owner):
            expires_at, updated_at = self.memories[key]["expires_at"], row["updated_at"]
            if is_past(expires_at):
                exact = isinstance(expires_at, datetime) and isinstance(updated_at, datetime)
                row["updated_at"] = max(updated_at, expires_at) if exact else since(updated_at)

    def drop_memory(self, key: Key, moment: TimeRange | None = None) -> None:
        del self.memories[key]
        for owner in self.of(key):
            self.assemblies[owner]["members"] = self.assemblies[owner]["members"] - {key[1]}
            if moment is not None:
                self.assemblies[owner]["updated_at"] = moment

    def loosen_times(self, namespace: Namespace) -> None:
        """Take any `updated_at` from the present one on for the assemblies of a namespace, as after an undo."""
        for key, row in self.assemblies.items():
            if key[0] == namespace:
                row["updated_at"] = since(row["updated_at"])

    def need(self, noun: str, key: Key) -> Row:
        row = self.rows(noun).get(key)
        if row is None:
            raise NotFoundError(noun, key[1], key[0])
        return row

    def _fields(self, values: Row, moment: TimeRange) -> Row:
        fields = dict(values)
        if "ttl" in fields:
            fields["expires_at"] = moment.later(fields.pop("ttl"))
        if "tags" in fields:
            fields["tags"] = frozenset(fields["tags"])
        if "topics" in fields:
            fields["topics"] = tuple(fields["topics"])
        fields.pop("id", None)
        fields.pop("members", None)
        return fields

    def _new_row(self, defaults: Row, values: Row, moment: TimeRange) -> Row:
        fields = self._fields(values, moment)
        created = fields.setdefault("created_at", moment)
        fields["updated_at"] = created if isinstance(created, datetime) and created > clock() else moment
        return copy.deepcopy(defaults) | fields | {"uid": next(self.uids)}

    def memories_add(self, namespace: Namespace, moment: TimeRange, **item: Any) -> list[Key]:
        return self.memories_add_many(namespace, moment, [item])

    def memories_add_many(self, namespace: Namespace, moment: TimeRange, items: list[Row]) -> list[Key]:
        for item in items:
            key = namespace, item["id"]
            if key in self.memories:
                raise DuplicateError("memory", key[1])
            self.memories[key] = self._new_row(MEMORY_DEFAULTS, item, moment)
        return [(namespace, item["id"]) for item in items]

    def memories_upsert(self, namespace: Namespace, moment: TimeRange, **item: Any) -> list[Key]:
        return self.memories_upsert_many(namespace, moment, [item])

    def memories_upsert_many(self, namespace: Namespace, moment: TimeRange, items: list[Row]) -> list[Key]:
        for id, item in {item["id"]: item for item in items}.items():
            row = self._new_row(MEMORY_DEFAULTS, item, moment)
            old = self.memories.get((namespace, id))
            if old is not None:
                unchanged = {"created_at", "accessed_at", "access_count", "pinned", "uid"} - item.keys()
                row |= {name: old[name] for name in unchanged}
                if is_same(old, row):
                    row["updated_at"] = old["updated_at"]
            self.memories[namespace, id] = row
        return [(namespace, item["id"]) for item in items]

    def memories_update(self, namespace: Namespace, moment: TimeRange, id: str, **changes: Any) -> list[Key]:
        if "content" in changes and "embedding" not in changes:
            raise InvalidError("new content needs a new embedding")
        row = self.need("memories", (namespace, id))
        self._update(row, changes, moment)
        return [(namespace, id)]

    def _update(self, row: Row, changes: Row, moment: TimeRange) -> None:
        """Change a row; without a difference it keeps its `updated_at`."""
        changed = row | self._fields(changes, moment)
        if not is_same(row, changed):
            row.update(changed, updated_at=moment)

    def memories_update_and_undo(self, namespace: Namespace, moment: TimeRange, id: str, **changes: Any) -> None:
        before = dict(self.need("memories", (namespace, id)))
        self.memories_update(namespace, moment, id, **changes)
        self.memories[namespace, id] = before

    def memories_delete(self, namespace: Namespace, moment: TimeRange, id: str) -> int:
        return self.memories_delete_many(namespace, moment, ids=[id])

    def memories_delete_many(
        self, namespace: Namespace, moment: TimeRange, ids: list[str] | None = None, where: Where | None = None
    ) -> int:
        selected = self.selected("memories", namespace, recursive=False, tags=(), where=where)
        deleted = [key for key in selected if ids is None or key[1] in ids]
        for key in deleted:
            self.drop_memory(key, moment)
        return len(deleted)

    def memories_touch(self, namespace: Namespace, moment: TimeRange, ids: list[str]) -> int:
        used = [(namespace, id) for id in dict.fromkeys(ids) if (namespace, id) in self.memories]
        for key in used:
            row = self.memories[key]
            row.update(accessed_at=moment, access_count=row["access_count"] + 1)
        return len(used)

    def assemblies_add(self, namespace: Namespace, moment: TimeRange, **item: Any) -> list[Key]:
        key = namespace, item["id"]
        if key in self.assemblies:
            raise DuplicateError("assembly", key[1])
        self._require(namespace, item.get("members", ()))
        self.assemblies[key] = self._new_row(ASSEMBLY_DEFAULTS, item, moment) | {
            "members": set(item.get("members", ()))
        }
        return [key]

    def assemblies_upsert(self, namespace: Namespace, moment: TimeRange, **item: Any) -> list[Key]:
        key = namespace, item["id"]
        self._require(namespace, item.get("members", ()))
        row = self._new_row(ASSEMBLY_DEFAULTS, item, moment)
        old = self.assemblies.get(key)
        row["members"] = set(item.get("members", old["members"] if old is not None else ()))
        if old is not None:
            row |= {name: old[name] for name in ("seen", "uid") if name in old}
            if "created_at" not in item:
                row["created_at"] = old["created_at"]
            if is_same(old, row):
                row["updated_at"] = old["updated_at"]
        self.assemblies[key] = row
        return [key]

    def assemblies_update(self, namespace: Namespace, moment: TimeRange, id: str, **changes: Any) -> list[Key]:
        row = self.need("assemblies", (namespace, id))
        self._update(row, changes, moment)
        return [(namespace, id)]

    def assemblies_delete(self, namespace: Namespace, moment: TimeRange, id: str) -> int:
        return 0 if self.assemblies.pop((namespace, id), None) is None else 1

    def assemblies_delete_many(self, namespace: Namespace, moment: TimeRange, where: Where) -> int:
        deleted = self.selected("assemblies", namespace, recursive=False, tags=(), where=where)
        for key in deleted:
            del self.assemblies[key]
        return len(deleted)

    def assemblies_add_members(self, namespace: Namespace, moment: TimeRange, id: str, ids: list[str]) -> list[Key]:
        row = self.need("assemblies", (namespace, id))
        self._require(namespace, ids)
        if not set(ids) <= row["members"]:
            row.update(members=row["members"] | set(ids), updated_at=moment)
        return [(namespace, id)]

    def assemblies_remove_members(self, namespace: Namespace, moment: TimeRange, id: str, ids: list[str]) -> list[Key]:
        row = self.need("assemblies", (namespace, id))
        if row["members"] & set(ids):
            row.update(members=row["members"] - set(ids), updated_at=moment)
        return [(namespace, id)]

    def _require(self, namespace: Namespace, members: Iterable[str]) -> None:
        for id in members:
            self.need("memories", (namespace, id))

    # -- trash and merges

    def memories_forget(self, namespace: Namespace, moment: TimeRange, where: Where) -> int:
        return self._forget("memories", namespace, where, moment)

    def assemblies_forget(self, namespace: Namespace, moment: TimeRange, where: Where) -> int:
        return self._forget("assemblies", namespace, where, moment)

    def _forget(self, noun: str, namespace: Namespace, where: Where, moment: TimeRange) -> int:
        keys = self.selected(noun, namespace, recursive=False, tags=(), where=where)
        keys = [key for key in keys if not self.rows(noun)[key].get("pinned")]
        for key in keys:
            self._archive(noun, key, "forgotten", moment)
        return len(keys)

    def _archive(self, noun: str, key: Key, cause: str, moment: TimeRange) -> None:
        if noun == "memories":
            row, partners = self.memories[key], [self.assemblies[owner]["uid"] for owner in self.of(key)]
            self.drop_memory(key, moment)
        else:
            row = self.assemblies.pop(key)
            partners = [self.memories[key[0], id]["uid"] for id in row["members"]]
        self.archived.append(Archived(noun, key, row, frozenset(partners), cause))

    def memories_recover(self, namespace: Namespace, moment: TimeRange, ids: list[str]) -> list[Key]:
        return self._recover("memories", namespace, ids, moment)

    def assemblies_recover(self, namespace: Namespace, moment: TimeRange, ids: list[str]) -> list[Key]:
        return self._recover("assemblies", namespace, ids, moment)

    def _recover(self, noun: str, namespace: Namespace, ids: list[str], moment: TimeRange) -> list[Key]:
        (id,) = ids
        trash = [entry for entry in self.archived if entry.cause == "forgotten" and entry.noun == noun]
        entry = next((entry for entry in reversed(trash) if entry.key == (namespace, id)), None)
        if entry is None:
            raise NotFoundError(noun, id, namespace)
        if is_past(entry.row.get("expires_at")):
            raise InvalidError("expired in the trash")
        rows, partner_noun = getattr(self, noun), NOUNS[noun == "memories"]
        if entry.key in rows:
            raise DuplicateError(noun, id)
        self.archived.remove(entry)
        row = dict(entry.row) | ({} if noun == "memories" else {"members": set()})
        rows[entry.key] = row
        setattr(self, noun, dict(sorted(rows.items(), key=lambda item: item[1]["uid"])))
        partners = {partner["uid"]: key for key, partner in getattr(self, partner_noun).items()}
        for uid in entry.partners:
            if uid in partners:
                memory, owner = (entry.key, partners[uid]) if noun == "memories" else (partners[uid], entry.key)
                self.assemblies[owner]["members"] = self.assemblies[owner]["members"] | {memory[1]}
                if noun == "memories":
                    self.assemblies[owner]["updated_at"] = moment
            else:  # the membership moves to the end that is still archived
                self.archived = [
                    replace(other, partners=other.partners | {row["uid"]}) if other.row["uid"] == uid else other
                    for other in self.archived
                ]
        return [entry.key]

    def memories_purge(self, namespace: Namespace, moment: TimeRange, older_than: int) -> int:
        return self._purge("memories", namespace)

    def assemblies_purge(self, namespace: Namespace, moment: TimeRange, older_than: int) -> int:
        return self._purge("assemblies", namespace)

    def _purge(self, noun: str, namespace: Namespace) -> int:
        before = len(self.archived)
        purged = "forgotten", noun, namespace
        self.archived = [entry for entry in self.archived if (entry.cause, entry.noun, entry.key[0]) != purged]
        return before - len(self.archived)

    def memories_erase(self, namespace: Namespace, moment: TimeRange, ids: list[str]) -> None:
        self._erase("memories", namespace, ids, moment)

    def assemblies_erase(self, namespace: Namespace, moment: TimeRange, ids: list[str]) -> None:
        self._erase("assemblies", namespace, ids, moment)

    def _erase(self, noun: str, namespace: Namespace, ids: list[str], moment: TimeRange) -> None:
        keys = {(namespace, id) for id in ids}
        for key in keys & getattr(self, noun).keys():
            self.drop_memory(key, moment) if noun == "memories" else self.assemblies.pop(key)
        self.archived = [entry for entry in self.archived if entry.noun != noun or entry.key not in keys]

    def assemblies_merge(self, namespace: Namespace, moment: TimeRange, ids: list[str], into: str) -> None:
        if len(set(ids)) < len(ids):
            raise InvalidError("an id is given twice")
        for id in ids:
            self.need("assemblies", (namespace, id))
        target, sources = (namespace, into), [(namespace, id) for id in ids if id != into]
        if len(sources) + (target in self.assemblies) < 2:
            raise InvalidError("too few assemblies")
        old = self.assemblies.get(target)
        rows = ([] if old is None else [old]) + [self.assemblies[key] for key in sources]
        merged: Row = {
            "name": next((row["name"] for row in rows if row["name"]), ""),
            "tags": frozenset().union(*(row["tags"] for row in rows)),
            "topics": tuple(dict.fromkeys(topic for row in rows for topic in row["topics"])),
            "metadata": {name: value for row in reversed(rows) for name, value in row["metadata"].items()},
            "members": set().union(*(row["members"] for row in rows)),
        }
        for key in sources:
            self._archive("assemblies", key, "merged", moment)
        if old is None:
            self.assemblies[target] = self._new_row(ASSEMBLY_DEFAULTS, {}, moment) | merged
        else:
            if not is_same(old, old | merged):
                old.update(merged, updated_at=moment)

    def tags_rename(self, namespace: Namespace, moment: TimeRange, old: str, new: str) -> int:
        carriers = self._carriers(namespace, old)
        if not carriers:
            raise NotFoundError("tag", old, namespace)
        if old == new:
            return 0
        for row in carriers:
            row.update(tags=row["tags"] - {old} | {new}, updated_at=moment)
        return len(carriers)

    def tags_delete(self, namespace: Namespace, moment: TimeRange, tag: str) -> int:
        carriers = self._carriers(namespace, tag)
        for row in carriers:
            row.update(tags=row["tags"] - {tag}, updated_at=moment)
        return len(carriers)

    def _carriers(self, namespace: Namespace, tag: str) -> list[Row]:
        every = [*self.memories.items(), *self.assemblies.items()]
        return [row for key, row in every if key[0] == namespace and tag in row["tags"]]

    def clear(self, namespace: Namespace, *, recursive: bool) -> int:
        self.purge()
        deleted = {noun: self.selected(noun, namespace, recursive=recursive, tags=(), where=None) for noun in NOUNS}
        for key in deleted["memories"]:
            self.drop_memory(key)
        for key in deleted["assemblies"]:
            del self.assemblies[key]
        depth = len(namespace)
        self.archived = [
            entry
            for entry in self.archived
            if not (entry.key[0] == namespace or (recursive and entry.key[0][:depth] == namespace))
        ]
        return sum(map(len, deleted.values()))


NOUNS = ("memories", "assemblies")


def is_same(old: Row, new: Row) -> bool:
    """Whether two rows differ at most in what does not count as a change."""

    def comparable(value: Any) -> Any:
        return value.tobytes() if isinstance(value, np.ndarray) else value

    names = (old.keys() | new.keys()) - {"uid", "seen", "updated_at"}
    return all(comparable(old.get(name)) == comparable(new.get(name)) for name in names)


# -- the store against the model


def same_fields(row: Row, record: Memory | Assembly, names: Iterable[str]) -> None:
    """Compare fields of a record with its row in the model; times that the store set become exact."""
    for name in (*names, "created_at", "updated_at"):
        actual = getattr(record, name)
        assert agrees(row[name], actual), f"{record.id!r}: {name} is {actual!r}, not {row[name]!r}"
        row[name] = copy.deepcopy(actual) if name == "metadata" else actual


def same_memory(model: Model, record: Memory) -> None:
    """Compare a memory with the model."""
    same_fields(model.memories[record.namespace, record.id], record, ("content", *MEMORY_DEFAULTS))


def same_assembly(model: Model, record: Assembly) -> None:
    """Compare an assembly with the model, and its composite with the mean of its members."""
    key = record.namespace, record.id
    row = model.assemblies[key]
    model.stamp_expiries(key)
    same_fields(row, record, ASSEMBLY_DEFAULTS)
    assert record.member_count == len(model.members(key, expired=False))
    expected = model.composite(key, expired=False)
    assert is_close(expected, record.composite), f"{key}: {record.composite} is not {expected}"
    state = frozenset((k, _bytes(model.memories[k]["embedding"])) for k in model.members(key, expired=False))
    revision, before = row.get("seen", (-1, None))
    assert record.revision >= revision
    assert record.revision > revision or state == before, f"{key}: members changed, revision {revision} did not"
    row["seen"] = record.revision, state


def _bytes(vector: npt.NDArray[np.float32] | None) -> bytes:
    return b"" if vector is None else vector.tobytes()


def is_close(expected: Wide | None, actual: npt.NDArray[np.float32] | None) -> bool:
    if expected is None or actual is None:
        return expected is None and actual is None
    distance = np.linalg.norm(actual.astype(np.float64) - expected)
    return bool(distance <= 1e-6 * np.linalg.norm(expected))


async def same(model: Model, face: Any, namespaces: Collection[Namespace]) -> None:
    """Compare all records of *face* with the model, and the members, tags and trash of *namespaces*."""
    memories = [record async for record in face.memories.list(recursive=True)]
    assert len({(m.namespace, m.id) for m in memories}) == len(memories)
    assert {(m.namespace, m.id) for m in memories} == model.rows("memories").keys()
    for memory in memories:
        same_memory(model, memory)
    assemblies = [record async for record in face.assemblies.list(recursive=True)]
    assert [(a.namespace, a.id) for a in assemblies] == [key for key, _ in by(model.assemblies, "created_at")]
    for assembly in assemblies:
        same_assembly(model, assembly)
        key = assembly.namespace, assembly.id
        if key[0] not in namespaces:
            continue
        members = [id async for id in at(face, key[0]).assemblies.members(key[1])]
        assert members == [k[1] for k in model.members(key, expired=False)]
    for namespace in namespaces:
        tags = [tag async for tag in at(face, namespace).tags.list()]
        assert {t.name: (t.memory_count, t.assembly_count) for t in tags} == model.tag_counts(namespace)
        for noun in NOUNS:
            trash = [entry.record.id async for entry in getattr(at(face, namespace), noun).trash()]
            assert trash == model.trash(noun, namespace)


async def call(face: Any, command: Command) -> Any:
    """Run *command*, with its vectors, on a store or an open transaction."""
    arguments = {name: v.where if isinstance(v, Where) else v for name, v in command.arguments.items()}
    verbs = getattr(at(face, command.namespace), command.noun)
    if command.verb == "forget":
        policy = ForgetPolicy if command.noun == "memories" else AssemblyForgetPolicy
        return await verbs.forget(await verbs.plan_forget(policy(**arguments)))
    if command.verb == "update_and_undo":
        async with face.transaction() as tx:
            verbs = getattr(at(tx, command.namespace), command.noun)
            before = await verbs.history(command.arguments["id"], limit=1)
            await verbs.update(**arguments)
            (change,) = await verbs.history(command.arguments["id"], limit=1)
            if [change] != before:  # an update that changes nothing is no change
                await tx.undo(change)
        return None
    return await getattr(verbs, command.verb)(**arguments)


def at(face: Any, namespace: Namespace) -> Any:
    return face.namespace(*namespace) if namespace else face


def by(rows: Mapping[Key, Row], column: str, *, descending: bool = False) -> list[tuple[Key, Row]]:
    """Rows in the order of a list: by the column, None first, then by creation."""

    def value(entry: tuple[int, tuple[Key, Row]]) -> tuple[Any, ...]:
        place, (key, row) = entry
        field_value = key[1] if column == "id" else row[column]
        if isinstance(field_value, TimeRange):  # the store's own time, later than all before it
            field_value = field_value.low
        return (field_value is not None, field_value, place) if field_value is not None else (False, place)

    return [entry for _, entry in sorted(enumerate(rows.items()), key=value, reverse=descending)]


@dataclass(frozen=True, kw_only=True)
class Search:
    """The arguments of one search."""

    noun: str
    namespace: Namespace = ()
    limit: int = 10
    tags: frozenset[str] = frozenset()
    where: Where | None = None
    min_score: float | None = None
    recursive: bool = False

    def arguments(self) -> Row:
        options: Row = {
            "limit": self.limit,
            "tags": self.tags,
            "min_score": self.min_score,
            "recursive": self.recursive,
        }
        return options if self.where is None else options | {"where": self.where.where}


def vector_of(record: Memory | Assembly) -> Wide:
    vector = record.embedding if isinstance(record, Memory) else record.composite
    assert vector is not None
    return vector.astype(np.float64)


def order_of_equal_scores(metric: str, query: Wide, earlier: Wide, later: Wide) -> float:
    """Which of two hits of one score is to come first: 1 *earlier*, -1 *later*, 0 the older; NaN if rounding decides.

    Short distances differ although their scores are equal.
    """
    if metric in ("cosine", "inner_product") or np.array_equal(earlier, later):
        return 0
    if metric == "spherical":
        query, earlier, later = (vector / np.linalg.norm(vector) for vector in (query, earlier, later))
    a, b = np.linalg.norm(earlier - query), np.linalg.norm(later - query)
    return np.nan if abs(a - b) <= 1e-6 * max(a, b) else np.sign(b - a)


def right_hits(model: Model, search: Search, query: npt.NDArray[np.float32], hits: Any) -> None:
    """Check that hits are the nearest rows that the arguments allow, by float64 scores; ties may be in any order."""
    allowed = model.selected(
        search.noun, search.namespace, recursive=search.recursive, tags=search.tags, where=search.where
    )
    vectors = {key: model.vector(search.noun, key) for key in allowed}
    wide = {key: vector for key, vector in vectors.items() if vector is not None}
    wide_query = query.astype(np.float64)
    slack = tolerance(model.metric, wide_query, wide.values())
    scores = {key: score(model.metric, wide_query, vector) for key, vector in wide.items()}
    least = -np.inf if search.min_score is None else search.min_score
    surely = sum(value >= least + slack for value in scores.values())
    perhaps = sum(value >= least - slack for value in scores.values())
    assert min(search.limit, surely) <= len(hits) <= min(search.limit, perhaps), f"{len(hits)} hits of {scores}"
    best = sorted(scores.values(), reverse=True)
    places = {key: place for place, key in enumerate(wide)}
    records = [hit.memory if search.noun == "memories" else hit.assembly for hit in hits]
    keys = [(record.namespace, record.id) for record in records]
    assert len(set(keys)) == len(keys)
    for i, (hit, key) in enumerate(zip(hits, keys, strict=True)):
        assert key in scores, f"{key} is not allowed"
        assert abs(hit.score - scores[key]) <= slack, f"{key} scores {hit.score}, not {scores[key]}"
        assert hit.score >= best[i] - 2 * slack, f"{key} at place {i} scores {hit.score}, not {best[i]}"
        assert hit.score >= least
        if i and hits[i - 1].score == hit.score:
            ahead = order_of_equal_scores(model.metric, wide_query, vector_of(records[i - 1]), vector_of(records[i]))
            assert ahead >= 0 or np.isnan(ahead), "a farther hit comes first"
            assert ahead != 0 or places[keys[i - 1]] < places[key], "equally near hits are not in order"
        elif i:
            assert hits[i - 1].score > hit.score, "not in order"
    assert hits.plan.allowed == len(scores)
    for record in records:
        (same_memory if search.noun == "memories" else same_assembly)(model, record)
