"""The records of forgetting: what a plan selects, and what the trash contains."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, Literal, TypeVar

from memstore.models.record import INTERNAL, Record
from memstore.models.records import Assembly, Memory, Namespace

RecordT = TypeVar("RecordT", bound=Memory | Assembly)

Criterion = Literal[
    "older_than",
    "unused_for",
    "importance_below",
    "expires_within",
    "max_count",
    "max_bytes",
    "inactive_for",
    "activated_fewer_than",
    "members_below",
    "where",
]
"""Why a plan selects a record: the name of a policy argument. `where` only if the policy has no other criterion."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ForgetCandidate(Record):
    """A record that a plan selects.

    Attributes:
        reasons: the criteria it meets, by the names of the policy's arguments.
        bytes: size of its id, texts and metadata in UTF-8, and of its vector: about what a purge frees in the file.
        key: its key in the file.
        state: its column values when the plan was made; `forget` compares them with the current values.
    """

    id: str
    namespace: Namespace
    reasons: tuple[Criterion, ...]
    bytes: int
    key: int = field(repr=False, metadata=INTERNAL)
    state: tuple[object, ...] = field(repr=False, metadata=INTERNAL)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TrashEntry(Record, Generic[RecordT]):
    """A forgotten record in the trash.

    Attributes:
        record: the record as it was when it was forgotten.
        at: when it was forgotten, UTC.
        actor: who forgot it; None if unknown.
        reason: why; the names of the criteria it met if the caller gave no reason.
    """

    record: RecordT
    at: datetime
    actor: str | None
    reason: str | None
