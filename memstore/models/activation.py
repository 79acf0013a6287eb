"""The record of how an assembly's composite agrees with the index."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncState:
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
