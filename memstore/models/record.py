"""What every record can do: a `repr` of one line, pickle and copy, a dict for JSON, and a field of a pydantic model."""

import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

RecordT = TypeVar("RecordT", bound="Record")

INTERNAL = {"internal": True}
"""`field(metadata=INTERNAL)`: a field that is the store's own and in no dict."""


class PydanticField:
    """A class whose instances pydantic takes as a field, and writes to JSON by `to_dict`."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """The instance in types that JSON has."""
        raise NotImplementedError

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> dict[str, Any]:
        # Without a schema pydantic would look into the dataclass, whose metadata have a recursive type.
        serialization = {"type": "function-plain", "function": cls.to_dict, "when_used": "json"}
        return {"type": "is-instance", "cls": cls, "serialization": serialization}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: object, handler: object) -> dict[str, Any]:
        return {"type": "object", "title": cls.__name__}


class Record(PydanticField):
    """The base of all records, which are frozen dataclasses with `repr=False`."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Every field by its name, in types that JSON has; records inside are dicts too.

        A vector is a list of numbers (each float32 as the double it equals), a time is ISO 8601 text with its zone, a
        duration is seconds, a set is a sorted list, a tuple is a list, and a number that is not finite is None.
        """
        return {
            f.name: as_json(getattr(self, f.name))
            for f in fields(self)  # type: ignore[arg-type]
            if "internal" not in f.metadata
        }

    def __repr__(self) -> str:
        values = (f"{f.name}={_short.repr(getattr(self, f.name))}" for f in fields(self) if f.repr)  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(values)})"

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        writable = [name for name, value in values.items() if isinstance(value, np.ndarray) and value.flags.writeable]
        return _restored, (type(self), values, writable)


def as_json(value: Any) -> Any:
    """*value* of a field, with all it contains, in the types of JSON; see `Record.to_dict`."""
    if value is None or isinstance(value, str | int):  # a bool is an int
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(name): as_json(item) for name, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(as_json, value))
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, timedelta):
        return value.total_seconds()
    if is_dataclass(value):
        return {f.name: as_json(getattr(value, f.name)) for f in fields(value)}
    return value.isoformat() if isinstance(value, datetime) else str(value)


class _OneLine(reprlib.Repr):
    """Beginnings of long values, and the size of an array."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = 200
        self.maxother = 2_000
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = 20

    def repr_ndarray(self, array: npt.NDArray[Any], level: int) -> str:  # noqa: ARG002 - the form of reprlib
        return f"<{'x'.join(map(str, array.shape))} {array.dtype}>"


_short = _OneLine()


def _restored(kind: type[RecordT], values: dict[str, Any], writable: list[str]) -> RecordT:
    """A record of *kind* from its fields, as pickle and copy give them: all arrays can be written.

    Those of the fields *writable* are the caller's own, the others become read-only again.
    """
    record = object.__new__(kind)
    for name, value in values.items():
        object.__setattr__(record, name, value if name in writable else _read_only(value))
    return record


def _read_only(value: Any) -> Any:
    if isinstance(value, dict):  # the old and new fields of a change
        return {name: _read_only(item) if isinstance(item, np.ndarray) else item for name, item in value.items()}
    if isinstance(value, np.ndarray) and value.flags.writeable:
        return np.frombuffer(value.tobytes(), value.dtype).reshape(value.shape)  # read-only for good, as bytes are
    return value
