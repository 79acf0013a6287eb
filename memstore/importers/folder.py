"""The import itself: files in, records out, some hundred files a transaction.

The store says what can be stored: a transaction that it refuses is done again record by record, and what is refused
then is left out by name. A record that the store has already stays as it is, so an import that was stopped is resumed
by running it again.
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
from memstore.importers.files import FOLDERS, INDEX, Folder, Named, Source, look_through
from memstore.importers.report import FolderReport, Remark, Remarks
from memstore.models.records import RecordKind

CHUNK = 500
"""Files a transaction, at most."""

CHUNK_BYTES = 32 * 1024 * 1024
"""Of files, from which on a transaction takes in no more."""


async def import_folder(
    store: Store,
    folder: str | os.PathLike[str],
    *,
    namespace: tuple[str, ...] = (),
    upsert: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> FolderReport:
    """Store what a folder of `memory_index.json`, `memories/*.json` and `assemblies/*.json` holds.

    Takes the writer lock for each transaction of at most 500 files, and not while files are read. Ids and names of
    files stay in memory, and the index; what the files hold does not. Importing a folder again stores what is new in
    it, and changes nothing else.

    Args:
        store: an open store; vectors of another dimension than its are left out.
        folder: the folder. It is only read.
        namespace: where everything goes.
        upsert: replace the records that the store has already, instead of leaving them as they are.
        on_progress: called after each transaction with how many files are done, and how many there are.

    Returns:
        Counts, and everything that is not in the store as it was in the folder, with the reason.

    Raises:
        InvalidError: there is no such folder.
        MemstoreError: the store cannot be written. What was stored before is stored.
    """
    found = await asyncio.to_thread(look_through, folder)
    work = _Import(store, store.namespace(*namespace), found, upsert=upsert)
    total = sum(map(len, found.files.values()))
    done = 0
    for kind, keep in (("memory", work.memories), ("assembly", work.assemblies)):
        sources = found.sources(kind)  # type: ignore[arg-type]
        while chunk := await asyncio.to_thread(_chunk, sources):
            await keep(chunk)
            done += len(chunk)
            if on_progress is not None:
                on_progress(done, total)
    return work.report()


def _chunk(sources: Iterator[Source]) -> list[Source]:
    chunk: list[Source] = []
    size = 0
    for source in sources:
        chunk.append(source)
        size += source.size
        if len(chunk) == CHUNK or size >= CHUNK_BYTES:
            break
    return chunk


class _Drafted(NamedTuple):
    """A memory that could be stored, and where to say what became of it."""

    item: dict[str, Any]
    remarks: Remarks


class _Import:
    """What is to be done, and what was done so far."""

    def __init__(self, store: Store, place: StoreNamespace, folder: Folder, *, upsert: bool) -> None:
        self._dimension = store.dimension
        self._place = place
        self._folder = folder
        self._upsert = upsert
        self._remarks = list(folder.remarks)
        self._claimed: dict[RecordKind, dict[str, str]] = {"memory": {}, "assembly": {}}
        self._counts = dict.fromkeys(
            (
                "memories",
                "assemblies",
                "members",
                "rescued",
                "memories_present",
                "assemblies_present",
                "unindexed",
            ),
            0,
        )

    async def memories(self, sources: list[Source]) -> None:
        """Store the memories of some files, all that can be."""
        drafted = [draft for source in sources if (draft := self._drafted(source)) is not None]
        async with self._place.transaction() as tx:
            await self._store(tx, drafted)
        for source in sources:
            self._remarks += source.remarks.made

    def _drafted(self, source: Source) -> _Drafted | None:
        if source.values is None:
            self._count_unindexed(source)
            return None
        id, at = self._identified(source, "id")
        if id is None:
            return None
        try:
            item = memory_of(source.values, id, self._dimension, at, source.remarks)
        except InvalidError as error:
            source.remarks.add("left_out", "memory", str(error))
            return None
        self._claimed["memory"][id] = source.remarks.place
        return _Drafted(item, source.remarks)

    async def _store(self, tx: Transaction, drafted: list[_Drafted]) -> int:
        """Store memories, those that the store has already left as they are; how many."""
        wanted = drafted
        if not self._upsert:
            there = await tx.memories.get_many([draft.item["id"] for draft in drafted])
            wanted = [draft for draft in drafted if draft.item["id"] not in there]
            self._counts["memories_present"] += len(there)
        stored = await self._stored(tx, wanted)
        self._counts["memories"] += stored
        return stored

    async def _stored(self, tx: Transaction, drafted: list[_Drafted]) -> int:
        keep = tx.memories.upsert_many if self._upsert else tx.memories.add_many
        try:
            return len(await keep([draft.item for draft in drafted]))
        except InvalidError:
            pass  # one by one, below: the error is of one of them, and there may be others
        stored = 0
        for item, remarks in drafted:
            try:
                try:
                    await keep([item])
                except (EmbeddingError, DimensionError) as error:
                    await keep([{**item, "embedding": None}])
                    remarks.add("left_out", "vector", f"{error}; {NO_VECTOR}")
                stored += 1
            except InvalidError as error:
                remarks.add("left_out", "memory", str(error))
        return stored

    async def assemblies(self, sources: list[Source]) -> None:
        """Store the assemblies of some files, each with the members that there are."""
        async with self._place.transaction() as tx:
            for source in sources:
                if source.values is None:
                    self._count_unindexed(source)
                else:
                    await self._assembly(tx, source, source.values)
                self._remarks += source.remarks.made

    async def _assembly(self, tx: Transaction, source: Source, values: Mapping[str, Any]) -> None:
        id, at = self._identified(source, "assembly_id")
        if id is None:
            return
        item = assembly_of(values, id, at, source.remarks)
        self._claimed["assembly"][id] = source.remarks.place
        if not self._upsert and id in await tx.assemblies.get_many([id]):
            self._counts["assemblies_present"] += 1
            return
        item["members"] = await self._members(tx, values, source.remarks)
        try:
            made = await (tx.assemblies.upsert_many if self._upsert else tx.assemblies.add_many)([item])
        except InvalidError as error:
            source.remarks.add("left_out", "assembly", str(error))
            return
        self._counts["assemblies"] += 1
        self._counts["members"] += made[0].member_count

    async def _members(self, tx: Transaction, values: Mapping[str, Any], remarks: Remarks) -> list[str]:
        """Those that an assembly names and that exist; a memory of which there is only its copy is made of that."""
        named, refused = members_of(values)
        for member in refused:
            remarks.add("left_out", "member", f"{short_repr(member)} names no memory")
        found: list[str] = []
        ids = list(named)
        for start in range(0, len(ids), CHUNK):
            some = ids[start : start + CHUNK]
            there = await tx.memories.get_many(some)
            copies = {id: copy for id in some if (copy := named[id]) is not None and id not in there}
            if copies:
                await self._rescue(tx, copies, remarks)
                there = await tx.memories.get_many(some)
            for id in some:
                if id not in there:
                    remarks.add("left_out", "member", "there is no such memory", id=id)
                    continue
                found.append(id)
                if id not in copies and (named[id] or {}).get("content") not in (None, there[id].content):
                    remarks.add("mended", "copy", "this copy has another text than the memory, which counts", id=id)
        return found

    async def _rescue(self, tx: Transaction, copies: Mapping[str, dict[str, Any]], remarks: Remarks) -> None:
        drafted = []
        for id, copy in copies.items():
            own = Remarks(remarks.place)
            own.id = id
            try:
                drafted.append(_Drafted(memory_of(copy, id, self._dimension, None, own), own))
            except InvalidError:
                continue  # a reference with some fields, not a copy; the member is left out by name
            own.add("mended", "memory", "no file gave this memory: it is made of the copy in the assembly")
        self._counts["rescued"] += await self._store(tx, drafted)
        for draft in drafted:
            self._remarks += draft.remarks.made

    def _identified(self, source: Source, key: str) -> tuple[str | None, datetime | None]:
        """The id of what a file holds, if no other file has it, and the time that the index gives it."""
        named = self._count_unindexed(source)
        said = (source.values or {}).get(key)
        id = usable_id(said)
        if id is None:
            id = next((id for entry in named if (id := usable_id(entry.id)) is not None), None)
            id = id or usable_id(source.name.rpartition(".")[0])
            if id is None:
                source.remarks.add("left_out", source.kind, f"its {key} is {short_repr(said)}, which can be no id")
                return None, None
            source.remarks.id = id
            whose = "the index gives it" if named else "its name is"
            source.remarks.add(
                "mended", "field", f"its {key} is {short_repr(said)}: it is stored by the one that {whose}"
            )
        source.remarks.id = id
        other = self._claimed[source.kind].get(id)
        if other is not None:
            source.remarks.add("left_out", source.kind, f"{other} has this id too, and comes first")
            return None, None
        return id, next((time_of(entry.timestamp) for entry in named if entry.id == id), None)

    def _count_unindexed(self, source: Source) -> list[Named]:
        named = self._folder.indexed(source.kind, source.name)
        self._counts["unindexed"] += not named
        return named

    def report(self) -> FolderReport:
        """What was done, with what the index names and nothing holds."""
        names = {kind: set(files) for kind, files in self._folder.files.items()}
        taken = {place for places in self._claimed.values() for place in places.values()}
        for (kind, name), entries in self._folder.named.items():
            file = f"{FOLDERS[kind]}/{name}"
            for entry in entries:
                if entry.id in self._claimed[kind]:
                    continue
                if name not in names[kind]:
                    self._unheld(entry.id, f"it names {file}, which does not exist")
                elif file in taken or len(entries) > 1:  # else what is said of the file says it all
                    self._unheld(entry.id, f"it names {file}, which does not hold it")
        return FolderReport(
            memory_files=len(names["memory"]),
            assembly_files=len(names["assembly"]),
            remarks=tuple(self._remarks),
            **self._counts,
        )

    def _unheld(self, id: str, reason: str) -> None:
        self._remarks.append(Remark(outcome="left_out", what="index entry", place=INDEX, id=id, reason=reason))
