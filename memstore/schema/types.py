"""Column types: times as integer microseconds, metadata as JSON text."""

import json
from datetime import datetime
from typing import Any, cast

from sqlalchemy import BigInteger, Dialect, Text
from sqlalchemy.types import TypeDecorator

from memstore.models.records import Json
from memstore.timestamps import from_micros, to_micros


class UtcTime(TypeDecorator[datetime]):
    """An aware datetime, stored as whole microseconds since 1970, UTC."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002, D102
        return None if value is None else to_micros(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002, D102
        return None if value is None else from_micros(value)


class JsonText(TypeDecorator[Json]):
    """JSON as text: keys in the caller's order, no white space, not escaped to ASCII. None is NULL, not JSON null."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002, D102
        return None if value is None else json_text(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Json:  # noqa: ARG002, D102
        return None if value is None else cast("Json", json.loads(value))


_ENCODER = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":")
)  # json.dumps would create one at each call


def is_same_document(one: object, other: object) -> bool:
    """Whether two stored texts of JSON differ at most in the order of keys."""
    if one == other:
        return True
    if not (isinstance(one, str) and isinstance(other, str) and len(one) == len(other)):
        return False
    try:
        return json.dumps(json.loads(one), sort_keys=True) == json.dumps(json.loads(other), sort_keys=True)
    except (ValueError, RecursionError):
        return False


def json_text(value: Json) -> str:
    """The stored text of *value*, which must be valid JSON."""
    return _ENCODER.encode(value)
