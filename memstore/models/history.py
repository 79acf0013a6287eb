"""The record of one change of a memory or an assembly."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import numpy as np

from memstore.models.record import INTERNAL, Record
from memstore.models.records import Embedding, Json, Namespace

ChangeKind = Literal["added", "updated", "deleted", "expired", "forgotten", "merged", "restored", "damaged"]
FieldValue = str | int | float | bool | datetime | frozenset[str] | tuple[str, ...] | dict[str, Json] | Embedding | None
"""ChangeKind a field of a record holds."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Change(Record):
    """One change of one memory or assembly.

    Attributes:
        number: number of the change in its file; later changes have higher numbers. Records that one write added
            share a number.
        record_kind: `"memory"` or `"assembly"`.
        id: id of the record.
        namespace: namespace of the record.
        kind: `added`; `updated`; `deleted`; `expired` (deleted because it expired); `forgotten` (moved to the trash);
            `merged` (merged into another assembly); `restored` (back, with all its fields); `damaged` (the change
            cannot be read).
        at: time of the change, UTC, by the clock of that moment. A clock that was set back can give a change an
            earlier time than the one before it; the numbers are in the order of the commits. All changes of one
            transaction have the same time.
        actor: who made the change; None if unknown.
        reason: why; None if unknown.
        undoes: number of the change that this change undid; None for any other change.
        old: the changed fields before the change: all fields if the record was removed, none if it was added.
        new: the changed fields after the change: all fields if the record was added, none if it was removed.
        members_added: ids of the memories that became members of the assembly.
        members_removed: ids of the memories whose membership ended.
        damage: what of the change cannot be read; None for a sound one. `old` and `new` leave such fields out.
        origin: the store and the content of its file that the change was read from; `undo` takes no change of another
            origin. Not compared.
    """

    number: int
    record_kind: Literal["memory", "assembly"]
    id: str
    namespace: Namespace
    kind: ChangeKind
    at: datetime
    actor: str | None
    reason: str | None
    undoes: int | None
    old: Mapping[str, FieldValue]
    new: Mapping[str, FieldValue]
    members_added: tuple[str, ...]
    members_removed: tuple[str, ...]
    damage: str | None = None
    origin: str = field(default="", repr=False, metadata=INTERNAL)

    def _values(self) -> tuple[object, ...]:
        """Every field but the actor, the reason, the undone change and the origin, with arrays as bytes."""
        versions = [
            {name: value.tobytes() if isinstance(value, np.ndarray) else value for name, value in version.items()}
            for version in (self.old, self.new)
        ]
        members = (self.members_added, self.members_removed)
        return (self.number, self.record_kind, self.id, self.namespace, self.kind, self.at, *versions, *members)

    def __eq__(self, other: object) -> bool:
        return self._values() == other._values() if isinstance(other, Change) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.number, self.record_kind, self.namespace, self.id))
