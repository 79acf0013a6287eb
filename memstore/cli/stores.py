"""Stores opened for a command: read-only where it only looks, and with the embedder the file names.

A file made with an embedder that cannot be loaded here opens all the same; `Opened.vector` then says what to do as
soon as a text would have to be embedded.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, cast

import typer

import memstore
from memstore import Embedder, EmbedderError, InvalidError, Metric, MissingFileError, Store
from memstore.cli.options import EmbedderChoice, MetricChoice, embedding_of, refuse
from memstore.embedders.wordllama import NAME, WordLlamaEmbedder


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the caller said of a store's vectors; None is nothing.

    Attributes:
        embedder: what makes them.
        dimension: numbers per vector.
        metric: how they are compared.
        curvature: of a hyperbolic space.
        given: numbers in the first vector given: the dimension of a new file of which nothing else was said.
    """

    embedder: EmbedderChoice | None = None
    dimension: int | None = None
    metric: MetricChoice | None = None
    curvature: float | None = None
    given: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An open store, and why it cannot embed texts; None where it can."""

    store: Store
    refusal: str | None

    def query(self, text: str | None, embedding: str | None) -> str | list[float]:
        """What to search for: a text where the store can embed it, or a vector given as JSON.

        Raises:
            typer.BadParameter: not just one of the two was given.
            EmbedderError: it is a text, and there is no embedder.
        """
        if (text is None) == (embedding is None):
            raise typer.BadParameter("give a text to search for, or --embedding, one of them")
        if embedding is not None:
            vector = embedding_of(embedding)
            if vector is None:
                raise refuse("--embedding", "null is nothing to search for")
            return vector
        self.check_embeds()
        return text or ""

    def check_embeds(self) -> None:
        """Raise `EmbedderError` where the store cannot embed texts, and nobody said that it need not."""
        if self.refusal is not None:
            raise EmbedderError(self.refusal)


class _NamedOnly:
    """Stands in for the embedder of an imported store, so that the new file names it too."""

    def __init__(self, name: str, dimension: int) -> None:
        self.name = name
        self.dimension = dimension

    def embed(self, texts: Sequence[str]) -> NoReturn:
        raise EmbedderError(_unknown(self.name, len(texts)))


@asynccontextmanager
async def looking(file: Path) -> AsyncIterator[Store]:
    """The store in *file*, read-only: neither made nor upgraded. Raises `MissingFileError` where there is none."""
    if not await asyncio.to_thread(file.exists):
        raise MissingFileError(f"there is no store at {str(file)!r}: memstore add, import or demo makes one")
    try:
        store = await memstore.open(file, read_only=True)
    except MissingFileError as error:
        # The tables are there and the dimension is not: whoever made the file was stopped between the two.
        raise MissingFileError(f"{str(file)!r} is no store yet: memstore add, import or demo makes it one") from error
    async with store:
        yield store


@asynccontextmanager
async def changing(file: Path) -> AsyncIterator[Store]:
    """The store in *file*, for writing, with no embedder; the file must exist."""
    async with looking(file):
        pass
    async with memstore.open(file) as store:
        yield store


@asynccontextmanager
async def searching(file: Path, choice: EmbedderChoice | None) -> AsyncIterator[Opened]:
    """The store in *file*, read-only, with what embeds texts for it."""
    async with looking(file) as store:
        named = (await store.stats()).embedder
    embedder, refusal = _chosen(named, choice)
    async with memstore.open(file, read_only=True, embedder=embedder) as store:
        yield Opened(store=store, refusal=refusal)


@asynccontextmanager
async def writing(file: Path, wanted: Wanted, *, like: dict[str, object] | None = None) -> AsyncIterator[Opened]:
    """The store in *file*, for writing, with what embeds texts for it; made if there is none.

    Args:
        file: the database file.
        wanted: what the caller said. For a file that exists it has to agree with it.
        like: the first line of an export, after which a new file is made where the caller said nothing.
    """
    embedder: Embedder | None
    dimension, curvature = wanted.dimension, wanted.curvature
    metric = cast("Metric | None", wanted.metric and wanted.metric.value)
    if await is_new(file):
        embedder, refusal, dimension = _for_new(wanted, like or {})
        if metric is None and like is not None:
            metric = cast("Metric", like.get("metric"))  # which open checks
            curvature = cast("float | None", like.get("curvature")) if curvature is None else curvature
    else:
        async with looking(file) as store:
            named = (await store.stats()).embedder
        embedder, refusal = _chosen(named, wanted.embedder)
    async with memstore.open(file, embedder=embedder, dimension=dimension, metric=metric, curvature=curvature) as store:
        yield Opened(store=store, refusal=refusal)


async def is_new(file: Path) -> bool:
    """Whether there is no store in *file* yet, so that opening it for writing makes one."""
    if not await asyncio.to_thread(lambda: file.exists() and (file.is_dir() or file.stat().st_size)):
        return True
    try:
        async with looking(file):
            return False
    except MissingFileError:
        return True


def _chosen(named: str | None, choice: EmbedderChoice | None) -> tuple[Embedder | None, str | None]:
    """The embedder for a file that exists, and why texts cannot be embedded."""
    if choice is EmbedderChoice.WORDLLAMA:
        return WordLlamaEmbedder(), None
    if choice is EmbedderChoice.NONE:
        return None, None
    if named == NAME:
        try:
            return WordLlamaEmbedder(), None
        except EmbedderError as error:
            return None, str(error)
    return None, _UNNAMED if named is None else _unknown(named, 1)


def _for_new(wanted: Wanted, like: dict[str, object]) -> tuple[Embedder | None, str | None, int | None]:
    """The embedder of a new file, why texts cannot be embedded, and its dimension."""
    told, named = like.get("dimension"), like.get("embedder")
    dimension = wanted.dimension or wanted.given or (told if isinstance(told, int) else None)
    if wanted.embedder is EmbedderChoice.NONE:
        if dimension is None:
            raise InvalidError("a new file without an embedder needs --dimension, the numbers per embedding")
        return None, None, dimension
    if wanted.embedder is None and dimension is not None and named != NAME and (wanted.given or like):
        if isinstance(named, str):
            return _NamedOnly(named, dimension), _unknown(named, 1), dimension
        return None, _UNNAMED, dimension
    return WordLlamaEmbedder(), None, wanted.dimension


_UNNAMED = (
    "this file names no embedder, so a text cannot be turned into a vector here: give --embedding JSON, "
    "or --embedder wordllama if its vectors are WordLlama's, or --embedder none to do without a vector"
)


def _unknown(named: str, texts: int) -> str:
    what = "a text" if texts == 1 else f"{texts} texts"
    return (
        f"this file was made with the embedder {named!r}, which the command line cannot load to turn {what} into "
        "vectors: give --embedding JSON, or use memstore from Python with that embedder, or --embedder none to do "
        "without a vector"
    )
