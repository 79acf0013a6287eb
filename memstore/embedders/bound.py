"""The protocol of embedders, and the calls of one by a store.

An embedder is any object with a `name`, a `dimension` and an `embed`, which is a function or a coroutine function. A
function runs on a thread of the store, one call at a time, so it need not be thread-safe. Its exceptions are raised to
the caller unchanged, and nothing is stored.
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
"""The most texts in one call of an embedder."""


@runtime_checkable
class Embedder(Protocol):
    """The interface of an embedder.

    Attributes:
        name: stored in the file. A file opens only with an embedder of the same name.
        dimension: the dimension of its vectors.
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
        """One vector for each text, in order: shape (len(texts), dimension)."""
        ...


class BoundEmbedder:
    """Calls an embedder in batches and checks its vectors."""

    def __init__(self, embedder: Embedder) -> None:
        name = getattr(embedder, "name", None)
        if not isinstance(name, str) or not name or not callable(getattr(embedder, "embed", None)):
            raise InvalidError(
                "Invalid embedder: expected a name (text), a dimension and a method embed(texts). See memstore.Embedder"
            )
        self.dimension = check_dimension(getattr(embedder, "dimension", None))
        self.name = str.__str__(name)
        self._embedder = embedder
        self._thread: ThreadPoolExecutor | None = None
        self._closed = False

    async def embed(self, texts: Sequence[str], space: Space) -> list[Embedding]:
        """The vectors of *texts*, each checked.

        Raises:
            EmbedderError: the number of vectors differs from the number of texts, or a vector is invalid: of another
                dimension, not finite, or not in *space* (zero under an angular metric, outside the ball of a
                hyperbolic one).
        """
        vectors: list[Embedding] = []
        for start in range(0, len(texts), BATCH):
            batch = list(texts[start : start + BATCH])
            vectors += await self._on_thread(partial(self._check_all, await self._call(batch), batch, space))
        return vectors

    def _check_all(self, vectors: object, texts: list[str], space: Space) -> list[Embedding]:
        if not isinstance(vectors, Sequence | np.ndarray) or len(vectors) != len(texts):
            result = len(vectors) if isinstance(vectors, Sequence | np.ndarray) else type(vectors).__name__
            raise EmbedderError(
                f"Invalid result of embedder {self.name!r}: expected {len(texts)} vectors, found {result}"
            )
        return [self._check(vector, number, space) for number, vector in enumerate(vectors)]

    def _check(self, vector: object, number: int, space: Space) -> Embedding:
        try:
            return as_embedding(vector, self.dimension, allow_zero=space.allow_zero, max_norm=space.max_norm)
        except (EmbeddingError, DimensionError) as error:
            raise EmbedderError(
                f"Invalid vector of embedder {self.name!r} for text {number} of the batch, counted from 0 ({error}). "
                "Pass another embedding for this text, or embedding=None to store it without one"
            ) from error

    async def _call(self, texts: list[str]) -> Embedded:
        if inspect.iscoroutinefunction(self._embedder.embed):
            return await cast("Awaitable[Embedded]", self._embedder.embed(texts))
        vectors = await self._on_thread(partial(self._embedder.embed, texts))
        return await vectors if inspect.isawaitable(vectors) else vectors

    async def _on_thread(self, function: Callable[[], T]) -> T:
        if self._closed:
            raise ClosedError("The store is closed: open it again")
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="memstore-embedder")
        return await asyncio.get_running_loop().run_in_executor(self._thread, _without_stop_iteration, function)

    def close(self) -> None:
        """End the thread after its current call."""
        self._closed = True
        if self._thread is not None:
            self._thread.shutdown(wait=False)


def _without_stop_iteration(function: Callable[[], T]) -> T:
    try:
        return function()
    except StopIteration as error:  # asyncio cannot set it as the exception of a future
        raise RuntimeError("The embedder raised StopIteration: use another exception") from error
