"""Namespaces: the verbs on all records of a namespace, in a store and in a transaction."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any

from memstore.api.assemblies import Assemblies
from memstore.api.embedding import embed_items
from memstore.api.handle import Handle
from memstore.api.memories import Memories
from memstore.api.tags import Tags
from memstore.errors import DuplicateError, EmbedderError, InvalidError, LoadError, MemstoreError
from memstore.forgetting.clear import clear, erase_namespace
from memstore.history import undo as undoing
from memstore.models.history import Change
from memstore.models.records import Namespace
from memstore.models.reports import EraseReport
from memstore.repository import namespaces
from memstore.session import Autocommit, OpenTransaction, Session, SnapshotSession
from memstore.validation.records import id_of
from memstore.validation.values import MAX_NAMESPACE_PARTS, check_count, check_namespace
from memstore.vectors.space import MAX_DIMENSION

MAX_CHUNK = 100_000
CHUNK_BYTES = 8 * 1024 * 1024
"""Vectors in a transaction of `load`: at dimension 384, transactions of 5,000 load a fifth faster than of 1,000."""


class SessionNamespace(Handle):
    """One namespace in one session: what a store and a transaction have in common."""

    def __init__(self, session: Session, namespace: Namespace) -> None:
        super().__init__(session, namespace)
        self.memories = Memories(session, namespace)
        self.assemblies = Assemblies(session, namespace)
        self.tags = Tags(session, namespace)

    async def clear(self, *, recursive: bool = False) -> int:
        """Delete everything of this namespace for good, as `erase` does. Takes the writer lock; all or nothing.

        Args:
            recursive: also in all namespaces below this one.

        Returns:
            How many records were deleted; the trash is not counted.
        """
        return await self._session.write(partial(clear, namespace=self._namespace, recursive=recursive), batch=True)

    async def erase(self, *, recursive: bool = False) -> EraseReport:
        """Erase everything of this namespace: records, trash, history, merges, tags, and the namespace's own path.

        Takes the writer lock; one transaction, all or nothing. Nothing can bring it back, and reads as of an earlier
        time no longer contain it. `Store.compact(secure=True)` then removes the last bytes from the file and its log;
        backups keep what they contain.

        Args:
            recursive: also of all namespaces below this one.

        Returns:
            What was erased; `namespaces` names the namespaces.
        """
        return await self._session.write(
            partial(erase_namespace, namespace=self._namespace, recursive=recursive), batch=True
        )

    async def undo(self, change: Change) -> Change:
        """Undo a change of a record, if nothing later depends on it. Takes the writer lock.

        An added record is removed, one that was recovered goes back to the trash, a deleted one is restored with its
        exact vector and with the memberships whose other end exists, an updated one gets its old values back.

        Args:
            change: from `history()` of a record of this namespace or of one below it.

        Returns:
            The change that undid it, which can be undone too.

        Raises:
            ConflictError: something later depends on it, and `later` has the numbers of the changes; or it was read
                from another file, or before a backup was restored into this one. Nothing was written.
            HistoryError: the file does not keep the change any more.
        """
        return await self._session.write(lambda context: undoing.undo(context, self._namespace, change))

    async def namespaces(
        self,
        prefix: Namespace = (),
        *,
        suffix: Namespace = (),
        depth: int | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Namespace]:
        """List the namespaces that contain records, at or below this one, sorted.

        Args:
            prefix: only namespaces whose parts below this namespace begin with these. The part `"*"` stands for any
                one part, here and in *suffix*.
            suffix: only namespaces whose parts below this namespace end with these.
            depth: cut longer ones to so many parts below this namespace, 1 or more, and list each once; None cuts none.
            limit: at most so many; None for all.
            offset: how many to skip first.

        Returns:
            Namespaces as in `Memory.namespace`: from the root.
        """
        check_namespace((*self._namespace, *check_namespace(prefix)))
        check_namespace((*self._namespace, *check_namespace(suffix)))
        most = None if depth is None else check_count("depth", depth, 1, MAX_NAMESPACE_PARTS)
        count = None if limit is None else check_count("limit", limit, 1, 2**62)
        start = check_count("offset", offset, 0, 2**62)
        pattern = namespaces.NamespacePattern(self._namespace, prefix, suffix, most)
        paths = await self._session.read(
            lambda connection: sorted(namespaces.matching(connection, pattern, self._session.clock()))
        )
        return paths[start : None if count is None else start + count]


class Transaction(SessionNamespace):
    """A transaction, as `async with store.transaction() as tx` opens it: all of it is stored, or nothing.

    Each verb runs in a savepoint of its own: a verb that raises changes nothing, and the transaction can go on.
    Searches see the changes of the transaction; others see them after the commit. One task at a time may use it.
    """

    def __init__(self, opened: OpenTransaction, namespace: Namespace) -> None:
        super().__init__(opened, namespace)
        self._opened = opened

    def namespace(self, *parts: str) -> "Transaction":
        """The same transaction in the namespace *parts* below this one."""
        return Transaction(self._opened, check_namespace((*self._namespace, *parts)))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["Transaction"]:
        """Open a nested transaction: if its block raises, only its changes are rolled back."""
        async with self._opened.nested():
            yield self


class Snapshot(SessionNamespace):
    """A read-only view of one state, as `async with store.snapshot() as view` opens it.

    Every verb that reads, lists or searches sees the state and the time at which the snapshot was opened, whatever is
    written meanwhile; a verb that writes raises `ReadOnlyError`. Any number of tasks may use it; their calls run one
    after the other. It does not hold up writers.
    """

    _session: SnapshotSession

    def __init__(self, session: SnapshotSession, namespace: Namespace) -> None:
        super().__init__(session, namespace)

    def namespace(self, *parts: str) -> "Snapshot":
        """The same snapshot in the namespace *parts* below this one."""
        return Snapshot(self._session, check_namespace((*self._namespace, *parts)))


class StoreNamespace(SessionNamespace):
    """One namespace of a store, as `store.namespace(...)` returns it; it has the same verbs as the store."""

    _session: Autocommit

    def __init__(self, session: Autocommit, namespace: Namespace) -> None:
        super().__init__(session, namespace)

    def namespace(self, *parts: str) -> "StoreNamespace":
        """The namespace *parts* below this one. It need not exist: the first record in it creates it."""
        return StoreNamespace(self._session, check_namespace((*self._namespace, *parts)))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Open a transaction. It is committed if the block ends, rolled back if it raises or is cancelled.

        Takes the writer lock and holds it: other writers wait, so keep the block short.

        Raises:
            BusyError: another writer held the lock for longer than the store's timeout.
            TransactionError: this task has a transaction open on this store; use `tx.transaction()`.
        """
        async with self._session.transaction() as opened:
            yield Transaction(opened, self._namespace)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Snapshot]:
        """Open a snapshot: several reads of one state of the store, which is that of now, without the writer lock.

        SQLite keeps what is written meanwhile in its log until the snapshot ends, so do not keep one for hours. At
        most 8 are open at the same time.

        Raises:
            BusyError: 8 others were open for longer than the store's timeout.
        """
        async with self._session.snapshot() as session:
            yield Snapshot(session, self._namespace)

    async def load(
        self,
        items: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]],
        *,
        chunk: int | None = None,
        upsert: bool = False,
        on_progress: Callable[[int], None] | None = None,
    ) -> int:
        """Store any number of memories, with one transaction per chunk.

        Takes the writer lock for each chunk, and does not hold it while it waits for *items*.

        Args:
            items: mappings with the argument names of `memories.add`; an iterable or an async iterable.
            chunk: memories per transaction, 1 to 100,000. None for the number that has 8 MiB of vectors, but 1,000 to
                5,000. Larger chunks are faster, and hold up other writers longer.
            upsert: replace memories whose ids are taken, instead of raising.
            on_progress: called after each chunk with the number of memories stored.

        Returns:
            How many memories were stored.

        Raises:
            LoadError: it stopped early. `stored` is the number of memories stored, which are the first of *items*; the
                cause is the error. If the embedder failed, everything before its failing batch is stored, and the
                vectors that were computed for later items are kept for the next call.
        """
        if chunk is None:
            dimension = self._session.spaces["memory"].dimension or MAX_DIMENSION
            chunk = max(1_000, min(5_000, CHUNK_BYTES // (4 * dimension)))
        check_count("chunk", chunk, 1, MAX_CHUNK)
        self._session.check_usable()  # before the first item is taken
        write = self.memories.upsert_many if upsert else self.memories.add_many
        stored = start = 0
        part: Sequence[Mapping[str, Any]] = ()
        try:
            async with aclosing(_chunks(items, chunk)) as parts:
                async for part in parts:
                    start = stored
                    ready, failure = await embed_items(self._session, part)
                    if ready:
                        await write(ready)
                        stored += len(ready)
                        if on_progress is not None:
                            on_progress(stored)
                    _raise_if(failure)
        except Exception as error:
            if isinstance(error, MemstoreError) and error.item is not None:
                error.of_item(start + error.item, error.item_id)
            elif isinstance(error, _ITEM_ERRORS) and len(part) == 1:
                error.of_item(start, id_of(part[0]))
            raise LoadError(
                f"The load stopped after {stored:,} memories were stored: {error}", stored=stored
            ) from error
        return stored


_ITEM_ERRORS = (InvalidError, DuplicateError, EmbedderError)
"""Errors that an item causes: of a chunk of one item, they do not say which."""


def _raise_if(error: Exception | None) -> None:
    if error is not None:
        raise error


async def _chunks(
    items: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]], size: int
) -> AsyncGenerator[list[Mapping[str, Any]], None]:
    chunk: list[Mapping[str, Any]] = []
    async with aclosing(_as_async(items)) as stream:
        async for item in stream:
            chunk.append(item)
            if len(chunk) == size:
                yield chunk
                chunk = []
    if chunk:
        yield chunk


async def _as_async(
    items: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]],
) -> AsyncGenerator[Mapping[str, Any], None]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
        return
    for i, item in enumerate(items):
        if i % 100 == 99:
            await asyncio.sleep(0)  # an iterable that computes its items blocks the event loop
        yield item
