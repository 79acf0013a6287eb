"""The protocol of embedders, and the calls of one by a store.

An embedder is any object with a `name` and an `embed`, which is a function or a coroutine function. Texts are passed in
batches. Its exceptions are raised to the caller unchanged, and nothing is stored.
"""

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, SupportsFloat, TypeVar, cast, runtime_checkable

import numpy as np
import numpy.typing as npt

from memstore.concurrency import call_later, in_thread, resolve, running_loop
from memstore.config import check_dimension
from memstore.embedders.threads import EmbedderThreads, EmbedderTimeoutError
from memstore.errors import (
    ClosedError,
    DimensionError,
    EmbedderError,
    EmbeddingError,
    InvalidError,
    short_repr,
)
from memstore.models.records import Embedding
from memstore.vectors.encoding import as_embedding
from memstore.vectors.space import Space

T = TypeVar("T")

Embedded = Sequence[Sequence[SupportsFloat]] | Sequence[npt.NDArray[Any]] | npt.NDArray[Any]
"""One vector for each text: a list of lists or of arrays, or an array of shape (texts, dimension)."""

BATCH = 256
"""The most texts in one call of an embedder."""

CONCURRENCY = 4
"""Calls of an embedder with a coroutine function at once, unless it has an attribute `concurrency`."""

TEXTS_PER_TIMEOUT = 64
"""A call may take the store's timeout, and as long again for each further number of texts."""

MAX_UNUSED = 10_000
"""Vectors of a call that failed which are kept for the next one."""


@runtime_checkable
class Embedder(Protocol):
    """The interface of an embedder.

    Optional attributes:

    * `dimension`: the dimension of its vectors. Without it the first vector tells.
    * `concurrency`: how many calls may run at once. By default 4 if `embed` is a coroutine function, else 1; but a
      plain call that takes longer than 5 seconds, or half of the store's timeout, no longer keeps the next one waiting.
      Set it to 1 for an `embed` that is slow and not thread-safe: the next call then waits up to the timeout.

    A call may take the store's `timeout`, and as long again for each 64 further texts.

    Attributes:
        name: stored in the file with the first vector. A file opens only with an embedder of the same name.
    """

    @property
    def name(self) -> str:
        """See the class."""
        ...

    def embed(self, texts: list[str], /) -> Embedded | Awaitable[Embedded]:
        """One vector for each text, in order: shape (len(texts), dimension)."""
        ...


class BoundEmbedder:
    """Calls an embedder in batches and checks its vectors.

    Args:
        embedder: an object as `Embedder` describes it.
        timeout: seconds that a call with few texts may take; at least one second is allowed.

    Attributes:
        name: its name.
        dimension: the dimension of its vectors; None if it does not say.
    """

    def __init__(self, embedder: Embedder, timeout: float) -> None:
        name = getattr(embedder, "name", None)
        if not isinstance(name, str) or not name or not callable(getattr(embedder, "embed", None)):
            raise InvalidError(
                "Invalid embedder: expected a name (text) and a method embed(texts). See memstore.Embedder"
            )
        self.name = str.__str__(name)
        dimension = getattr(embedder, "dimension", None)
        self.dimension = None if dimension is None else check_dimension(dimension)
        self._embedder = embedder
        self._timeout = max(1.0, timeout)  # a store that waits for no other writer still needs its embedder
        self._is_async = inspect.iscoroutinefunction(embedder.embed)
        concurrency = getattr(embedder, "concurrency", None)
        default = CONCURRENCY if self._is_async else 1
        self._concurrency = default if concurrency is None else _check_concurrency(concurrency)
        self._slots = asyncio.Semaphore(self._concurrency)
        self._threads = EmbedderThreads(self._concurrency, is_strict=concurrency is not None)
        self._unused: dict[str, Embedding] = {}
        self._closed = False

    async def embed(self, texts: Sequence[str], space: Space) -> list[Embedding]:
        """The vectors of *texts*, each checked.

        Raises:
            EmbedderError: the number of vectors differs from the number of texts, or a vector is invalid: of another
                dimension, not finite, or not in *space* (zero under an angular metric, outside the ball of a
                hyperbolic one). Also a TimeoutError if a call took too long.
        """
        vectors, error = await self.embed_first(texts, space)
        if error is not None:
            self.keep(texts[: len(vectors)], vectors)
            raise error
        return vectors

    async def embed_first(self, texts: Sequence[str], space: Space) -> tuple[list[Embedding], Exception | None]:
        """The vectors of *texts* up to the first batch that failed, and its error; None if none failed.

        Batches run at the same time. The vectors of batches after the one that failed are kept for the next call.
        """
        batches = [list(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
        if len(batches) == 1:
            try:
                return await self._batch(batches[0], space), None
            except Exception as error:  # noqa: BLE001 - the caller raises it
                return [], error
        results: list[list[Embedding] | Exception | None] = [None] * len(batches)
        places = iter(range(len(batches)))

        async def work() -> None:
            for i in places:
                try:
                    results[i] = await self._batch(batches[i], space)
                except Exception as error:  # noqa: BLE001 - the caller raises it
                    if isinstance(error, EmbedderError) and error.item is not None:
                        error.of_item(i * BATCH + error.item)
                    results[i] = error
                    for _ in places:  # no further batch is begun
                        pass

        workers = [asyncio.ensure_future(work()) for _ in range(min(self._concurrency, len(batches)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
        return self._split(batches, results)

    def _split(
        self, batches: Sequence[list[str]], results: Sequence[list[Embedding] | Exception | None]
    ) -> tuple[list[Embedding], Exception | None]:
        vectors: list[Embedding] = []
        failure: Exception | None = None
        for batch, result in zip(batches, results, strict=True):
            if isinstance(result, Exception):
                failure = failure or result
            elif result is not None and failure is not None:
                self.keep(batch, result)
            elif result is not None:
                vectors += result
        return vectors, failure

    def keep(self, texts: Sequence[str], vectors: Sequence[Embedding]) -> None:
        """Keep *vectors* that were computed for nothing, because the call is likely to be repeated."""
        for text, vector in zip(texts, vectors, strict=True):
            if len(self._unused) < MAX_UNUSED:
                self._unused[text] = vector

    async def _batch(self, texts: list[str], space: Space) -> list[Embedding]:
        """The vectors of at most `BATCH` *texts*."""
        if not self._unused:
            return await self._call(texts, space)
        vectors = {text: vector for text in texts if (vector := self._unused.pop(text, None)) is not None}
        missing = list(dict.fromkeys(text for text in texts if text not in vectors))
        try:
            computed = await self._call(missing, space) if missing else ()
        except BaseException:
            self._unused.update(vectors)
            raise
        vectors.update(zip(missing, computed, strict=True))
        return [vectors[text] for text in texts]

    async def _call(self, texts: list[str], space: Space) -> list[Embedding]:
        timeout = self._timeout * math.ceil(len(texts) / TEXTS_PER_TIMEOUT)

        def error() -> EmbedderTimeoutError:
            return EmbedderTimeoutError(
                f"Embedder {self.name!r} did not return in {timeout:g} s for {len(texts):,} texts: raise `timeout`, or "
                "pass embedding="
            )

        def call() -> Any:
            vectors = self._embedder.embed(texts)
            return vectors if inspect.isawaitable(vectors) else self._check_all(vectors, texts, space)

        result = texts if self._is_async else await self._threads.run(call, timeout, error)
        if not self._is_async and not inspect.isawaitable(result):
            return cast("list[Embedding]", result)
        async with self._slots:
            if self._closed:
                raise ClosedError("The store is closed: open it again")
            coroutine = self._embedder.embed(texts) if self._is_async else result
            vectors = await _within(cast("Awaitable[Embedded]", coroutine), timeout, error)
        return await in_thread(lambda: self._check_all(vectors, texts, space))

    def _check_all(self, vectors: object, texts: list[str], space: Space) -> list[Embedding]:
        rows = _as_rows(vectors)
        if rows is None or len(rows) != len(texts):
            result = type(vectors).__name__ if rows is None else len(rows)
            raise EmbedderError(
                f"Invalid result of embedder {self.name!r}: expected {len(texts)} vectors, found {result}"
            )
        checked: list[Embedding] = []
        for i, vector in enumerate(rows):
            dimension = space.dimension or self.dimension or (len(checked[0]) if checked else 0)
            try:
                checked.append(as_embedding(vector, dimension, allow_zero=space.allow_zero, max_norm=space.max_norm))
            except (EmbeddingError, DimensionError) as error:
                wrong = EmbedderError(
                    f"Invalid vector of embedder {self.name!r} ({error}). Pass another embedding for this text, or "
                    "embedding=None to store it without one"
                )
                raise wrong.of_item(i) if len(texts) > 1 else wrong from None
        return checked

    def close(self) -> None:
        """End the threads after their current calls. Calls that wait raise `ClosedError`."""
        self._closed = True
        self._threads.close()
        self._unused.clear()


def _as_rows(vectors: object) -> Sequence[object] | npt.NDArray[Any] | None:
    """*vectors* as rows; None if they are none. Tensors and frames have rows, and are no sequences."""
    if isinstance(vectors, str | bytes | dict):
        return None
    if isinstance(vectors, Sequence | np.ndarray):
        return vectors
    if hasattr(vectors, "__array__"):
        try:
            array = np.asarray(vectors)
        except Exception:  # noqa: BLE001 - a tensor that NumPy cannot read; the error names its type
            return None
        return array if array.ndim else None
    return None


async def _within(awaitable: Awaitable[T], timeout: float, error: Callable[[], EmbedderTimeoutError]) -> T:
    """The result of *awaitable*; raises *error()* after *timeout* seconds, even if it refuses to be cancelled."""
    task = asyncio.ensure_future(awaitable)
    ended: asyncio.Future[None] = running_loop().create_future()
    task.add_done_callback(lambda _: resolve(ended, None, None))
    timer = call_later(timeout, lambda: resolve(ended, None, error()))
    try:
        await ended
        return task.result()
    finally:
        timer.cancel()
        if not task.done():
            task.add_done_callback(_retrieve)
            task.cancel()


def _retrieve(task: "asyncio.Future[Any]") -> None:
    """Mark the error of an abandoned *task* as retrieved, so that asyncio does not log it."""
    if not task.cancelled():
        task.exception()


def _check_concurrency(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 64:
        raise InvalidError(
            f"Invalid concurrency of the embedder: expected a whole number from 1 to 64, found {short_repr(value)}"
        )
    return value
