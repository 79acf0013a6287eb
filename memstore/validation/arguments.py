"""What verbs do with their arguments before the checks: omitted arguments, and iterables as lists."""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from memstore.errors import InvalidError


class Unset(Enum):
    """The type of the default of an argument for which None is a value."""

    UNSET = "unset"

    def __repr__(self) -> str:
        return "<unset>"


UNSET = Unset.UNSET


def without_unset(arguments: Mapping[str, object]) -> dict[str, object]:
    """The *arguments* that the caller passed."""
    return {name: value for name, value in arguments.items() if value is not UNSET}


def as_item(arguments: dict[str, Any]) -> dict[str, Any]:
    """The `locals()` of a verb that takes one record, as an item of the verb that takes many.

    None is left out like an omitted argument, except for an embedding, where it is a value.
    """
    del arguments["self"]
    return {
        name: value
        for name, value in arguments.items()
        if value is not UNSET and (value is not None or name == "embedding")
    }


def id_list(ids: object) -> list[object]:
    """*ids* as a list whose elements are not checked; the checks run later, on the thread of the database."""
    return as_list(ids, "ids", "ids")


def as_list(values: object, name: str, content: str) -> list[Any]:
    """*values*, the argument *name*, as a list; `InvalidError` where it is one value instead of several."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise InvalidError(f"Invalid {name}: expected a list of {content}, found one {type(values).__name__}")
    if hasattr(values, "columns") and hasattr(values, "to_numpy"):  # iterating a frame gives the names of its columns
        raise InvalidError(
            f"Invalid {name}: expected a list of {content}, found one {type(values).__name__}. Pass its rows: "
            "frame.to_dict('records') for items, frame.to_numpy() for vectors"
        )
    return list(values)
