"""`memstore.open`: checks the settings against the file, and puts the parts of a store together."""

import asyncio
import os
import warnings
from collections.abc import Generator, Iterable
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import Any, Literal, NoReturn

from sqlalchemy import Connection

from memstore import filters
from memstore.api.store import Store, close_after
from memstore.concurrency import wait_to_end
from memstore.config import (
    DEFAULT_KEEP,
    Durability,
    IndexKind,
    IndexOptions,
    IndexSettings,
    Settings,
    check_index,
    check_keep,
    check_timeout,
    linked_path,
    path_text,
)
from memstore.database import Database
from memstore.embedders.bound import BoundEmbedder, Embedder
from memstore.errors import InvalidError, MissingFileError, SettingsMismatchError
from memstore.index.engine_selector import EngineSelector
from memstore.models.activation import HALF_LIFE
from memstore.models.records import RecordKind
from memstore.repository import history_retention, store_meta, vectors
from memstore.repository.sqlite_only import metadata_indexes
from memstore.repository.sqlite_only.space_guard import SpaceGuard
from memstore.repository.vectors import VectorSpace
from memstore.search.activation import check_half_life
from memstore.session import Autocommit
from memstore.sync.follower import Follower
from memstore.sync.index_set import IndexSet
from memstore.sync.maintainer import IndexMaintainer
from memstore.vectors.space import Metric


class Opening:
    """A store that is not open yet: use it with `async with`, or `await` it and close the store."""

    def __init__(self, settings: Settings, embedder: BoundEmbedder | None) -> None:
        self._settings = settings
        self._embedder = embedder
        self._store: Store | None = None
        self._awaited = False

    def __await__(self) -> Generator[Any, None, Store]:
        self._awaited = True
        return _open(self._settings, self._embedder).__await__()

    async def __aenter__(self) -> Store:
        self._store = await self
        return self._store

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._store is not None:
            await close_after(self._store, error)

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"The store has no attribute {name!r} yet, because open was not awaited: {_AWAIT}")

    def __enter__(self) -> NoReturn:
        raise TypeError(f"A store is opened by `async with`, not by `with`: {_AWAIT}")

    def __exit__(self, *_: object) -> None:
        """Never called; without it Python names this method instead of the mistake."""

    def __repr__(self) -> str:
        return f"<memstore.open({self._settings.path!r}), not awaited: {_AWAIT}>"

    def __del__(self) -> None:
        if not self.__dict__.get("_awaited", True):
            warnings.warn(f"memstore.open was not awaited: {_AWAIT}", RuntimeWarning, stacklevel=2)


_AWAIT = "use `async with memstore.open(...) as store:`, or `store = await memstore.open(...)`"


def open(
    path: str | os.PathLike[str],
    *,
    dimension: int | None = None,
    metric: Metric | None = None,
    curvature: float | None = None,
    embedder: Embedder | None = None,
    timeout: float = 30.0,
    durability: Durability = "full",
    read_only: bool = False,
    index: IndexKind | IndexOptions | None = None,
    indexed_metadata: Iterable[str] | None = None,
    activation_half_life: float = HALF_LIFE,
    history: Literal["full", "off"] | timedelta | None = None,
) -> Opening:
    """Open the store in the file at *path*; creates the file, or migrates it, if necessary.

    Use it with `async with`, or `await` it and `await store.close()`.

    Args:
        path: the database file; its folder must exist.
        dimension: numbers per embedding. None means as stored; in a new file the first vector fixes it.
        metric: `"cosine"` (score -1 to 1), `"inner_product"`, `"l2"` (score 1/(1+distance)), `"spherical"` (score
            1 - angle/π) or `"hyperbolic"` (score 1/(1+distance)). None means as stored, and cosine for a new file.
        curvature: curvature magnitude c > 0 of the Poincaré ball of `"hyperbolic"` (the curvature is -c), 1e-6 to 1e6.
            None means as stored, and 1.0 for a new file; other metrics have none.
        embedder: turns texts into embeddings; see `memstore.Embedder`. Its name is stored with the first vector that
            this store adds; reading stores no name.
        timeout: seconds a write waits for other writers before it raises `BusyError`, and seconds a call of the
            embedder may take.
        durability: `"full"`: committed data survives a power failure. `"relaxed"`: the last commits may be lost, the
            file stays intact.
        read_only: every write raises `ReadOnlyError`; the file must exist.
        index: how vectors are searched: a `memstore.IndexOptions`, or only its `kind`. `"exact"` compares the query
            with every allowed vector. `"graph"` walks a graph (FAISS's HNSW), under a filter only where that is
            reliable and faster. `"auto"` is exact until an exact search takes about a millisecond (10 million
            numbers: 26,042 vectors of dimension 384), then uses the graph where it is faster. None means as stored,
            and `"auto"` for a new file.
        indexed_metadata: paths in the metadata of memories for which the file has an index, so that filters on them are
            fast, as in a filter after `metadata.`: `("user_id", "source.kind")`. They are added to those of the file;
            None and `()` add none. A new index is built now, under the writer lock, in about 0.2 s for 100,000
            memories, and makes every later write slower. With `read_only` none is built.
        activation_half_life: half-life of the activation of assemblies in seconds, a day by default. It is not stored,
            and affects only how activation is read.
        history: how much history the file keeps: a `timedelta` what is not older, `"full"` all, `"off"` none; older
            history is deleted now. None means as stored, and 30 days for a new file.

    Raises:
        InvalidError: an argument is invalid; raised by this call, every other error when the result is awaited or
            entered.
        ForeignFileError, NewerFileError, MissingFileError: the file cannot be opened.
        SettingsMismatchError: the file has another dimension, metric, curvature or embedder.
        BusyError: other processes held the lock for longer than *timeout*.
    """
    bound = None if embedder is None else BoundEmbedder(embedder, check_timeout(timeout))
    if bound is not None and dimension is not None and bound.dimension not in (None, dimension):
        raise InvalidError(
            f"embedder {bound.name!r} makes vectors of dimension {bound.dimension}; dimension={dimension}"
        )
    settings = Settings(
        path=path_text(path),
        link=linked_path(path),
        dimension=dimension,
        embedder_dimension=None if bound is None else bound.dimension,
        metric=metric,
        curvature=curvature,
        timeout=timeout,
        durability=durability,
        read_only=read_only,
        index=check_index(index),
        history=check_keep(history),
        indexed_metadata=filters.indexed(indexed_metadata),
        half_life=check_half_life(activation_half_life),
    )
    return Opening(settings, bound)


async def _open(settings: Settings, embedder: BoundEmbedder | None) -> Store:
    database = await Database.open(settings)
    try:
        stored = await _open_spaces(database, settings)
        name = None if embedder is None else embedder.name
        spaces = _expected_spaces(stored, settings, name)
        is_settled = stored["memory"].dimension > 0 and (name is None or stored["memory"].embedder is not None)
        guard = SpaceGuard(spaces, name, is_settled=is_settled)
        await database.read(guard.check)
        index_settings = await _apply_index_settings(database, settings, spaces)
        engines = EngineSelector(settings.index.engine, index_settings)
        indexes = IndexSet(spaces, index_settings, engines)
        await _add_metadata_indexes(database, settings)
        await _apply_history(database, settings)
        maintainer = IndexMaintainer(indexes, database)
        follower = Follower(indexes, guard, maintainer.notifier())
        session = Autocommit(database, follower, spaces, embedder)
        if await database.read(vectors.lagging):
            await session.update_composites()
    except BaseException:
        await wait_to_end(asyncio.ensure_future(database.close()))  # completes even if this task is cancelled again
        raise
    return Store(session, maintainer)


async def _open_spaces(database: Database, settings: Settings) -> dict[RecordKind, VectorSpace]:
    """The vector spaces of the file; a new file gets those of *settings*."""
    spaces = await database.read(store_meta.spaces)
    if spaces:
        return spaces
    if settings.read_only:
        raise MissingFileError(f"{settings.path!r} contains no store yet: open it without read_only to create one")
    return await database.write(lambda connection: _add_spaces(connection, settings))


def _add_spaces(connection: Connection, settings: Settings) -> dict[RecordKind, VectorSpace]:
    if not store_meta.spaces(connection):  # another process may have added them in the meantime
        store_meta.add_spaces(connection, settings.new_space())
        history_retention.set_keep(connection, settings.history or DEFAULT_KEEP)
    return store_meta.spaces(connection)


def _expected_spaces(
    stored: dict[RecordKind, VectorSpace], settings: Settings, embedder: str | None
) -> dict[RecordKind, VectorSpace]:
    """The *stored* spaces, with the dimension of *settings* while the file has none. Raises if they do not agree."""
    space = stored["memory"]
    dimension = settings.dimension or settings.embedder_dimension
    requested = {"dimension": dimension, "metric": settings.metric, "curvature": settings.curvature}
    for setting, got in {"embedder": embedder, **requested}.items():
        expected = getattr(space, setting)
        is_open = not expected and setting in ("dimension", "embedder")
        if got is not None and not is_open and got != expected:
            raise SettingsMismatchError(setting, expected=expected, got=got)
    return {
        kind: replace(stored_space, dimension=stored_space.dimension or dimension or 0)
        for kind, stored_space in stored.items()
    }


async def _apply_index_settings(
    database: Database, settings: Settings, spaces: dict[RecordKind, VectorSpace]
) -> IndexSettings:
    """The index settings of the store. The file stores those that the caller changed."""
    stored = IndexSettings.stored(await database.read(store_meta.index_options))
    current = settings.index_settings(stored, spaces["memory"].metric)
    if current != stored and not settings.read_only:
        graph = current.kind != "exact"
        await database.write(
            lambda connection: store_meta.remember_index(connection, current.as_stored(), graph=graph), batch=True
        )
    return current


async def _add_metadata_indexes(database: Database, settings: Settings) -> None:
    """Build the requested indexes that the file lacks. Takes the writer lock only if it lacks one."""
    paths = settings.indexed_metadata
    if settings.read_only or not paths:
        return
    if await database.read(lambda connection: metadata_indexes.missing(connection, paths)):
        await database.write(lambda connection: metadata_indexes.add(connection, paths), batch=True)


async def _apply_history(database: Database, settings: Settings) -> None:
    """Store how much history the file keeps, 30 days at first, and delete the rows that it no longer keeps."""
    if settings.read_only:
        return
    stored = await database.read(history_retention.stored)
    keep = settings.history or (DEFAULT_KEEP if stored is None else stored.keep)
    if stored is None or stored.keep != keep:
        if keep != "off":
            await _delete_history(database)  # the process that switched it off may have ended before all was deleted
        await database.write(lambda connection: history_retention.set_keep(connection, keep))
        while await database.write(history_retention.trim_part, batch=True):
            pass
    if keep == "off":
        await _delete_history(database)


async def _delete_history(database: Database) -> None:
    """Delete the history of a file that keeps none, in several transactions, so that others can write in between."""
    has_rows = await database.read(history_retention.has_unwanted_rows)
    while has_rows:
        has_rows = await database.write(history_retention.delete_unwanted_rows, batch=True)
