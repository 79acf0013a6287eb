"""Cursors: where a page of a list ended, as a text.

A cursor has the sort value and the key of the last record, so that the next page starts there whatever is written in
between. It also names the store, the order and the arguments of its list, so that no other list continues it. The file
stores nothing for it.
"""

import base64
import dataclasses
import json
from collections.abc import Iterable
from datetime import datetime
from hashlib import blake2b
from typing import Any

from memstore.errors import InvalidError, short_repr
from memstore.repository.corruption import corrupt_value
from memstore.repository.records import Position

_VERSION = 1
_DIGEST_BYTES = 8


class Cursors:
    """The cursors of one list.

    Args:
        epoch: the epoch of the file.
        order: the order of the list, as the caller writes it.
        arguments: what else decides which records the list has.
    """

    def __init__(self, epoch: str, order: str, arguments: Iterable[object]) -> None:
        self._key = epoch.encode()
        self._order = order
        self._store = blake2b(self._key, digest_size=_DIGEST_BYTES).hexdigest()
        self._list = blake2b(_canonical(list(arguments)).encode(), digest_size=_DIGEST_BYTES).hexdigest()

    def encode(self, position: Position) -> str:
        """The cursor of *position*."""
        if type(position.value) not in (int, float, str):
            raise corrupt_value("the sort column of a list", "a number or a text", position.value)
        fields = [_VERSION, self._store, self._list, self._order, position.value, position.pk]
        payload = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(self._signature(payload) + payload).decode().rstrip("=")

    def decode(self, cursor: object) -> Position:
        """The position of *cursor*. Raises `InvalidError` where it is not a cursor of this list."""
        signature, payload = _decoded(cursor)
        try:
            version, store, arguments, order, value, pk = json.loads(payload)
        except (ValueError, TypeError, RecursionError):
            raise _no_cursor(cursor) from None
        if version == _VERSION and store != self._store:
            raise InvalidError(
                "Invalid cursor: it is of another store, or of this one before a restore. Start with after=None"
            )
        if signature != self._signature(payload):
            raise _no_cursor(cursor)
        if order != self._order:
            raise InvalidError(
                f"Invalid cursor: expected one of a list in order {self._order!r}, found one in order {order!r}. Pass "
                "the same order for all pages, or start with after=None"
            )
        if arguments != self._list:
            raise InvalidError(
                "Invalid cursor: it is of a list with another kind of records, namespace, recursive, tags, where or "
                "as_of. Pass the same for all pages, or start with after=None"
            )
        return Position(value, pk)

    def _signature(self, payload: bytes) -> bytes:
        """Detects a cursor that was altered: what it contains is bound to statements unchecked."""
        return blake2b(payload, digest_size=_DIGEST_BYTES, key=self._key[:64]).digest()


def _decoded(cursor: object) -> tuple[bytes, bytes]:
    if not isinstance(cursor, str):
        raise InvalidError(f"Invalid cursor: expected the value of Page.next, found {type(cursor).__name__}")
    try:
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise _no_cursor(cursor) from None
    return data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]


def _no_cursor(cursor: object) -> InvalidError:
    return InvalidError(f"Invalid cursor: expected the value of Page.next, found {short_repr(cursor)}")


def _canonical(value: Any) -> str:
    """A text of the arguments of a list that is equal in every process."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [getattr(value, field.name) for field in dataclasses.fields(value)]
        return f"{type(value).__name__}({_canonical(fields)})"
    if isinstance(value, frozenset):
        return f"{{{','.join(sorted(map(_canonical, value)))}}}"
    if isinstance(value, dict):
        return f"{{{','.join(sorted(f'{key!r}:{_canonical(item)}' for key, item in value.items()))}}}"
    if isinstance(value, tuple | list):
        return f"[{','.join(map(_canonical, value))}]"
    return value.isoformat() if isinstance(value, datetime) else repr(value)
