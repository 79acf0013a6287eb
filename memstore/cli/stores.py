"""Opens stores for commands: read-only for reads, with the embedder that the file names for texts.

A file whose embedder cannot be loaded opens without one; a command that has to embed a text then raises
`EmbedderError` with `OpenStore.embedder_error`.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, cast

import memstore
from memstore import Embedder, EmbedderError, Metric, MissingFileError, Store, StoreNamespace
from memstore.cli.options import EmbedderChoice, NewFileOptions, parse_namespace
from memstore.embedders.wordllama import NAME, WordLlamaEmbedder

WITHOUT_VECTOR = "To store a text without a vector, pass --embedder none."
_CREATE = "Create one with `memstore add`, `memstore import` or `memstore demo`."


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenStore:
    """An open store, and why it cannot embed texts; None if it can, or if the user passed `--embedder none`."""

    store: Store
    embedder_error: str | None

    def checked(self, query: str | list[float]) -> str | list[float]:
        """*query*, if the store can search for it; else raises `EmbedderError`."""
        if isinstance(query, str) and self.embedder_error is not None:
            raise EmbedderError(self.embedder_error)
        return query

    def check_embedder(self) -> None:
        """Raise `EmbedderError` if a text to store cannot be embedded and the user did not pass `--embedder none`."""
        if self.embedder_error is not None:
            raise EmbedderError(f"{self.embedder_error} {WITHOUT_VECTOR}")


class _UnavailableEmbedder:
    """Gives the new file of an import the embedder name of the exported store, without being able to embed."""

    def __init__(self, name: str, dimension: int) -> None:
        self.name = name
        self.dimension = dimension

    def embed(self, texts: Sequence[str]) -> NoReturn:  # noqa: ARG002 - the protocol of embedders
        raise EmbedderError(_unknown_embedder(self.name))


@asynccontextmanager
async def open_read_only(file: Path) -> AsyncIterator[Store]:
    """The store in *file*, read-only: neither created nor migrated. Raises `MissingFileError` without a store."""
    if not await asyncio.to_thread(file.exists):
        raise MissingFileError(f"No store at {str(file)!r}. {_CREATE}")
    try:
        store = await memstore.open(file, read_only=True)
    except MissingFileError as error:
        # Tables without settings: the process that created the file was stopped in between.
        raise MissingFileError(f"No complete store at {str(file)!r}: it has no settings yet. {_CREATE}") from error
    async with store:
        yield store


@asynccontextmanager
async def open_existing(file: Path) -> AsyncIterator[Store]:
    """The store in *file*, for writing, without an embedder. Raises `MissingFileError` without a store."""
    async with open_read_only(file):
        pass
    async with memstore.open(file) as store:
        yield store


@asynccontextmanager
async def read_namespace(file: Path, namespace: str) -> AsyncIterator[StoreNamespace]:
    """The namespace with the name *namespace* of the store in *file*, read-only."""
    path = parse_namespace(namespace)
    async with open_read_only(file) as store:
        yield store.namespace(*path)


@asynccontextmanager
async def write_namespace(file: Path, namespace: str) -> AsyncIterator[StoreNamespace]:
    """The namespace with the name *namespace* of the store in *file*, for writing, without an embedder."""
    path = parse_namespace(namespace)
    async with open_existing(file) as store:
        yield store.namespace(*path)


@asynccontextmanager
async def open_with_embedder(
    file: Path, choice: EmbedderChoice | None, *, read_only: bool = False
) -> AsyncIterator[OpenStore]:
    """The store in *file* with its embedder. Raises `MissingFileError` without a store."""
    async with open_read_only(file) as store:
        name = (await store.stats()).embedder
    embedder, embedder_error = _existing_embedder(name, choice)
    async with memstore.open(file, read_only=read_only, embedder=embedder) as store:
        yield OpenStore(store=store, embedder_error=embedder_error)


@asynccontextmanager
async def open_or_create(
    file: Path, options: NewFileOptions, *, input_size: int | None = None, header: dict[str, object] | None = None
) -> AsyncIterator[OpenStore]:
    """The store in *file*, for writing, with its embedder; created if there is none.

    Args:
        file: the database file.
        options: the options of the command. They must agree with an existing file.
        input_size: numbers in the first vector of the input: the dimension of a new file without `--dimension`.
        header: the first line of an export: the settings of a new file that *options* leave open.
    """
    embedder: Embedder | None
    dimension, curvature = options.dimension, options.curvature
    metric = cast("Metric | None", options.metric and options.metric.value)
    name, has_vectors = await _stored_space(file)
    if not has_vectors:
        embedder, embedder_error, dimension = _new_embedder(options, input_size, header or {})
        if metric is None and header is not None:
            metric = cast("Metric", header.get("metric"))  # open checks it
            curvature = cast("float | None", header.get("curvature")) if curvature is None else curvature
    else:
        embedder, embedder_error = _existing_embedder(name, options.embedder)
    async with memstore.open(file, embedder=embedder, dimension=dimension, metric=metric, curvature=curvature) as store:
        yield OpenStore(store=store, embedder_error=embedder_error)


async def _stored_space(file: Path) -> tuple[str | None, bool]:
    """The embedder that *file* names, and whether its dimension is fixed; None and False for a new file."""
    if await is_new(file):
        return None, False
    async with open_read_only(file) as store:
        stats = await store.stats()
    return stats.embedder, stats.dimension is not None


async def is_new(file: Path) -> bool:
    """Whether *file* contains no store yet, so that opening it for writing creates one."""
    if not await asyncio.to_thread(lambda: file.exists() and (file.is_dir() or file.stat().st_size)):
        return True
    try:
        async with open_read_only(file):
            return False
    except MissingFileError:
        return True


def _existing_embedder(name: str | None, choice: EmbedderChoice | None) -> tuple[Embedder | None, str | None]:
    """The embedder of an existing file that stores *name*, and why texts cannot be embedded."""
    if choice is EmbedderChoice.WORDLLAMA:
        return WordLlamaEmbedder(), None
    if choice is EmbedderChoice.NONE:
        return None, None
    if name == NAME:
        try:
            return WordLlamaEmbedder(), None
        except EmbedderError as error:
            return None, str(error)
    return None, _NO_EMBEDDER if name is None else _unknown_embedder(name)


def _new_embedder(
    options: NewFileOptions, input_size: int | None, header: dict[str, object]
) -> tuple[Embedder | None, str | None, int | None]:
    """The embedder of a new file, why texts cannot be embedded, and its dimension."""
    stored, name = header.get("dimension"), header.get("embedder")
    dimension = options.dimension or input_size or (stored if isinstance(stored, int) else None)
    if options.embedder is EmbedderChoice.NONE:
        return None, None, dimension
    if options.embedder is None and dimension is not None and name != NAME and (input_size or header):
        if isinstance(name, str):
            return _UnavailableEmbedder(name, dimension), _unknown_embedder(name), dimension
        return None, _NO_EMBEDDER, dimension
    return WordLlamaEmbedder(), None, options.dimension


_NO_EMBEDDER = (
    "The file names no embedder, so texts cannot be embedded. Pass --embedding, or --embedder wordllama if its "
    "vectors are from WordLlama."
)


def _unknown_embedder(name: str) -> str:
    return (
        f"The embedder of this file is {name!r}, which the command line cannot load. Pass --embedding, or "
        "use the store from Python with that embedder."
    )
