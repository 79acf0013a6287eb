"""The commands that bring records in and out: import and export."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from memstore import (
    DuplicateError,
    EmbedderError,
    InvalidError,
    LoadError,
    MemstoreError,
    NotFoundError,
    Store,
    StoreNamespace,
    Transaction,
)
from memstore.cli.jsonl import Item, assembly_line, header, memory_line
from memstore.cli.options import (
    AsJson,
    Curvature,
    Dimension,
    Embedder,
    File,
    GiveTags,
    InNamespace,
    Metric,
    Namespace,
    namespace_of,
)
from memstore.cli.output import json_line, number, progress, say, say_json
from memstore.cli.sources import STDIN, Format, Reading
from memstore.cli.stores import Opened, Wanted, looking, writing
from memstore.database.sqlite import sqlite3

CHUNK = 500
"""Records a transaction, at most."""

MEMBERS = 20_000
"""Members of assemblies from which on a transaction takes in no more."""


def import_(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE", help="Files; - is stdin, as JSON Lines.", show_default=False)
    ],
    file: File,
    format: Annotated[
        Format | None, typer.Option("--format", help="What they are; by their names if left out.")
    ] = None,
    tag: GiveTags = None,
    upsert: Annotated[
        bool, typer.Option("--upsert", help="Replace what has the same id, instead of stopping.")
    ] = False,
    namespace: InNamespace = "",
    embedder: Embedder = None,
    dimension: Dimension = None,
    metric: Metric = None,
    curvature: Curvature = None,
    json: AsJson = False,
) -> None:
    """Import JSON Lines (.jsonl, .ndjson), Markdown (.md) or text (.txt) files; a store that does not exist is made.

    A line of JSON is a memory, {"content": …} with any other field of one, or what export wrote, which comes back
    with every field. Markdown and text are cut into passages; their ids are the file's name with a number. Everything
    goes below --namespace. It commits every 500 records, so what was stored before an error stays. --json prints
    one object with the counts.
    """
    reading = Reading(sources, format)
    wanted = Wanted(embedder=embedder, dimension=dimension, metric=metric, curvature=curvature)
    path = namespace_of(namespace)
    with closing(_Import(path, frozenset(tag or ()), upsert=upsert)) as work:
        counts = asyncio.run(_import(reading, file, wanted, work))
    if json:
        say_json(counts)
        return
    say(
        f"imported {number(counts['memories'], 'memory', 'memories')} "
        f"and {number(counts['assemblies'], 'assembly', 'assemblies')} into {file}"
    )
    if counts["without_embedding"]:
        say(f"{number(counts['without_embedding'], 'memory has', 'memories have')} no embedding: no search finds them")
    if counts["expired"]:
        say(f"{number(counts['expired'], 'memory that had', 'memories that had')} expired were left out")


class _Import:
    """What is to be done with the items, and what was done so far."""

    def __init__(self, recursive: Namespace, tags: frozenset[str], *, upsert: bool) -> None:
        self._below = recursive
        self._tags = tags
        self._upsert = upsert
        self._mortal = _Mortal()
        self._chunk: list[Item] = []  # what the transaction that comes next, or has failed, is made of
        self.counts = {"memories": 0, "assemblies": 0, "without_embedding": 0, "expired": 0}

    async def memories(
        self, opened: Opened, namespace: Namespace, items: Iterable[Item], done: Callable[[], None]
    ) -> None:
        """Store memories of one namespace, chunk by chunk."""
        before = self.counts["memories"]

        def on_progress(stored: int) -> None:
            self.counts["memories"] = before + stored
            self._chunk.clear()
            done()

        place = opened.store.namespace(*self._below, *namespace)
        await place.load(self._fields(opened, items), chunk=CHUNK, upsert=self._upsert, on_progress=on_progress)

    def _fields(self, opened: Opened, items: Iterable[Item]) -> Iterator[dict[str, Any]]:
        for item in items:
            fields, expires = item.fields, item.fields.get("expires_at")
            if isinstance(expires, datetime) and expires.tzinfo is not None:
                self._mortal.add(item.namespace, str(fields.get("id")))
                if expires <= datetime.now(UTC):
                    self.counts["expired"] += 1
                    continue
            if "embedding" not in fields and opened.refusal is not None:
                raise EmbedderError(f"{item.place}: {opened.refusal}")
            self.counts["without_embedding"] += fields.get("embedding", "") is None
            self._chunk.append(replace(item, fields=self._tagged(fields)))
            yield self._chunk[-1].fields

    async def assemblies(self, opened: Opened, namespace: Namespace, items: Iterable[Item]) -> None:
        """Store assemblies of one namespace, all of a chunk or none; members that have expired since are left out."""
        place = opened.store.namespace(*self._below, *namespace)
        members = 0
        for item in items:
            fields = self._tagged(item.fields)
            given = fields.get("members") or ()
            gone = await self._expired(place, item.namespace, _texts(given))
            if gone:
                fields["members"] = [member for member in given if not (isinstance(member, str) and member in gone)]
            self._chunk.append(replace(item, fields=fields))
            members += len(given) if isinstance(given, list) else 0
            if len(self._chunk) == CHUNK or members >= MEMBERS:
                await self._store_assemblies(place)
                members = 0
        await self._store_assemblies(place)

    async def _store_assemblies(self, place: StoreNamespace) -> None:
        store = place.assemblies.upsert_many if self._upsert else place.assemblies.add_many
        self.counts["assemblies"] += len(await store([item.fields for item in self._chunk]))
        self._chunk.clear()

    async def _expired(self, place: StoreNamespace, namespace: Namespace, members: list[str]) -> set[str]:
        """Those of *members* that were to be imported, and are not there because their time has come."""
        gone: set[str] = set()
        mortal = self._mortal.among(namespace, members)
        while some := list(islice(mortal, CHUNK)):
            gone.update(set(some) - (await place.memories.get_many(some)).keys())
        return gone

    async def culprit(self, store: Store) -> tuple[str, MemstoreError] | None:
        """The record that keeps the last chunk from being stored: where it is, and why; None where each could be.

        They are stored one by one, and none of it is kept.
        """
        found = None
        with suppress(_NothingKeptError):
            async with store.transaction() as tx:
                found = await self._refused(tx)
                raise _NothingKeptError
        return found

    async def _refused(self, tx: Transaction) -> tuple[str, MemstoreError] | None:
        for item in self._chunk:
            face = tx.namespace(*self._below, *item.namespace)
            noun = face.memories if item.kind == "memory" else face.assemblies
            try:
                await (noun.upsert_many if self._upsert else noun.add_many)([item.fields])
            except MemstoreError as error:
                return item.place, error
        return None

    def close(self) -> None:
        """Forget what was kept on disk."""
        self._mortal.close()

    def _tagged(self, fields: dict[str, Any]) -> dict[str, Any]:
        given = fields.get("tags")
        if not self._tags or (given and _texts(given) != given):  # what is no list of texts is the store's to refuse
            return dict(fields)
        return {**fields, "tags": self._tags.union(given or ())}


def _texts(value: object) -> list[str]:
    """The texts in a list; nothing where it is none."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


_OF_A_RECORD = (InvalidError, DuplicateError, NotFoundError, EmbedderError)


class _NothingKeptError(Exception):
    """Ends a transaction without its changes."""


class _Mortal:
    """The memories of an import that may expire before an assembly is made of them: on disk, be they ever so many."""

    def __init__(self) -> None:
        self._base = sqlite3.connect("", isolation_level=None)
        self._base.execute("CREATE TABLE mortal (place TEXT PRIMARY KEY) WITHOUT ROWID")

    def add(self, namespace: Namespace, id: str) -> None:
        self._base.execute("INSERT OR IGNORE INTO mortal VALUES (?)", (_key(namespace, id),))

    def among(self, namespace: Namespace, ids: Iterable[str]) -> Iterator[str]:
        """Those of *ids* that may."""
        find = "SELECT 1 FROM mortal WHERE place = ?"
        return (id for id in ids if self._base.execute(find, (_key(namespace, id),)).fetchone())

    def close(self) -> None:
        self._base.close()


def _key(namespace: Namespace, id: object) -> str:
    return json.dumps([*namespace, id])  # ASCII: an id that is no UTF-8 is for the store to refuse


async def _import(reading: Reading, file: Path, wanted: Wanted, work: _Import) -> dict[str, int]:
    items = iter(reading)
    first = next(items, None)
    if first is None:
        raise InvalidError("there is nothing in there to import")
    async with writing(file, _settled(wanted, first), like=first.fields if first.kind == "store" else None) as opened:
        with progress() as bar:
            task = bar.add_task("importing", total=reading.total)
            try:
                await _store(opened, chain([first], items), work, lambda: bar.update(task, completed=reading.done))
            except MemstoreError as error:
                cause = error.__cause__ if isinstance(error, LoadError) else error
                culprit = await work.culprit(opened.store) if isinstance(cause, _OF_A_RECORD) else None
                cause = culprit[1] if culprit else cause or error
                raise _stopped(cause, culprit[0] if culprit else reading.place, work.counts) from cause
    return work.counts


def _settled(wanted: Wanted, first: Item) -> Wanted:
    """What to make a new file like: where nobody said it, like the first record's own embedding."""
    embedding = first.fields.get("embedding") if first.kind == "memory" else None
    return replace(wanted, given=len(embedding)) if isinstance(embedding, list) else wanted


async def _store(opened: Opened, items: Iterable[Item], work: _Import, done: Callable[[], None]) -> None:
    for (kind, namespace), group in groupby(items, key=lambda item: (item.kind, item.namespace)):
        if kind == "memory":
            await work.memories(opened, namespace, group, done)
        elif kind == "assembly":
            await work.assemblies(opened, namespace, group)


def _stopped(cause: BaseException, place: str, counts: dict[str, int]) -> LoadError:
    """The error that tells why an import stopped, at which line, and what is stored."""
    where = "" if str(cause).startswith(place) else f"{place}: "
    stored = counts["memories"] + counts["assemblies"]
    told = LoadError(
        f"{where}{cause}; {number(stored, 'record')} before it {'is' if stored == 1 else 'are'} stored, "
        f"in chunks of at most {CHUNK}",
        stored=stored,
    )
    for note in getattr(cause, "__notes__", ()):
        told.add_note(note)
    return told


def export(
    file: File,
    target: Annotated[
        str, typer.Argument(help="The file to write; it must not exist. - is stdout.", show_default=False)
    ] = STDIN,
    namespace: InNamespace = "",
) -> None:
    """Write the store, or a namespace and all below it, as JSON Lines: import brings every field back.

    Memories come before assemblies, namespace by namespace, a page at a time: other processes may write meanwhile, and
    what they change may be in it or not. backup copies one moment.
    """
    path = namespace_of(namespace)
    if target == STDIN:
        asyncio.run(_export(file, path, sys.stdout, None))
        return
    with _created(Path(target)) as out, progress() as bar:
        task = bar.add_task("exporting", total=None)
        counts = asyncio.run(
            _export(file, path, out, lambda done, total: bar.update(task, completed=done, total=total))
        )
    memories, assemblies = counts
    say(
        f"exported {number(memories, 'memory', 'memories')} and {number(assemblies, 'assembly', 'assemblies')} "
        f"to {target}"
    )


@contextmanager
def _created(path: Path) -> Iterator[TextIO]:
    """A new file, which is gone again if the block raises."""
    if path.exists():
        raise InvalidError(f"{str(path)!r} exists, and export overwrites nothing: give another path")
    with path.open("x", encoding="utf-8", newline="\n") as out:
        try:
            yield out
        except BaseException:
            path.unlink()
            raise


async def _export(
    file: Path, namespace: Namespace, out: TextIO, on_progress: Callable[[int, int], None] | None
) -> tuple[int, int]:
    memories = assemblies = 0
    async with looking(file) as store:
        top = store.namespace(*namespace)
        total = await top.memories.count(recursive=True) + await top.assemblies.count(recursive=True)
        async for line in _lines(store, namespace):
            out.write(json_line(line))
            memories += line["kind"] == "memory"
            assemblies += line["kind"] == "assembly"
            if on_progress is not None:
                on_progress(memories + assemblies, total)
    return memories, assemblies


async def _lines(store: Store, top: Namespace) -> AsyncIterator[dict[str, Any]]:
    yield await header(store)
    for namespace in await store.namespaces(top):
        place = store.namespace(*namespace)
        async for memory in place.memories.list():
            yield memory_line(memory)
        async for assembly in place.assemblies.list():
            yield assembly_line(assembly, [member async for member in place.assemblies.members(assembly.id)])
