"""The import of a folder into a store, some hundred files in each transaction.

The store decides what is valid: if it refuses the records of a transaction, they are stored one by one, and an invalid
one is left out with a remark. Records that exist are not changed, so a second run resumes an interrupted import.
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from memstore.api.namespace import StoreNamespace, Transaction
from memstore.api.store import Store
from memstore.errors import DimensionError, EmbeddingError, InvalidError, short_repr
from memstore.importers.fields import NO_VECTOR, assembly_of, members_of, memory_of, time_of, usable_id
from memstore.importers.files import FOLDERS, INDEX, Folder, IndexEntry, Source, scan_folder
from memstore.importers.report import FolderReport, Remark, Remarks
from memstore.models.records import RecordKind

CHUNK = 500
"""The most files of one transaction."""

CHUNK_BYTES = 32 * 1024 * 1024
"""The size of files at which a transaction ends."""


async def import_folder(
    store: Store,
    folder: str | os.PathLike[str],
    *,
    namespace: tuple[str, ...] = (),
    upsert: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> FolderReport:
    """Import a folder of `memory_index.json`, `memories/*.json` and `assemblies/*.json`.

    Takes the writer lock for each transaction of at most 500 files, but not while it reads files. Ids, names of
    files and the index stay in memory, the contents of the files do not. A second import of a folder stores only what
    is new in it.

    Args:
        store: an open store. Vectors of another dimension are left out.
        folder: the path of the folder, which is not changed.
        namespace: the namespace of all records.
        upsert: replace records that exist.
        on_progress: called after each transaction with the number of imported files and of all files.

    Returns:
        Counts, and a remark with a reason for every difference between the folder and the store.

    Raises:
        InvalidError: the folder does not exist or has another layout.
        MemstoreError: a write failed. The transactions before it are stored.
    """
    files = await asyncio.to_thread(scan_folder, folder)
    run = _Import(store, store.namespace(*namespace), files, upsert=upsert)
    total = sum(map(len, files.files.values()))
    done = 0
    for kind, store_chunk in (("memory", run.memories), ("assembly", run.assemblies)):
        sources = files.sources(kind)  # type: ignore[arg-type]
        while chunk := await asyncio.to_thread(_chunk, sources):
            await store_chunk(chunk)
            done += len(chunk)
            if on_progress is not None:
                on_progress(done, total)
    return run.report()


def _chunk(sources: Iterator[Source]) -> list[Source]:
    chunk: list[Source] = []
    size = 0
    for source in sources:
        chunk.append(source)
        size += source.size
        if len(chunk) == CHUNK or size >= CHUNK_BYTES:
            break
    return chunk


_COUNTS = ("memories", "assemblies", "members", "rescued", "memories_present", "assemblies_present", "unindexed")


class _MemoryDraft(NamedTuple):
    """The arguments of `memories.add`, and the remarks on their file."""

    item: dict[str, Any]
    remarks: Remarks


class _Import:
    """The state of one import."""

    def __init__(self, store: Store, place: StoreNamespace, folder: Folder, *, upsert: bool) -> None:
        self._dimension = store.dimension or 0
        self._place = place
        self._folder = folder
        self._upsert = upsert
        self._remarks = list(folder.remarks)
        self._places: dict[RecordKind, dict[str, str]] = {"memory": {}, "assembly": {}}
        self._counts = dict.fromkeys(_COUNTS, 0)

    async def memories(self, sources: list[Source]) -> None:
        """Store the valid memories of some files."""
        drafts = [draft for source in sources if (draft := self._draft(source)) is not None]
        async with self._place.transaction() as tx:
            await self._store(tx, drafts)
        for source in sources:
            self._remarks += source.remarks.entries

    def _draft(self, source: Source) -> _MemoryDraft | None:
        if source.values is None:
            self._count_unindexed(source)
            return None
        id, at = self._identify(source, "id")
        if id is None:
            return None
        try:
            item = memory_of(source.values, id, self._dimension, at, source.remarks)
            self._dimension = self._dimension or len(item["embedding"] or ())  # the first vector fixes it
        except InvalidError as error:
            source.remarks.add("left_out", "memory", str(error))
            return None
        self._places["memory"][id] = source.remarks.place
        return _MemoryDraft(item, source.remarks)

    async def _store(self, tx: Transaction, drafts: list[_MemoryDraft]) -> int:
        """Store memories, without those that exist unless they are replaced. Returns the number of them."""
        if not self._upsert:
            present = await tx.memories.get_many([draft.item["id"] for draft in drafts])
            drafts = [draft for draft in drafts if draft.item["id"] not in present]
            self._counts["memories_present"] += len(present)
        stored = await self._store_valid(tx, drafts)
        self._counts["memories"] += stored
        return stored

    async def _store_valid(self, tx: Transaction, drafts: list[_MemoryDraft]) -> int:
        store_many = tx.memories.upsert_many if self._upsert else tx.memories.add_many
        try:
            return len(await store_many([draft.item for draft in drafts]))
        except InvalidError:
            pass  # the error names one of them, and others can be invalid too: store them one by one
        stored = 0
        for item, remarks in drafts:
            try:
                try:
                    await store_many([item])
                except (EmbeddingError, DimensionError) as error:
                    await store_many([{**item, "embedding": None}])
                    remarks.add("left_out", "vector", f"{error}; {NO_VECTOR}")
                stored += 1
            except InvalidError as error:
                remarks.add("left_out", "memory", str(error))
        return stored

    async def assemblies(self, sources: list[Source]) -> None:
        """Store the assemblies of some files, each with the members that exist."""
        async with self._place.transaction() as tx:
            for source in sources:
                if source.values is None:
                    self._count_unindexed(source)
                else:
                    await self._assembly(tx, source, source.values)
                self._remarks += source.remarks.entries

    async def _assembly(self, tx: Transaction, source: Source, values: Mapping[str, Any]) -> None:
        id, at = self._identify(source, "assembly_id")
        if id is None:
            return
        item = assembly_of(values, id, at, source.remarks)
        self._places["assembly"][id] = source.remarks.place
        if not self._upsert and id in await tx.assemblies.get_many([id]):
            self._counts["assemblies_present"] += 1
            return
        item["members"] = await self._members(tx, values, source.remarks)
        try:
            (assembly,) = await (tx.assemblies.upsert_many if self._upsert else tx.assemblies.add_many)([item])
        except InvalidError as error:
            source.remarks.add("left_out", "assembly", str(error))
            return
        self._counts["assemblies"] += 1
        self._counts["members"] += assembly.member_count

    async def _members(self, tx: Transaction, values: Mapping[str, Any], remarks: Remarks) -> list[str]:
        """The members of an assembly that exist. A memory that exists only as a copy in the assembly is stored."""
        copies_by_id, invalid = members_of(values)
        for member in invalid:
            remarks.add("left_out", "member", f"expected the id of a memory, found {short_repr(member)}")
        members: list[str] = []
        ids = list(copies_by_id)
        for start in range(0, len(ids), CHUNK):
            chunk = ids[start : start + CHUNK]
            memories = await tx.memories.get_many(chunk)
            copies = {id: copy for id in chunk if (copy := copies_by_id[id]) is not None and id not in memories}
            if copies:
                await self._rescue(tx, copies, remarks)
                memories = await tx.memories.get_many(chunk)
            for id in chunk:
                if id not in memories:
                    remarks.add("left_out", "member", "the memory does not exist", id=id)
                    continue
                members.append(id)
                if id not in copies and (copies_by_id[id] or {}).get("content") not in (None, memories[id].content):
                    remarks.add("mended", "copy", "the copy has another text than the memory, and is not used", id=id)
        return members

    async def _rescue(self, tx: Transaction, copies: Mapping[str, dict[str, Any]], remarks: Remarks) -> None:
        """Store memories from the *copies* in an assembly."""
        drafts = []
        for id, copy in copies.items():
            copy_remarks = Remarks(remarks.place)
            copy_remarks.id = id
            try:
                draft = _MemoryDraft(memory_of(copy, id, self._dimension, None, copy_remarks), copy_remarks)
            except InvalidError:
                continue  # not a copy, but a reference with some fields; the member gets a remark
            copy_remarks.add("mended", "memory", "no file has this memory: it is stored from the copy in the assembly")
            drafts.append(draft)
        self._counts["rescued"] += await self._store(tx, drafts)
        for draft in drafts:
            self._remarks += draft.remarks.entries

    def _identify(self, source: Source, key: str) -> tuple[str | None, datetime | None]:
        """The id of the record of a file, unless another file has it, and its time in the index."""
        entries = self._count_unindexed(source)
        value = (source.values or {}).get(key)
        id = usable_id(value)
        if id is None:
            id = next((id for entry in entries if (id := usable_id(entry.id)) is not None), None)
            id = id or usable_id(source.name.rpartition(".")[0])
            if id is None:
                source.remarks.add("left_out", source.kind, f"Invalid {key}: expected an id, found {short_repr(value)}")
                return None, None
            source.remarks.id = id
            origin = "index" if entries else "file name"
            source.remarks.add(
                "mended", "field", f"{key}: expected an id, found {short_repr(value)}. The id of the {origin} is used"
            )
        source.remarks.id = id
        other = self._places[source.kind].get(id)
        if other is not None:
            source.remarks.add("left_out", source.kind, f"{other} has the same id and comes first")
            return None, None
        return id, next((time_of(entry.timestamp) for entry in entries if entry.id == id), None)

    def _count_unindexed(self, source: Source) -> list[IndexEntry]:
        entries = self._folder.entries(source.kind, source.name)
        self._counts["unindexed"] += not entries
        return entries

    def report(self) -> FolderReport:
        """The report, with remarks on the entries of the index without a record."""
        names = {kind: set(files) for kind, files in self._folder.files.items()}
        stored_places = {place for places in self._places.values() for place in places.values()}
        for (kind, name), entries in self._folder.index.items():
            file = f"{FOLDERS[kind]}/{name}"
            for entry in entries:
                if entry.id in self._places[kind]:
                    continue
                if name not in names[kind]:
                    self._missing(entry.id, f"the file {file} does not exist")
                elif file in stored_places or len(entries) > 1:  # else the remark on the file is enough
                    self._missing(entry.id, f"the file {file} does not contain this record")
        return FolderReport(
            memory_files=len(names["memory"]),
            assembly_files=len(names["assembly"]),
            remarks=tuple(self._remarks),
            **self._counts,
        )

    def _missing(self, id: str, reason: str) -> None:
        self._remarks.append(Remark(outcome="left_out", what="index entry", place=INDEX, id=id, reason=reason))
