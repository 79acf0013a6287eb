"""Results of verbs that say more than the records: a page of a list, and what became of an added record."""

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from memstore.models.record import Record
from memstore.models.records import Assembly, Memory

RecordT = TypeVar("RecordT", bound=Memory | Assembly)

AddOutcome = Literal["added", "skipped", "replaced"]


@dataclass(frozen=True, slots=True, repr=False)
class AddResult(Record, Generic[RecordT]):
    """What became of one record that was added with `on_duplicate="skip"` or `"replace"`.

    Attributes:
        record: the record as it is stored now; of a skipped one, the record that had the id.
        outcome: `"added"`; `"skipped"`: the id existed, and nothing was changed; `"replaced"`: the id existed, and the
            record was replaced as by `upsert`.
    """

    record: RecordT
    outcome: AddOutcome


@dataclass(frozen=True, slots=True, repr=False)
class Page(Record, Generic[RecordT]):
    """One page of a list of records.

    Attributes:
        items: the records, in the order of the list.
        next: the argument `after` for the next page; None if this is the last.
    """

    items: list[RecordT]
    next: str | None
