"""Tools for tests of applications: a temporary store, an embedder without a model, and damage of an index.

The store is a real one in a real file.
"""

import hashlib
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from memstore.api.open import open
from memstore.api.store import Store
from memstore.errors import InvalidError, short_repr
from memstore.index.hybrid import HybridIndex
from memstore.index.protocol import NEVER, IndexEntries
from memstore.models.records import RecordKind
from memstore.repository import records
from memstore.repository.record_types import BY_KIND
from memstore.timestamps import now

Damage = Literal["missing", "ghost", "stale", "swapped", "wrong_dimension"]


class HashEmbedder:
    """A deterministic embedder without a model: texts that share words have similar vectors.

    The vector of a word is drawn at random from its hash and *seed*, that of a text is the normalised sum of its words.
    Both are the same on every machine.
    """

    def __init__(self, dimension: int = 64, *, seed: int = 0) -> None:
        self.name = f"hash-{dimension}-{seed}"
        self.dimension = dimension
        self._seed = seed

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """One vector for each text, float32, shape (len(texts), dimension), of length 1."""
        return np.stack([self._one(text) for text in texts])

    def _one(self, text: str) -> npt.NDArray[np.float32]:
        words = text.lower().split() or [""]
        total = np.sum([self._word(word) for word in words], axis=0)
        vector: npt.NDArray[np.float32] = (total / np.linalg.norm(total)).astype(np.float32)
        return vector

    def _word(self, word: str) -> npt.NDArray[np.float64]:
        digest = hashlib.blake2b(f"{self._seed}:{word}".encode(), digest_size=8).digest()
        return np.random.default_rng(int.from_bytes(digest)).standard_normal(self.dimension)


@asynccontextmanager
async def temporary_store(**options: Any) -> AsyncIterator[Store]:
    """A store in a temporary folder, deleted at the end of the block; *options* as of `memstore.open`.

    Without `dimension` and `embedder` it uses a `HashEmbedder`.
    """
    if "embedder" not in options and "dimension" not in options:
        options["embedder"] = HashEmbedder()
    with tempfile.TemporaryDirectory(prefix="memstore-") as folder:
        async with open(Path(folder) / "store.db", **options) as store:
            yield store


async def damage(
    store: Store, kind: Damage, ids: Iterable[str] = (), *, record_kind: RecordKind = "memory"
) -> list[str]:
    """Damage the index in memory, to test `check` and `repair`. The file is not changed.

    Args:
        store: an open store.
        kind: `missing` removes the entries of *ids*; `stale` gives them another vector; `swapped` gives each of two or
            more ids the vector of the next one; `ghost` adds an entry without a record; `wrong_dimension` gives the
            whole index vectors of another dimension.
        ids: records of the root namespace; not used by `ghost` and `wrong_dimension`.
        record_kind: the index of memories, or of assemblies.

    Returns:
        The ids that `check` reports; for a ghost, its key.
    """
    session, follower = store._session, store._follower  # noqa: SLF001 - no public function damages an index
    await session.search(lambda connection, view: None)  # noqa: ARG005 - loads the index
    record_ids = list(dict.fromkeys(ids))
    table = BY_KIND[record_kind]
    key_by_id = await session.read(lambda c: records.keys_of(c, table, (), record_ids, now()))
    if (
        len(key_by_id) < len(record_ids)
        or (kind in ("missing", "stale") and not record_ids)
        or (kind == "swapped" and len(record_ids) < 2)
    ):
        raise InvalidError(
            f"Invalid ids for damage {kind!r}: expected ids of existing records ({record_kind}), "
            f"two or more for 'swapped', found {short_repr(record_ids)}"
        )
    with follower.indexes.lock.exclusive():
        index = follower.indexes.by_kind[record_kind]
        keys = np.array([key_by_id[id] for id in record_ids], dtype=np.int64)
        entries = index.table.entries_at(index.table.find(keys))
        if kind == "missing":
            index.remove(keys)
        elif kind == "stale":
            index.put(entries._replace(rows=-entries.rows + 1))
        elif kind == "swapped":
            index.put(entries._replace(rows=np.roll(entries.rows, 1, axis=0)))
        elif kind == "ghost":
            present = index.table.entries().keys
            ghost = present.max(keepdims=True) + 7 if len(present) else np.array([2**40], dtype=np.int64)
            dimension = index.table.rows.shape[1]
            row = np.full((1, dimension), 1 / np.sqrt(dimension), dtype=np.float32)
            index.put(IndexEntries(ghost, np.ones(1, dtype=np.int64), np.array([NEVER]), row))
            return [f"key {int(ghost[0])}"]
        else:
            wider = np.pad(index.table.entries().rows, ((0, 0), (0, 1)))
            other = HybridIndex(wider.shape[1], follower.indexes.spaces[record_kind].measure)
            other.put(index.table.entries()._replace(rows=wider))
            follower.indexes.by_kind[record_kind] = other
    return sorted(await _all_ids(store, record_kind)) if kind == "wrong_dimension" else record_ids


async def _all_ids(store: Store, record_kind: RecordKind) -> list[str]:
    if record_kind == "memory":
        return [memory.id async for memory in store.memories.list(recursive=True) if memory.embedding is not None]
    return [assembly.id async for assembly in store.assemblies.list(recursive=True) if assembly.composite is not None]
