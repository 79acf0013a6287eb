"""Checks of single values: what is accepted is stored exactly and comes back equal."""

import math
import operator
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from typing import SupportsIndex

from memstore.errors import InvalidError, short_repr
from memstore.models.records import Namespace
from memstore.timestamps import from_micros, to_micros
from memstore.validation.text import check_json_text, check_text

MAX_ID_BYTES = 65_536
MAX_TAG_BYTES = 1_024
MAX_TAGS = 1_000
MAX_NAMESPACE_PARTS = 32
MAX_NAMESPACE_BYTES = 4_096
MAX_LIMIT = 10_000


def check_id(value: object) -> str:
    """*value* as an id, else `InvalidError`. Any text is one, 1 to 65,536 bytes of UTF-8."""
    return check_text("id", value, least=1, most=MAX_ID_BYTES)


def check_ids(values: Iterable[object], name: str = "ids") -> list[str]:
    """*values* as ids, in order, each once."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise InvalidError(f"{name} is a list of ids; got one {type(values).__name__}")
    return list(dict.fromkeys(check_id(value) for value in values))


def check_namespace(value: object) -> Namespace:
    """*value* as a namespace, else `InvalidError`: a tuple of at most 32 texts, 4,096 bytes in all."""
    if not isinstance(value, tuple) or len(value) > MAX_NAMESPACE_PARTS:
        raise InvalidError(f"a namespace is a tuple of at most {MAX_NAMESPACE_PARTS} texts; got {short_repr(value)}")
    size = sum(len(check_text("a part of a namespace", part, most=MAX_NAMESPACE_BYTES).encode()) for part in value)
    if size > MAX_NAMESPACE_BYTES:
        raise InvalidError(f"a namespace has at most {MAX_NAMESPACE_BYTES:,} bytes of UTF-8; this one has {size:,}")
    return value


def check_words(name: str, value: object) -> list[str]:
    """*value* as words in order, each once: what tags and topics are made of."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise InvalidError(f"{name} is a collection of texts, such as {{'a', 'b'}}; got {short_repr(value)}")
    words: dict[str, None] = {}
    for word in value:
        words[check_text(f"one of {name}", word, least=1, most=MAX_TAG_BYTES)] = None
        if len(words) > MAX_TAGS:  # asked for each, because an iterator need not end
            raise InvalidError(f"a record has at most {MAX_TAGS:,} {name}")
    return list(words)


def check_tags(value: object) -> frozenset[str]:
    """*value* as a set of tags, else `InvalidError`."""
    return frozenset(check_words("tags", value))


def check_topics(value: object) -> tuple[str, ...]:
    """*value* as topics in order, else `InvalidError`; a set has no order and is refused."""
    if isinstance(value, AbstractSet):
        raise InvalidError("topics are in order: give a list or a tuple, not a set")
    return tuple(check_json_text(word, "a topic") for word in check_words("topics", value))


def check_importance(value: object) -> float:
    """*value* as an importance from 0 to 1, else `InvalidError`."""
    return check_share("importance", value)


def check_share(name: str, value: object) -> float:
    """*value* as a number from 0 to 1, else `InvalidError`."""
    number = check_number(name, value)
    if not 0 <= number <= 1:
        raise InvalidError(f"{name} is a number from 0 to 1; got {number}")
    return number


def check_number(name: str, value: object) -> float:
    """*value* as a number, infinity too, else `InvalidError`."""
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    except OverflowError:
        number = math.nan
    if math.isnan(number):
        raise InvalidError(f"{name} is a number; got {short_repr(value)}")
    return number


def check_time(name: str, value: object) -> datetime:
    """*value* as an aware datetime in UTC, else `InvalidError`."""
    try:
        if isinstance(value, datetime) and value.tzinfo is not None and value.utcoffset() is not None:
            return from_micros(to_micros(value))  # a plain datetime, in UTC, whatever subclass was given
    except OverflowError as error:
        raise InvalidError(f"{name} lies outside the years 1 to 9999 in UTC; got {short_repr(value)}") from error
    except Exception as error:
        raise InvalidError(f"{name} has a time zone that does not tell its offset ({short_repr(error)})") from error
    raise InvalidError(f"{name} is an aware datetime, such as datetime.now(UTC); got {short_repr(value)}")


def check_ttl(value: object, since: datetime) -> datetime:
    """The end of a time to live of *value* (seconds or a timedelta) that began at *since*."""
    if not isinstance(value, int | float | timedelta) or isinstance(value, bool):
        raise InvalidError(f"ttl is in seconds, or a timedelta; got {short_repr(value)}")
    try:
        return since + (value if isinstance(value, timedelta) else timedelta(seconds=value))
    except (OverflowError, ValueError) as error:
        raise InvalidError(f"ttl {short_repr(value)} ends outside the years 1 to 9999") from error


def check_count(name: str, value: object, least: int, most: int) -> int:
    """*value* as a whole number from *least* to *most*, else `InvalidError`."""
    if type(value) is int and least <= value <= most:
        return value  # looking for a protocol takes ten times as long
    try:
        if isinstance(value, SupportsIndex) and not isinstance(value, bool):
            number = int.__int__(operator.index(value))
            if least <= number <= most:
                return number
    except TypeError:
        pass  # an array has the method too
    raise InvalidError(f"{name} is a whole number, {least:,} to {most:,}; got {short_repr(value)}")


def check_flag(name: str, value: object) -> bool:
    """*value* as True or False, else `InvalidError`."""
    if not isinstance(value, bool):
        raise InvalidError(f"{name} is True or False; got {short_repr(value)}")
    return value
