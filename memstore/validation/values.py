"""Checks of single values. An accepted value is stored exactly and read back equal."""

import math
import operator
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from typing import SupportsIndex

from memstore.errors import InvalidError, describe_content, short_repr
from memstore.models.records import Address, Namespace
from memstore.timestamps import from_micros, to_micros
from memstore.validation.arguments import as_list
from memstore.validation.text import check_json_text, check_text
from memstore.vectors.scalars import plain_scalar

MAX_ID_BYTES = 65_536
MAX_TAG_BYTES = 1_024
MAX_TAGS = 1_000
MAX_NAMESPACE_PARTS = 32
MAX_NAMESPACE_BYTES = 4_096
MAX_LIMIT = 10_000


def check_id(value: object) -> str:
    """*value* as an id, any text of 1 to 65,536 bytes of UTF-8, else `InvalidError`."""
    return check_text("id", value, least=1, most=MAX_ID_BYTES)


def check_ids(values: Iterable[object], name: str = "ids") -> list[str]:
    """*values* as ids in order, without duplicates."""
    return list(dict.fromkeys(check_id(value) for value in as_list(values, name, "ids")))


def check_namespace(value: object) -> Namespace:
    """*value* as a namespace, else `InvalidError`: a tuple of at most 32 texts, 4,096 bytes in all."""
    if not isinstance(value, tuple) or len(value) > MAX_NAMESPACE_PARTS:
        raise InvalidError(
            f"Invalid namespace: expected a tuple of at most {MAX_NAMESPACE_PARTS} texts, found {short_repr(value)}"
        )
    parts = tuple(check_text("namespace part", part, most=MAX_NAMESPACE_BYTES) for part in value)
    size = sum(len(part.encode()) for part in parts)
    if size > MAX_NAMESPACE_BYTES:
        raise InvalidError(
            f"Invalid namespace: expected at most {MAX_NAMESPACE_BYTES:,} bytes of UTF-8, found {size:,}"
        )
    return parts


def check_namespace_within(value: object, owner: Namespace) -> Namespace:
    """*value*, a tuple or a list, as a namespace that is *owner* or below it, else `InvalidError`."""
    namespace = check_namespace(tuple(value) if isinstance(value, list) else value)
    if namespace[: len(owner)] != owner:
        raise InvalidError(
            f"Invalid namespace: expected {owner!r} or one below it, found {short_repr(namespace)}. "
            "Use a handle of that namespace, or of one above it"
        )
    return namespace


def check_address(value: object, owner: Namespace) -> Address:
    """*value* as a pair of a namespace, which is *owner* or below it, and an id, else `InvalidError`."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise InvalidError(f"Invalid address: expected a pair of a namespace and an id, found {short_repr(value)}")
    return check_namespace_within(value[0], owner), check_id(value[1])


def check_words(name: str, value: object) -> list[str]:
    """*value* as tags or topics in order, without duplicates, else `InvalidError`."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise InvalidError(
            f"Invalid {name}: expected a collection of texts, such as {{'a', 'b'}}, found {describe_content(value)}"
        )
    words: dict[str, None] = {}
    for word in value:
        words[check_text(f"item of {name}", word, least=1, most=MAX_TAG_BYTES)] = None
        if len(words) > MAX_TAGS:  # tested for each word, because an iterator can be endless
            raise InvalidError(f"Invalid {name}: expected at most {MAX_TAGS:,} for one record, found more")
    return list(words)


def check_tags(value: object) -> frozenset[str]:
    """*value* as a set of tags, else `InvalidError`."""
    return frozenset(check_words("tags", value))


def check_topics(value: object) -> tuple[str, ...]:
    """*value* as topics in order, else `InvalidError`. A set is invalid, because it has no order."""
    if isinstance(value, AbstractSet):
        raise InvalidError("Invalid topics: expected a list or a tuple, because topics are ordered, found a set")
    return tuple(check_json_text(word, "topic") for word in check_words("topics", value))


def check_share(name: str, value: object) -> float:
    """*value* as a number from 0 to 1, else `InvalidError`."""
    number = value if type(value) is float else check_number(name, value)
    if not 0 <= number <= 1:
        raise InvalidError(f"Invalid {name}: expected a number from 0 to 1, found {number}")
    return number


def check_number(name: str, value: object) -> float:
    """*value* as a number or an infinity, else `InvalidError`."""
    plain = plain_scalar(value)
    try:
        number = math.nan if isinstance(plain, bool) or not isinstance(plain, int | float) else float(plain)
    except OverflowError:
        number = math.nan
    if math.isnan(number):
        raise InvalidError(f"Invalid {name}: expected a number, found {short_repr(value)}")
    return number


def check_time(name: str, value: object) -> datetime:
    """*value* as an aware datetime in UTC, else `InvalidError`."""
    try:
        if isinstance(value, datetime) and value.tzinfo is not None and value.utcoffset() is not None:
            return from_micros(to_micros(value))  # a plain datetime, also of a subclass
    except OverflowError as error:
        raise InvalidError(
            f"Invalid {name}: expected a time in the years 1 to 9999 UTC, found {short_repr(value)}"
        ) from error
    except Exception as error:
        raise InvalidError(f"Invalid {name}: its time zone gives no offset ({short_repr(error)})") from error
    raise InvalidError(
        f"Invalid {name}: expected an aware datetime, such as datetime.now(UTC), found {short_repr(value)}"
    )


def check_ttl(value: object, since: datetime) -> datetime:
    """The time at which a time to live of *value* (seconds or a timedelta) from *since* ends, else `InvalidError`."""
    value = plain_scalar(value)
    if not isinstance(value, int | float | timedelta) or isinstance(value, bool):
        raise InvalidError(f"Invalid ttl: expected seconds or a timedelta, found {short_repr(value)}")
    try:
        return since + (value if isinstance(value, timedelta) else timedelta(seconds=value))
    except (OverflowError, ValueError) as error:
        raise InvalidError(
            f"Invalid ttl: expected an end in the years 1 to 9999, found a ttl of {short_repr(value)}"
        ) from error


def check_count(name: str, value: object, least: int, most: int) -> int:
    """*value* as a whole number from *least* to *most*, else `InvalidError`."""
    if type(value) is int and least <= value <= most:
        return value  # the test for a protocol below takes ten times as long
    try:
        if isinstance(value, SupportsIndex) and not isinstance(value, bool):
            number = int.__int__(operator.index(value))
            if least <= number <= most:
                return number
    except TypeError:
        pass  # an array has the method, and it raises
    raise InvalidError(f"Invalid {name}: expected a whole number from {least:,} to {most:,}, found {short_repr(value)}")


def check_flag(name: str, value: object) -> bool:
    """*value* as True or False, else `InvalidError`."""
    value = plain_scalar(value)
    if not isinstance(value, bool):
        raise InvalidError(f"Invalid {name}: expected True or False, found {short_repr(value)}")
    return value
