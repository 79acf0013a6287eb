"""The sync state of an assembly's composite."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncState:
    """Whether the index has the composite of an assembly's present members: by revisions, never by the clock.

    Attributes:
        revision: the assembly's: it grows whenever the members or their vectors change.
        composite_revision: the one that the stored composite is of; None where none was ever computed.
        indexed_revision: the one that the composite in this process's index is of; None where that has none, as of an
            assembly without a composite.
        synced: whether they are one. An assembly whose members have no mean has nothing to be in the index.
        age: how long ago the composite was computed, for display; None where that is not known.
    """

    revision: int
    composite_revision: int | None
    indexed_revision: int | None
    synced: bool
    age: timedelta | None
