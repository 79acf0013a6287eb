"""What verbs do with their arguments before anything is looked at: those that were given, and lists of them."""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from memstore.errors import InvalidError


class Absent(Enum):
    """The default of an argument for which None is a value."""

    ABSENT = "absent"

    def __repr__(self) -> str:
        return "<absent>"


ABSENT = Absent.ABSENT


def given(**arguments: object) -> dict[str, object]:
    """The arguments that were given."""
    return {name: value for name, value in arguments.items() if value is not ABSENT}


def as_item(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a method that takes one record, as an item of its many-form.

    None says nothing, but of an embedding. Left out, it leaves an item that the quick check of `fields` knows.
    """
    del arguments["self"]
    return {name: v for name, v in arguments.items() if v is not ABSENT and (v is not None or name == "embedding")}


def list_of_ids(ids: object) -> list[object]:
    """*ids* as a list that is not checked yet: that is done on a thread, however long it is."""
    return listed(ids, "ids is a list of ids")


def listed(values: object, what: str) -> list[Any]:
    """*values* as a list; *what* tells in the error that they have to be one."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise InvalidError(f"{what}; got one {type(values).__name__}")
    return list(values)
