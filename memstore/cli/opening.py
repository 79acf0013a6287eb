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
from memstore.integrations.wordllama import NAME, WordLlamaEmbedder


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the caller said of a store's vectors; None is nothing."""

    embedder: EmbedderChoice | None = None
    dimension: int | None = None
    metric: MetricChoice | None = None


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
    """The store in *file*, read-only: it is neither made nor upgraded."""
    if not await asyncio.to_thread(file.exists):
        raise MissingFileError(f"there is no store at {str(file)!r}: memstore add, import or demo makes one")
    async with memstore.open(file, read_only=True) as store:
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
    dimension, metric = wanted.dimension, cast("Metric | None", wanted.metric and wanted.metric.value)
    if is_new(file):
        embedder, refusal, dimension = _for_new(wanted, like or {})
        if metric is None and like is not None:
            metric = cast("Metric", like.get("metric"))  # which open checks
    else:
        async with looking(file) as store:
            named = (await store.stats()).embedder
        embedder, refusal = _chosen(named, wanted.embedder)
    async with memstore.open(file, embedder=embedder, dimension=dimension, metric=metric) as store:
        yield Opened(store=store, refusal=refusal)


def is_new(file: Path) -> bool:
    """Whether there is no file, or an empty one, so that opening it would make a store."""
    return not file.exists() or (file.is_file() and file.stat().st_size == 0)


def _chosen(named: str | None, choice: EmbedderChoice | None) -> tuple[Embedder | None, str | None]:
    """The embedder for a file that exists, and why texts cannot be embedded."""
    if choice is EmbedderChoice.WORDLLAMA or (choice is None and named == NAME):
        return WordLlamaEmbedder(), None
    if choice is EmbedderChoice.NONE:
        return None, None
    if named is None:
        return None, (
            "this file names no embedder, so a text cannot be turned into a vector here: give --embedding JSON, "
            "or --embedder wordllama if its vectors are WordLlama's"
        )
    return None, _unknown(named, 1)


def _for_new(wanted: Wanted, like: dict[str, object]) -> tuple[Embedder | None, str | None, int | None]:
    """The embedder of a new file, why texts cannot be embedded, and its dimension."""
    dimension, named = like.get("dimension"), like.get("embedder")
    if wanted.embedder is None and isinstance(dimension, int):
        dimension = wanted.dimension or dimension
        if isinstance(named, str) and named != NAME:
            return _NamedOnly(named, dimension), _unknown(named, 1), dimension
        if named is None:
            return None, _chosen(None, None)[1], dimension
    if wanted.embedder is EmbedderChoice.NONE:
        if wanted.dimension is None and not isinstance(dimension, int):
            raise InvalidError("a new file without an embedder needs --dimension, the numbers per embedding")
        return None, None, wanted.dimension or dimension  # type: ignore[return-value]
    return WordLlamaEmbedder(), None, wanted.dimension


def _unknown(named: str, texts: int) -> str:
    what = "a text" if texts == 1 else f"{texts} texts"
    return (
        f"this file was made with the embedder {named!r}, which the command line cannot load to turn {what} into "
        "vectors: give --embedding JSON, or use memstore from Python with that embedder"
    )
