"""Texts of verbs turned into vectors by the embedder of the store."""

import asyncio
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import repeat
from operator import contains
from typing import Any, TypeVar

from memstore.concurrency import CHUNK_SIZE
from memstore.errors import EmbedderError, InvalidError, MemstoreError
from memstore.repository import store_meta
from memstore.repository.context import WriteContext
from memstore.session import Session
from memstore.validation.arguments import as_list
from memstore.validation.text import check_text

ErrorT = TypeVar("ErrorT", bound=MemstoreError)

ITEMS = "mappings, one for each memory"
"""What the items of a verb on memories are, for the message of an error."""


async def embed(session: Session, texts: list[str]) -> Sequence[object]:
    """The vectors of *texts* by the embedder of *session*. Raises `EmbedderError` if it has none."""
    session.check_usable()  # before the thread of the embedder is used, which a forked child does not have
    if session.embedder is None:
        raise missing_embedder(session.spaces["memory"].embedder)
    return await session.embedder.embed(texts, session.spaces["memory"])


def missing_embedder(name: str | None) -> EmbedderError:
    """The error for a text without a vector in a store without an embedder, whose file names *name*."""
    if name is None:
        return EmbedderError(
            "This store has no embedder to turn text into a vector: open it with embedder=, or pass a vector"
        )
    return EmbedderError(
        f"This store was opened without embedder {name!r}, which made the vectors of the file, and a text without a "
        "vector is found by no search: open it with embedder=, or pass embedding=, or embedding=None to store the text "
        "without a vector"
    )


async def embed_items(
    session: Session, items: Iterable[Mapping[str, Any]], without: Container[int] = ()
) -> tuple[list[Mapping[str, Any]], Exception | None]:
    """The items that `load` can store: all, or those before the batch of texts that failed, and its error."""
    prepared: list[Mapping[str, Any]] = as_list(items, "items", ITEMS)
    space = session.spaces["memory"]
    places = [i for i, item in enumerate(prepared) if isinstance(item, Mapping) and "embedding" not in item]
    if without:
        places = [i for i in places if i not in without]
    if not places:
        return prepared, None
    session.check_usable()  # before the threads of the embedder are used, which a forked child does not have
    embedder = session.embedder
    if embedder is None:
        if space.embedder is None:
            return prepared, None
        return prepared[: places[0]], of_item(missing_embedder(space.embedder), prepared, places[0])
    texts: list[str] = []
    for i in places:
        try:
            texts.append(check_text("content", prepared[i].get("content")))
        except InvalidError as error:
            raise of_item(error, prepared, i) from None
        if len(texts) % CHUNK_SIZE == 0:
            await asyncio.sleep(0)  # other tasks of the event loop may run
    vectors, failure = await embedder.embed_first(texts, space)
    for i, vector in zip(places, vectors, strict=False):
        prepared[i] = {**prepared[i], "embedding": vector}
    if isinstance(failure, EmbedderError) and failure.item is not None:  # the index of a text
        failure = of_item(failure, prepared, places[failure.item])
    return (prepared, None) if failure is None else (prepared[: places[len(vectors)]], failure)


def of_item(error: ErrorT, items: Sequence[Mapping[str, Any]], place: int) -> ErrorT:
    """*error*, with the item of *items* that caused it if there are several."""
    return error.of_item(place, items[place].get("id")) if len(items) > 1 else error


def check_unnamed(context: WriteContext, items: Sequence[Mapping[str, Any]]) -> None:
    """Raise `EmbedderError` if an item has no embedding, and another process has had the file name an embedder."""
    if not all(map(contains, items, repeat("embedding"))):
        name = store_meta.spaces(context.connection)["memory"].embedder
        if name is not None:
            raise missing_embedder(name)
