"""Whether an open store still has the file content that it was opened with, and what its first vector fixes.

A restored file has another epoch, and its vectors can have other settings. A store that was opened with the former
content must neither compare them with its own nor add its own to them. Dimension, metric and curvature never change
within an epoch, so they are compared only when the epoch changes.

The first vector of a file fixes what was left open when the file was created: the dimension, and the name of the
embedder of the store that stores it. Until both are in the file, the guard reads them from the file in every write and
in every search.
"""

from dataclasses import replace

from sqlalchemy import Connection, bindparam, func, select

from memstore.errors import DimensionError, SettingsMismatchError
from memstore.models.records import RecordKind
from memstore.repository import store_meta
from memstore.repository.statements import Prepared
from memstore.repository.vectors import Spaces, VectorSpace
from memstore.schema.tables import change_log, memory_vector

_WRITTEN_SIZES = Prepared(
    lambda: (
        select(func.min(func.length(memory_vector.c.vector)), func.max(func.length(memory_vector.c.vector)))
        .select_from(change_log)
        .join(memory_vector, memory_vector.c.memory_pk == change_log.c.pk)
        .where(change_log.c.seq > bindparam("since"), change_log.c.space_pk == bindparam("space"))
    )
)


class SpaceGuard:
    """The vector spaces and the embedder of an open store, and the epoch in which they were last compared.

    Args:
        spaces: the spaces of the store; what a later vector fixes is set in it.
        embedder: the name of the store's embedder; None without one.
        is_settled: whether the file has a dimension, and a name of an embedder if the store has an embedder.
    """

    def __init__(self, spaces: dict[RecordKind, VectorSpace], embedder: str | None, *, is_settled: bool) -> None:
        self._spaces = spaces
        self._embedder = embedder
        self._epoch: str | None = None
        self.is_settled = is_settled

    def check(self, connection: Connection, epoch: str | None = None) -> None:
        """Raise `SettingsMismatchError` where the file's spaces are not the store's; *epoch* is read if it is None."""
        epoch = store_meta.epoch(connection) if epoch is None else epoch
        if epoch == self._epoch:
            return
        self._compare(store_meta.spaces(connection), restored=self._epoch is not None)
        self._epoch = epoch

    def spaces_of(self, connection: Connection) -> Spaces:
        """The spaces in the transaction of *connection*, which may have changed them."""
        return self._spaces if self.is_settled else self._compare(store_meta.spaces(connection))

    def settle(self, connection: Connection, since: int) -> Spaces:
        """Fix what the vectors determine that this write has stored, which is in the log after *since*; the spaces.

        Raises:
            DimensionError: a vector is of another dimension than the file, or than another one.
            SettingsMismatchError: the file has another embedder.
        """
        spaces = self.spaces_of(connection)
        space = spaces["memory"]
        least, most = _WRITTEN_SIZES.run(connection, since=since, space=space.pk).fetchone()
        if least is None:
            return spaces
        expected = space.dimension or least // 4
        if least != 4 * expected or most != 4 * expected:
            raise DimensionError(expected=expected, got=(most if least == 4 * expected else least) // 4)
        store_meta.set_dimension(connection, expected)
        if self._embedder is not None:
            store_meta.name_embedder(connection, self._embedder)
        return store_meta.spaces(connection)

    def adopt(self, connection: Connection) -> None:
        """Take over what a committed write, of any process, has fixed. *connection* is in a read transaction."""
        stored = store_meta.spaces(connection)
        self._spaces.update(self._compare(stored))
        space = stored["memory"]
        self.is_settled = space.dimension > 0 and (self._embedder is None or space.embedder is not None)

    def _compare(self, stored: Spaces, *, restored: bool = False) -> dict[RecordKind, VectorSpace]:
        """The *stored* spaces, with the dimension that the store expects; raises as `check` does."""
        spaces: dict[RecordKind, VectorSpace] = {}
        for kind, space in self._spaces.items():
            other = stored.get(kind)
            is_open = not self.is_settled and other is not None and 0 in (space.dimension, other.dimension)
            for setting in ("dimension", "metric", "curvature"):
                got, expected = getattr(space, setting), getattr(other, setting, None)
                if expected != got and not (setting == "dimension" and is_open):
                    raise SettingsMismatchError(setting, expected=expected or None, got=got or None, restored=restored)
            if other is None:
                continue
            if None not in (self._embedder, other.embedder) and self._embedder != other.embedder:
                raise SettingsMismatchError("embedder", expected=other.embedder, got=self._embedder, restored=restored)
            spaces[kind] = replace(other, dimension=other.dimension or space.dimension)
        return spaces
