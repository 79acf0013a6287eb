"""The commands that move records in and out: import, export."""

import json as json_module
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
from memstore.cli import options
from memstore.cli.event_loop import run_async
from memstore.cli.jsonl import Item, assembly_line, end_line, memory_line, store_line
from memstore.cli.namespaces import NamespacePath
from memstore.cli.options import NewFileOptions, parse_namespace
from memstore.cli.output import ProgressCallback, print_json, print_line, progress
from memstore.cli.sources import STDIN, Format, Source
from memstore.cli.stores import WITHOUT_VECTOR, OpenStore, open_or_create, open_read_only
from memstore.cli.text import json_line, quantity
from memstore.database.file_modes import mode_like, new_file
from memstore.database.sqlite import sqlite3

CHUNK = 500
"""Records of one transaction, at most."""

MEMBERS = 20_000
"""Members after which a transaction takes no further assembly."""

_RECORD_ERRORS = (InvalidError, DuplicateError, NotFoundError, EmbedderError)
"""Errors that one record causes."""


def import_(
    file: options.File,
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE", help="Files; - is JSON Lines from stdin.", show_default=False)
    ],
    vectors: NewFileOptions,
    format: Annotated[
        Format | None, typer.Option("--format", help="Their format; by default that of their suffix.")
    ] = None,
    tag: options.Tags = None,
    upsert: options.Upsert = False,
    namespace: options.Namespace = "",
    json: options.Json = False,
) -> None:
    """Import JSON Lines, Markdown or text files.

    The suffix decides: .jsonl, .ndjson, .md, .txt. A line of JSON is a memory, {"content": …} with any other field, or
    a line of `memstore export`. Markdown and text are split into passages, whose ids are the name of the file and a
    number. A missing store is created. Records are committed 500 at a time, so those before an error stay.

    --json prints one object: the numbers of records.
    """
    source = Source(sources, format)
    path = parse_namespace(namespace)
    with closing(_Importer(path, frozenset(tag or ()), upsert=upsert)) as importer:
        counts = run_async(_import(source, file, vectors, importer))
    if json:
        print_json(counts)
        return
    memories, assemblies = quantity(counts["memories"], "memory"), quantity(counts["assemblies"], "assembly")
    print_line(f"imported {memories} and {assemblies} into {file}")
    if counts["without_embedding"]:
        count = quantity(counts["without_embedding"], "memory has", "memories have")
        print_line(f"{count} no embedding, so no search finds them")
    if counts["expired"]:
        print_line(f"skipped {quantity(counts['expired'], 'expired memory', 'expired memories')}")


class _Importer:
    """Stores items in transactions of at most `CHUNK` records, below one namespace and with additional tags."""

    def __init__(self, path: NamespacePath, tags: frozenset[str], *, upsert: bool) -> None:
        self._path = path
        self._tags = tags
        self._upsert = upsert
        self._expiring = _ExpiringIds()
        self._chunk: list[Item] = []  # the items of the current transaction, or of the one that failed
        self.counts = {"memories": 0, "assemblies": 0, "without_embedding": 0, "expired": 0}

    async def add_memories(
        self, opened: OpenStore, namespace: NamespacePath, items: Iterable[Item], on_chunk: Callable[[], None]
    ) -> None:
        """Store memories of one namespace, chunk by chunk."""
        before = self.counts["memories"]

        def on_progress(stored: int) -> None:
            self.counts["memories"] = before + stored
            self._chunk.clear()
            on_chunk()

        scope = opened.store.namespace(*self._path, *namespace)
        await scope.load(self._memory_fields(opened, items), chunk=CHUNK, upsert=self._upsert, on_progress=on_progress)

    def _memory_fields(self, opened: OpenStore, items: Iterable[Item]) -> Iterator[dict[str, Any]]:
        for item in items:
            fields, expires_at = item.fields, item.fields.get("expires_at")
            if isinstance(expires_at, datetime) and expires_at.tzinfo is not None:
                self._expiring.add(item.namespace, str(fields.get("id")))
                if expires_at <= datetime.now(UTC):
                    self.counts["expired"] += 1
                    continue
            if "embedding" not in fields and opened.embedder_error is not None:
                raise EmbedderError(f"{item.place}: {opened.embedder_error} {WITHOUT_VECTOR}")
            self.counts["without_embedding"] += fields.get("embedding", "") is None
            self._chunk.append(replace(item, fields=self._with_tags(fields)))
            yield self._chunk[-1].fields

    async def add_assemblies(self, opened: OpenStore, namespace: NamespacePath, items: Iterable[Item]) -> None:
        """Store assemblies of one namespace, a chunk in a transaction, without members that have expired."""
        scope = opened.store.namespace(*self._path, *namespace)
        member_count = 0
        for item in items:
            fields = self._with_tags(item.fields)
            members = fields.get("members") or ()
            expired = await self._expired(scope, item.namespace, _strings(members))
            if expired:
                fields["members"] = [
                    member for member in members if not (isinstance(member, str) and member in expired)
                ]
            self._chunk.append(replace(item, fields=fields))
            member_count += len(members) if isinstance(members, list) else 0
            if len(self._chunk) == CHUNK or member_count >= MEMBERS:
                await self._commit_assemblies(scope)
                member_count = 0
        await self._commit_assemblies(scope)

    async def _commit_assemblies(self, scope: StoreNamespace) -> None:
        write = scope.assemblies.upsert_many if self._upsert else scope.assemblies.add_many
        self.counts["assemblies"] += len(await write([item.fields for item in self._chunk]))
        self._chunk.clear()

    async def _expired(self, scope: StoreNamespace, namespace: NamespacePath, members: list[str]) -> set[str]:
        """Those of *members* that the import contains and that have expired."""
        expired: set[str] = set()
        candidates = self._expiring.select(namespace, members)
        while batch := list(islice(candidates, CHUNK)):
            expired.update(set(batch) - (await scope.memories.get_many(batch)).keys())
        return expired

    async def invalid_item(self, store: Store) -> tuple[str, MemstoreError] | None:
        """The place of the item that makes the last chunk fail, and its error; None if each can be stored alone.

        Tries the items one by one in a transaction that is rolled back.
        """
        failure = None
        with suppress(_RollbackError):
            async with store.transaction() as tx:
                failure = await self._first_failure(tx)
                raise _RollbackError
        return failure

    async def _first_failure(self, tx: Transaction) -> tuple[str, MemstoreError] | None:
        for item in self._chunk:
            scope = tx.namespace(*self._path, *item.namespace)
            records = scope.memories if item.kind == "memory" else scope.assemblies
            try:
                await (records.upsert_many if self._upsert else records.add_many)([item.fields])
            except MemstoreError as error:
                return item.place, error
        return None

    def close(self) -> None:
        """Delete the temporary table of expiring memories."""
        self._expiring.close()

    def _with_tags(self, fields: dict[str, Any]) -> dict[str, Any]:
        tags = fields.get("tags")
        if not self._tags or (tags and _strings(tags) != tags):  # the store refuses what is not a list of strings
            return dict(fields)
        return {**fields, "tags": self._tags.union(tags or ())}


def _strings(value: object) -> list[str]:
    """The strings in a list; an empty list for any other value."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


class _RollbackError(Exception):
    """Rolls a transaction back."""


class _ExpiringIds:
    """The imported memories that have an expiry time: an assembly may name them after they have expired.

    They are in a temporary SQLite database, because an import may have any number of them.
    """

    def __init__(self) -> None:
        self._connection = sqlite3.connect("", isolation_level=None)
        self._connection.execute("CREATE TABLE expiring (key TEXT PRIMARY KEY) WITHOUT ROWID")

    def add(self, namespace: NamespacePath, id: str) -> None:
        self._connection.execute("INSERT OR IGNORE INTO expiring VALUES (?)", (_key(namespace, id),))

    def select(self, namespace: NamespacePath, ids: Iterable[str]) -> Iterator[str]:
        """Those of *ids* that are in the table."""
        statement = "SELECT 1 FROM expiring WHERE key = ?"
        return (id for id in ids if self._connection.execute(statement, (_key(namespace, id),)).fetchone())

    def close(self) -> None:
        self._connection.close()


def _key(namespace: NamespacePath, id: object) -> str:
    return json_module.dumps(
        [*namespace, id]
    )  # ASCII, so that an invalid id gets as far as the store, which refuses it


async def _import(source: Source, file: Path, vectors: NewFileOptions, importer: _Importer) -> dict[str, int]:
    items = iter(source)
    first = next(items, None)
    if first is None:
        raise InvalidError("Nothing to import: the input is empty.")
    header = first.fields if first.kind == "store" else None
    embedding = first.fields.get("embedding") if first.kind == "memory" else None
    size = len(embedding) if isinstance(embedding, list) else None
    async with open_or_create(file, vectors, input_size=size, header=header) as opened:
        with progress("importing") as update:
            try:
                await _store(opened, chain([first], items), importer, lambda: update(source.done, source.total))
            except MemstoreError as error:
                cause = error.__cause__ if isinstance(error, LoadError) else error
                failure = await importer.invalid_item(opened.store) if isinstance(cause, _RECORD_ERRORS) else None
                cause = failure[1] if failure else cause or error
                raise _import_error(cause, failure[0] if failure else source.place, importer.counts) from cause
    return importer.counts


async def _store(opened: OpenStore, items: Iterable[Item], importer: _Importer, on_chunk: Callable[[], None]) -> None:
    for (kind, namespace), group in groupby(items, key=lambda item: (item.kind, item.namespace)):
        if kind == "memory":
            await importer.add_memories(opened, namespace, group, on_chunk)
        elif kind == "assembly":
            await importer.add_assemblies(opened, namespace, group)


def _import_error(cause: BaseException, place: str, counts: dict[str, int]) -> LoadError:
    """The error of an import: the line, the cause, and how many records are stored."""
    prefix = "" if str(cause).startswith(place) else f"{place}: "
    stored = counts["memories"] + counts["assemblies"]
    verb = "is" if stored == 1 else "are"
    error = LoadError(
        f"{prefix}{str(cause).rstrip('.')}. {quantity(stored, 'record')} before it {verb} stored.", stored=stored
    )
    for note in getattr(cause, "__notes__", ()):
        error.add_note(note)
    return error


def export(
    file: options.File,
    target: Annotated[
        str, typer.Argument(help="The file to write; it must not exist. - is stdout.", show_default=False)
    ] = STDIN,
    namespace: options.Namespace = "",
) -> None:
    """Export the store as JSON Lines.

    `memstore import` restores every field. With --namespace the export contains that namespace and all below it.
    Records are read in pages, so an export does not show one moment while others write; `memstore backup` does.
    """
    path = parse_namespace(namespace)
    if target == STDIN:
        run_async(_export(file, path, sys.stdout, None))
        return
    with _new_file(Path(target), like=file) as out, progress("exporting") as update:
        memories, assemblies = run_async(_export(file, path, out, update))
    print_line(f"exported {quantity(memories, 'memory')} and {quantity(assemblies, 'assembly')} to {target}")


@contextmanager
def _new_file(path: Path, like: Path) -> Iterator[TextIO]:
    """A new file with the permissions of the file *like*, which appears when the block ends."""
    if path.exists():
        raise InvalidError(f"{str(path)!r} exists, and export does not overwrite files. Pass another path.")
    with (
        new_file(path, mode_like(like)) as descriptor,
        open(descriptor, "w", encoding="utf-8", newline="\n", closefd=False) as out,
    ):
        yield out


async def _export(
    file: Path, path: NamespacePath, out: TextIO, on_progress: ProgressCallback | None
) -> tuple[int, int]:
    memories = assemblies = 0
    async with open_read_only(file) as store:
        scope = store.namespace(*path)
        total = await scope.memories.count(recursive=True) + await scope.assemblies.count(recursive=True)
        async for line in _lines(store, path):
            out.write(json_line(line))
            memories += line["kind"] == "memory"
            assemblies += line["kind"] == "assembly"
            if on_progress is not None:
                on_progress(memories + assemblies, total)
        out.write(json_line(end_line(memories, assemblies)))
    return memories, assemblies


async def _lines(store: Store, path: NamespacePath) -> AsyncIterator[dict[str, Any]]:
    yield await store_line(store)
    for namespace in await store.namespaces(path):
        scope = store.namespace(*namespace)
        async for memory in scope.memories.list():
            yield memory_line(memory)
        async for assembly in scope.assemblies.list():
            yield assembly_line(assembly, [member async for member in scope.assemblies.members(assembly.id)])
