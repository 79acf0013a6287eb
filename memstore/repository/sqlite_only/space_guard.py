"""Whether a file goes on with the history that an open store knows, or was given the content of another.

A restored file has another epoch, and it may have other vectors: a store that was opened for those of before must
neither compare them with its own nor add its own to them. Dimension, metric and curvature never change within one
history, so they are looked at when the epoch is another, and at no other time.
"""

from collections.abc import Mapping

from sqlalchemy import Connection

from memstore.errors import SettingsMismatchError
from memstore.models.records import RecordKind
from memstore.repository import store_meta
from memstore.repository.vectors import VectorSpace


class History:
    """What an open store takes the vectors of its file to be, in which epoch.

    Args:
        spaces: what they were when it was opened.
        embedder: the name of what makes them for it; None where nothing does.
    """

    def __init__(self, spaces: Mapping[RecordKind, VectorSpace], embedder: str | None) -> None:
        self._spaces = spaces
        self._embedder = embedder
        self._epoch: str | None = None

    def check(self, connection: Connection) -> None:
        """Raise `SettingsMismatchError` where the store's vectors are not of the kind that the file has; 2 µs."""
        epoch = store_meta.epoch(connection)
        if epoch == self._epoch:
            return
        found = store_meta.spaces(connection)
        for kind, known in self._spaces.items():
            space = found.get(kind)
            for setting in ("dimension", "metric", "curvature"):
                got = getattr(known, setting)
                if getattr(space, setting, None) != got:
                    raise SettingsMismatchError(setting, expected=getattr(space, setting, None), got=got, restored=True)
            if space is not None and None not in (self._embedder, space.embedder) and self._embedder != space.embedder:
                raise SettingsMismatchError("embedder", expected=space.embedder, got=self._embedder, restored=True)
        self._epoch = epoch
