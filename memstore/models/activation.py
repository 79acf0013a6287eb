"""The record of how an assembly's composite agrees with the index."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from memstore.models.record import Record

HALF_LIFE = 86_400.0
"""Seconds in which an activation decays to half, unless the store is opened with another half-life: a day."""


_CLOCK_AHEAD = 86_400.0  # seconds


def decayed(level: float, activated_at: datetime | None, at: datetime, half_life: float) -> float:
    """A *level* after exponential decay: `level · 2^(-age / half_life)`, in seconds; 0 if it was never activated.

    *at* a time before *activated_at* nothing has decayed. If that is more than a day before, the clock was ahead at the
    activation: the level decays by the distance of the times, so that it ends long before that day comes.
    """
    if activated_at is None or level == 0:
        return 0.0
    age = (at - activated_at).total_seconds()
    if age < 0:
        age = -age if age < -_CLOCK_AHEAD else 0.0
    return level * math.exp2(-age / half_life)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SyncState(Record):
    """Whether the composite in the index is that of the assembly's current members. Compares revisions, not times.

    Attributes:
        revision: the revision of the assembly. It grows whenever the members or their vectors change.
        composite_revision: the revision of the stored composite; None if it was never computed.
        indexed_revision: the revision of the composite in the index of this process; None if the index has none.
        synced: whether all three agree. An assembly whose members have no mean has no composite to index.
        age: time since the composite was computed; None if unknown.
    """

    revision: int
    composite_revision: int | None
    indexed_revision: int | None
    synced: bool
    age: timedelta | None
