"""Opening a store: the parts in order, once the file is found to be what was asked for."""

import asyncio
import os
from collections.abc import Generator, Iterable
from datetime import timedelta
from types import TracebackType
from typing import Any, Literal

from sqlalchemy import Connection

from memstore import filters
from memstore.api.store import Store, close_after
from memstore.concurrency import wait_to_end
from memstore.config import (
    Durability,
    IndexKind,
    IndexOptions,
    IndexSettings,
    Settings,
    check_index,
    check_keep,
    path_text,
)
from memstore.database import Database
from memstore.database.inspect import missing_dimension_error
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
    """A store that is about to be opened: `async with` it, or `await` it and close the store."""

    def __init__(self, settings: Settings, embedder: BoundEmbedder | None) -> None:
        self._settings = settings
        self._embedder = embedder
        self._store: Store | None = None

    def __await__(self) -> Generator[Any, None, Store]:
        return _open(self._settings, self._embedder).__await__()

    async def __aenter__(self) -> Store:
        self._store = await self
        return self._store

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._store is not None:
            await close_after(self._store, error)


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
    """Open the store in the file at *path*, creating or upgrading the file if need be.

    Use it with `async with`, or `await` it and `await store.close()`.

    Args:
        path: the database file; its folder must exist.
        dimension: numbers per embedding. A new file needs it, or an embedder; an existing one knows it.
        metric: `"cosine"` (score -1 to 1), `"inner_product"`, `"l2"` (score 1/(1+distance)), `"spherical"` (score
            1 - angle/π) or `"hyperbolic"` (score 1/(1+distance)). None means as stored, and cosine for a new file.
        curvature: of the ball of `"hyperbolic"`, which is curved by minus so much, 1e-6 to 1e6. None means as stored,
            and 1.0 for a new file; other metrics have none.
        embedder: turns texts into embeddings; see `memstore.Embedder`. Its name is stored with the file.
        timeout: seconds a write waits for other writers before it raises `BusyError`.
        durability: `"full"`: what was committed survives a power cut. `"relaxed"`: the last commits may not, the
            file does.
        read_only: every write raises `ReadOnlyError`; the file must exist.
        index: how vectors are searched: a `memstore.IndexOptions`, or only its `kind`. `"exact"` compares the query
            with every allowed vector. `"graph"` walks a graph (FAISS's HNSW), under a filter only where that is
            reliable and faster. `"auto"` is exact until an exact search takes about a millisecond (10 million
            numbers: 26,042 vectors of dimension 384), then uses the graph where it is faster. None means as stored,
            and `"auto"` for a new file.
        indexed_metadata: values in the metadata of memories by which filters are quick, written as in a filter after
            `metadata.`: `("user_id", "source.kind")`. They add to those the file has, which stay; None and `()` ask
            for none. A new one is built now, under the writer lock, at 0.2 s for 100,000 memories; every later write
            pays for it too. With `read_only` none is built.
        activation_half_life: seconds in which the activation of an assembly comes down to half: a day. Nothing of it is
            stored; another one reads the same file otherwise.
        history: what the file keeps of its past: `"full"` all of it, a `timedelta` what is no older, `"off"` nothing;
            what it kept before is then deleted, here and now. None means as it was last opened, at first `"full"`.

    Raises:
        InvalidError: an argument is refused, at the call; the others when it is awaited or entered.
        ForeignFileError, NewerFileError, MissingFileError: the file cannot be opened.
        SettingsMismatchError: the file has another dimension, metric, curvature or embedder.
        BusyError: other processes held the file past the timeout.
    """
    bound = None if embedder is None else BoundEmbedder(embedder)
    if bound is not None and dimension is not None and dimension != bound.dimension:
        raise InvalidError(
            f"embedder {bound.name!r} makes vectors of dimension {bound.dimension}; dimension={dimension}"
        )
    settings = Settings(
        path=path_text(path),
        dimension=bound.dimension if bound is not None else dimension,
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
        spaces = await _agreed(database, await _spaces(database, settings), settings, embedder)
        guard = SpaceGuard(spaces, None if embedder is None else embedder.name)
        await database.read(guard.check)
        index_settings = await _index_settings(database, settings, spaces)
        engines = EngineSelector(settings.index.engine, index_settings)
        indexes = IndexSet(spaces, index_settings, engines)
        await _index_metadata(database, settings)
        await _keep_history(database, settings)
        maintainer = IndexMaintainer(indexes, database)
        follower = Follower(indexes, guard, maintainer.notifier())
        session = Autocommit(database, follower, spaces, embedder)
        lagging = await database.read(vectors.lagging)
        if lagging:
            await session.update_composites()
    except BaseException:
        await wait_to_end(
            asyncio.ensure_future(database.close())
        )  # a second cancellation leaves no thread behind either
        raise
    return Store(session, maintainer)


async def _index_settings(
    database: Database, settings: Settings, spaces: dict[RecordKind, VectorSpace]
) -> IndexSettings:
    """How vectors are searched: as asked for, the rest as the file remembers; what is new is written down."""
    stored = await database.read(store_meta.index_options)
    options = settings.index_settings(IndexSettings.stored(stored), spaces["memory"].metric)
    if options != IndexSettings.stored(stored) and not settings.read_only:
        graph = options.kind != "exact"
        await database.write(lambda c: store_meta.remember_index(c, options.as_stored(), graph=graph), batch=True)
    return options


async def _spaces(database: Database, settings: Settings) -> dict[RecordKind, VectorSpace]:
    spaces = await database.read(store_meta.spaces)
    if spaces:
        return spaces
    if settings.read_only:
        raise MissingFileError(f"{settings.path!r} holds no store yet: open it without read_only to make one")
    return await database.write(lambda connection: _settle(connection, settings))


async def _index_metadata(database: Database, settings: Settings) -> None:
    """Build the indexes asked for that the file lacks. Where it lacks none the writer lock is not taken."""
    wanted = settings.indexed_metadata
    if settings.read_only or not wanted:
        return
    missing = await database.read(lambda connection: metadata_indexes.missing(connection, wanted))
    if missing:
        await database.write(lambda connection: metadata_indexes.add(connection, wanted), batch=True)


async def _keep_history(database: Database, settings: Settings) -> None:
    """Have the file keep of its past what was asked for, at first all of it. What it is not to keep any more goes."""
    if settings.read_only:
        return
    stored = await database.read(history_retention.stored)
    wanted = settings.history or ("full" if stored is None else stored.keep)
    if stored is None or stored.keep != wanted:
        if wanted != "off":
            await _drop_history(database)  # a process may have ended before all was gone
        await database.write(lambda connection: history_retention.set_keep(connection, wanted))
    if wanted == "off":
        await _drop_history(database)


async def _drop_history(database: Database) -> None:
    """Delete what a file that keeps nothing of its past kept before, in transactions between which others come."""
    left = await database.read(history_retention.has_unwanted_rows)
    while left:
        left = await database.write(history_retention.delete_unwanted_rows, batch=True)


def _settle(connection: Connection, settings: Settings) -> dict[RecordKind, VectorSpace]:
    """Fix what the vectors of a new file are; another process may have done it just before."""
    if not store_meta.spaces(connection):
        if settings.dimension is None:
            raise missing_dimension_error(settings.path)
        store_meta.add_spaces(connection, settings.new_space(settings.dimension))
        history_retention.set_keep(connection, settings.history or "full")
    return store_meta.spaces(connection)


async def _agreed(
    database: Database, spaces: dict[RecordKind, VectorSpace], settings: Settings, embedder: BoundEmbedder | None
) -> dict[RecordKind, VectorSpace]:
    """The spaces of the file, if they are what was asked for. An embedder nobody named yet is named now."""
    stored = spaces["memory"]
    asked = {
        "dimension": settings.dimension,
        "metric": settings.metric,
        "curvature": settings.curvature,
        "embedder": embedder and embedder.name,
    }
    for setting, got in asked.items():
        expected = getattr(stored, setting)
        unnamed = expected is None and setting == "embedder"
        if got is not None and not unnamed and got != expected:
            raise SettingsMismatchError(setting, expected=expected, got=got)
    if embedder is None or stored.embedder is not None or settings.read_only:
        return spaces

    def name(connection: Connection) -> dict[RecordKind, VectorSpace]:
        store_meta.name_embedder(connection, embedder.name)
        return store_meta.spaces(connection)

    return await _agreed(database, await database.write(name), settings, embedder)
