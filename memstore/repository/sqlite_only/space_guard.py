"""Whether an open store still has the file content that it was opened with.

A restored file has another epoch, and its vectors can have other settings. A store that was opened with the former
content must neither compare them with its own nor add its own to them. Dimension, metric and curvature never change
within an epoch, so they are compared only when the epoch changes.
"""

from sqlalchemy import Connection

from memstore.errors import SettingsMismatchError
from memstore.repository import store_meta
from memstore.repository.vectors import Spaces


class SpaceGuard:
    """The vector spaces and the embedder of an open store, and the epoch in which they were last compared."""

    def __init__(self, spaces: Spaces, embedder: str | None) -> None:
        self._spaces = spaces
        self._embedder = embedder
        self._epoch: str | None = None

    def check(self, connection: Connection, epoch: str | None = None) -> None:
        """Raise `SettingsMismatchError` where the file's spaces are not the store's; *epoch* is read if it is None."""
        epoch = store_meta.epoch(connection) if epoch is None else epoch
        if epoch == self._epoch:
            return
        stored = store_meta.spaces(connection)
        for kind, space in self._spaces.items():
            other = stored.get(kind)
            for setting in ("dimension", "metric", "curvature"):
                got, expected = getattr(space, setting), getattr(other, setting, None)
                if expected != got:
                    raise SettingsMismatchError(setting, expected=expected, got=got, restored=True)
            if other is not None and None not in (self._embedder, other.embedder) and self._embedder != other.embedder:
                raise SettingsMismatchError("embedder", expected=other.embedder, got=self._embedder, restored=True)
        self._epoch = epoch
