"""Embedders: what turns texts into vectors, called off the event loop and before the writer lock is taken.

An embedder is any object with a `name`, a `dimension` and an `embed`; `embed` may be a plain function or a coroutine
function. A plain one runs on a thread of the store's own, one call at a time, so it need not be thread-safe.
What it raises is raised to the caller unchanged, and nothing is stored.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol, TypeVar, cast, runtime_checkable

import numpy as np
import numpy.typing as npt

from memstore.config import check_dimension
from memstore.errors import ClosedError, DimensionError, EmbedderError, EmbeddingError, InvalidError
from memstore.models.records import Embedding
from memstore.vectors.encoding import EmbeddingLike, as_embedding
from memstore.vectors.space import Space

T = TypeVar("T")

Embedded = Sequence[EmbeddingLike] | npt.NDArray[np.floating]

BATCH = 256
"""Texts given to an embedder in one call."""


@runtime_checkable
class Embedder(Protocol):
    """What a store needs of an embedder.

    Attributes:
        name: stored in the file; a file is never opened with an embedder of another name.
        dimension: numbers per vector.
    """

    @property
    def name(self) -> str:
        """See the class."""
        ...

    @property
    def dimension(self) -> int:
        """See the class."""
        ...

    def embed(self, texts: Sequence[str]) -> Embedded | Awaitable[Embedded]:
        """One vector a text, in order: shape (len(texts), dimension)."""
        ...


class BoundEmbedder:
    """An embedder as a store calls it."""

    def __init__(self, embedder: Embedder) -> None:
        name = getattr(embedder, "name", None)
        if not isinstance(name, str) or not name or not callable(getattr(embedder, "embed", None)):
            raise InvalidError(
                "an embedder has a name (text), a dimension and a method embed(texts): see memstore.Embedder"
            )
        check_dimension(getattr(embedder, "dimension", None))
        self.name = name
        self.dimension = embedder.dimension
        self._embedder = embedder
        self._thread: ThreadPoolExecutor | None = None
        self._closed = False

    async def embed(self, texts: Sequence[str], space: Space) -> list[Embedding]:
        """The vectors of *texts*, each checked.

        Raises:
            EmbedderError: there are not as many as texts, or one cannot be stored: of another dimension, not finite,
                or without a place in *space*: zero under a metric of directions, outside the ball of a hyperbolic one.
        """
        vectors: list[Embedding] = []
        for start in range(0, len(texts), BATCH):
            some = list(texts[start : start + BATCH])
            vectors += await self._on_thread(partial(self._all_checked, await self._call(some), some, space))
        return vectors

    def _all_checked(self, made: object, texts: list[str], space: Space) -> list[Embedding]:
        if not isinstance(made, Sequence | np.ndarray) or len(made) != len(texts):
            what = f"{len(made)} vectors" if isinstance(made, Sequence | np.ndarray) else f"a {type(made).__name__}"
            raise EmbedderError(f"embedder {self.name!r} returned {what} for {len(texts)} texts")
        return [self._checked(vector, text, space) for vector, text in zip(made, texts, strict=True)]

    def _checked(self, vector: object, text: str, space: Space) -> Embedding:
        try:
            return as_embedding(vector, self.dimension, allow_zero=space.allow_zero, max_norm=space.max_norm)
        except (EmbeddingError, DimensionError) as error:
            shown = text if len(text) <= 40 else text[:37] + "..."
            raise EmbedderError(
                f"embedder {self.name!r} returned what cannot be stored for the text {shown!r} ({error}): "
                "give that text an embedding of your own, or embedding=None to store it without one"
            ) from error

    async def _call(self, texts: list[str]) -> Embedded:
        if inspect.iscoroutinefunction(self._embedder.embed):
            return await cast("Awaitable[Embedded]", self._embedder.embed(texts))
        made = await self._on_thread(partial(self._embedder.embed, texts))
        return await made if inspect.isawaitable(made) else made

    async def _on_thread(self, function: Callable[[], T]) -> T:
        if self._closed:
            raise ClosedError("the store is closed: open it again")
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="memstore-embedder")
        return await asyncio.get_running_loop().run_in_executor(self._thread, _without_stop, function)

    def close(self) -> None:
        """Let the thread end when what it has to do is done."""
        self._closed = True
        if self._thread is not None:
            self._thread.shutdown(wait=False)


def _without_stop(function: Callable[[], T]) -> T:
    try:
        return function()
    except StopIteration as error:  # a future cannot hold it
        raise RuntimeError("the embedder raised StopIteration") from error
