"""The record of one change, as the history of a memory or an assembly gives it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np

from memstore.models.records import Embedding, Json, Namespace

What = Literal["added", "updated", "deleted", "expired", "forgotten", "merged", "restored"]
Value = str | int | float | bool | datetime | frozenset[str] | tuple[str, ...] | dict[str, Json] | Embedding | None
"""What a field of a record holds."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Change:
    """One change of one memory or assembly.

    Attributes:
        number: of the change in its file; later ones are higher. Records that one write added share one.
        noun: of what.
        id: of the record.
        namespace: of the record.
        what: `added`; `updated`; `deleted`; `expired` (deleted because its time had come); `forgotten`; `merged`;
            `restored` (there again, with the fields it had).
        at: when, UTC; never earlier than the change before. All changes of a transaction have one time.
        actor: who, if anybody said so.
        reason: why, if anybody said so.
        undoes: the number of the change that this one undid.
        old: the fields that were changed, as they were; all of a record that went, none of one that came.
        new: the same fields as they were then; all of a record that came, none of one that went.
        joined: ids of the memories that became members of the assembly.
        left: ids of those that ended being members.
    """

    number: int
    noun: Literal["memory", "assembly"]
    id: str
    namespace: Namespace
    what: What
    at: datetime
    actor: str | None
    reason: str | None
    undoes: int | None
    old: Mapping[str, Value]
    new: Mapping[str, Value]
    joined: tuple[str, ...]
    left: tuple[str, ...]

    def _values(self) -> tuple[object, ...]:
        fields = [
            {k: v.tobytes() if isinstance(v, np.ndarray) else v for k, v in m.items()} for m in (self.old, self.new)
        ]
        return (self.number, self.noun, self.id, self.namespace, self.what, self.at, *fields, self.joined, self.left)

    def __eq__(self, other: object) -> bool:
        return self._values() == other._values() if isinstance(other, Change) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.number, self.noun, self.namespace, self.id))
