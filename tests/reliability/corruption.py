"""Files with damage at every kind of place, and the answers of a store to them.

An undamaged file is made once, with a graph stored in it and writes in its log. Each mutation damages a copy at one
place; a child opens it and calls every read and write. Required of every mutation: the child ends in time, every error
is a memstore error, and no search returns a vector that was not stored with its record, or a score of another vector.
The rest is counted: the findings of `check`, and records that differ because the damaged bytes have no checksum.
"""

import pickle
import shutil
import sqlite3
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import memstore
from memstore import Hits, Memory, MemstoreError, Store
from memstore.index import engine_selector, planner
from memstore.repository.sqlite_only import change_log
from memstore.sync import snapshot
from memstore.vectors import encoding
from tests.support.children import Child, Link
from tests.support.clusters import clustered, wait_until_idle

DIMENSION = 24
COUNT = 260
PAGE = 8_192
PATIENCE = 60.0
"""Seconds after which a child counts as hanging."""

Key = tuple[tuple[str, ...], str]
Row = tuple[str, str, frozenset[str]]


def _small() -> None:
    planner.MIN_GRAPH_NUMBERS, planner.MIN_GRAPH_VECTORS, planner.CANDIDATE_COST, planner.MERGE_MIN = 1, 100, 0.1, 50  # type: ignore[assignment]
    engine_selector.FAISS_FROM = 50
    snapshot.CHUNK = 4_096
    change_log.KEEP = 1_000


# -- the undamaged file


@dataclass
class Sound:
    """The contents of the undamaged file: every record, and the vectors that belong to them."""

    memories: dict[Key, Row] = field(default_factory=dict)
    vectors: dict[bytes, Key] = field(default_factory=dict)
    composites: dict[str, bytes] = field(default_factory=dict)
    late: list[Key] = field(default_factory=list)
    """The records that are only in the log, in order."""


def shape(memory: Memory) -> Row:
    return memory.content, repr(memory.metadata), memory.tags


def item(i: int, vector: npt.NDArray[np.float32]) -> dict[str, Any]:
    return {
        "id": f"memory {i}",
        "content": f"content of {i}" + " and so on" * (2_000 if i % 60 == 0 else 0),
        "embedding": vector,
        "tags": {f"tag {i % 7}", "all"},
        "metadata": {"i": i, "user": f"user {i % 5}", "long": "x" * 40},
        "importance": i % 10 / 10,
    }


async def makes(link: Link, folder: Path, seed: int) -> None:
    """Write `sound.db` with an empty log, `late.db` with writes in its log, and their contents as `sound.pickle`."""
    _small()
    path = folder / "sound.db"
    rows, _ = clustered(np.random.default_rng(seed), COUNT + 5, DIMENSION)
    async with memstore.open(path, dimension=DIMENSION, index="graph", indexed_metadata=["user"]) as store:
        half = COUNT // 2
        await store.memories.add_many([item(i, rows[i]) for i in range(half)])
        space = store.namespace("users", "ada")
        await space.memories.add_many([item(i, rows[i]) for i in range(half, COUNT)])
        for i in range(8):
            ids = [f"memory {k}" for k in range(i, half, 8)]
            await store.assemblies.add(f"group {i}", name=f"name {i}", members=ids, tags={"all"}, topics=["a", "b"])
        await store.memories.delete_many(ids=[f"memory {k}" for k in range(3, half, 40)])
        await wait_until_idle(store)
        await store.optimize()
        await store.compact()
    shutil.copy(path, folder / "late.db")
    sound = Sound()
    async with memstore.open(folder / "late.db") as store:
        for i in range(COUNT, COUNT + 5):
            await store.memories.add(**item(i, rows[i]))
            sound.late.append(((), f"memory {i}"))
        async for memory in store.memories.list(recursive=True):
            key = memory.namespace, memory.id
            sound.memories[key] = shape(memory)
            sound.vectors[memory.embedding.tobytes()] = key
        sound.composites = {a.id: a.composite.tobytes() async for a in store.assemblies.list()}
        for name in ("late.db", "late.db-wal"):
            shutil.copy(folder / name, folder / f"{name}.kept")
    for name in ("late.db", "late.db-wal"):
        (folder / f"{name}.kept").replace(folder / name)
    (folder / "sound.pickle").write_bytes(pickle.dumps(sound))


# -- in the child: every read and write


@dataclass
class Answers:
    """The answers of a store to one file."""

    refused: str = ""
    """The error of `open`."""
    raised: list[tuple[str, str, str]] = field(default_factory=list)
    """Verb, error and message of each memstore error."""
    bare: list[str] = field(default_factory=list)
    """Tracebacks of other errors."""
    wrong: list[str] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)
    keys: set[Key] = field(default_factory=set)
    """The memories that a search without limits returned."""
    listed: set[Key] | None = None
    findings: set[tuple[str, str]] = field(default_factory=set)


class Examination:
    """Calls one verb of a store after the other, whether they raise or not."""

    def __init__(self, store: Store, sound: Sound, answers: Answers) -> None:
        self._store = store
        self._sound = sound
        self._answers = answers
        self._queries = np.stack([np.frombuffer(data, np.float32) for data in list(sound.vectors)[:: COUNT // 6]])

    async def attempt(self, name: str, verb: Callable[[], Awaitable[object]]) -> None:
        try:
            await verb()
        except MemstoreError as error:
            self._answers.raised.append((name, type(error).__name__, str(error)))
        except Exception:
            self._answers.bare.append(f"{name}: {traceback.format_exc()}")

    async def all(self) -> None:
        store = self._store
        await self.attempt("check", self._check)
        await self.attempt("search", lambda: self._search(2 * COUNT, complete=True))
        await self.attempt("settle", lambda: wait_until_idle(store))
        await self.attempt("search by graph", lambda: self._search(5))
        await self.attempt("search by tag", lambda: self._search(9, tags={"tag 3"}))
        await self.attempt("search by metadata", lambda: self._search(9, where={"metadata.user": "user 2"}))
        await self.attempt("search of assemblies", self._assemblies)
        await self.attempt("list", self._list)
        await self.attempt("list by importance", lambda: _drained(store.memories.list(order="-importance")))
        await self.attempt("list of assemblies", lambda: _drained(store.assemblies.list()))
        await self.attempt("members", lambda: _drained(store.assemblies.members("group 1")))
        for key in list(self._sound.memories)[: -len(self._sound.late) : COUNT // 8]:
            face = store.namespace(*key[0]) if key[0] else store
            await self.attempt("get", lambda face=face, key=key: face.memories.get(key[1]))
        await self.attempt("count", lambda: store.memories.count(where={"metadata.i": {"$gt": 7}}, recursive=True))
        await self.attempt("tags", lambda: _drained(store.tags.list()))
        await self.attempt("namespaces", lambda: store.namespaces())
        await self.attempt("stats", lambda: store.stats())
        await self._writes()

    async def _writes(self) -> None:
        store, new = self._store, np.ones(DIMENSION, np.float32)
        await self.attempt("add", lambda: store.memories.add("new", id="new", embedding=new, tags={"all"}))
        await self.attempt("search", lambda: self._search(5))
        await self.attempt("upsert", lambda: store.memories.upsert("new", id="memory 9", embedding=-new))
        await self.attempt("update", lambda: store.memories.update("memory 10", tags={"other"}))
        await self.attempt("add_members", lambda: store.assemblies.add_members("group 2", ["new"]))
        await self.attempt("delete", lambda: store.memories.delete_many(where={"metadata.user": "user 4"}))
        await self.attempt("load", lambda: store.load({"content": "x", "embedding": new} for _ in range(150)))
        await self.attempt("repair", lambda: store.repair())
        await self.attempt("check", lambda: store.check())
        await self.attempt("optimize", lambda: store.optimize())
        await self.attempt("backup", lambda: store.backup(Path(f"{store._database.settings.path}.copy")))
        await self.attempt("compact", lambda: store.compact())

    async def _check(self) -> None:
        self._answers.findings = {(finding.kind, finding.id) for finding in await self._store.check()}

    async def _search(self, limit: int, *, complete: bool = False, **arguments: Any) -> None:
        answers = await self._store.memories.search_many(self._queries, limit, recursive=True, **arguments)
        for query, hits in zip(self._queries, answers, strict=True):
            keys = self._judged(query, hits)
            if complete:
                self._answers.keys = keys

    def _judged(self, query: npt.NDArray[np.float32], hits: Hits[Any]) -> set[Key]:
        keys = set()
        for hit in hits:
            memory = hit.memory
            keys.add((memory.namespace, memory.id))
            if memory.content == "new":
                continue
            if memory.embedding is None:
                self._answers.wrong.append(f"{memory.id!r} was found, and has no vector")
                continue
            close = float(query @ memory.embedding) / float(np.linalg.norm(query) * np.linalg.norm(memory.embedding))
            if not abs(close - hit.score) < 1e-5:
                self._answers.wrong.append(f"{memory.id!r} was found by another vector than it has")
            self._compare(memory)
        return keys

    def _compare(self, memory: Memory) -> None:
        """Compare a record with the one that its vector was stored with; only bytes without a checksum may differ."""
        whose = self._sound.vectors.get(memory.embedding.tobytes())
        if whose is None:
            self._answers.wrong.append(f"{memory.id!r} has a vector that nobody stored")
            return
        key, row = (memory.namespace, memory.id), shape(memory)
        if key != whose and self._sound.memories.get(key) == row:
            self._answers.wrong.append(f"{memory.id!r} has the vector of {whose!r}")
        elif key != whose or row != self._sound.memories[whose]:
            self._answers.differs.append(memory.id)

    async def _assemblies(self) -> None:
        for data in list(self._sound.composites.values())[:3]:
            query = np.frombuffer(data, np.float32)
            for hit in await self._store.assemblies.search(query, 20):
                composite = hit.assembly.composite
                if composite is None or not abs(float(query @ composite) - hit.score) < 1e-5:
                    self._answers.wrong.append(f"{hit.assembly.id!r} was found by another composite than it has")

    async def _list(self) -> None:
        memories = [memory async for memory in self._store.memories.list(recursive=True)]
        self._answers.listed = {(memory.namespace, memory.id) for memory in memories}
        for memory in memories:
            if memory.embedding is not None:
                self._compare(memory)


async def _drained(records: Any) -> None:
    async for _ in records:
        pass


class AnyChecksum(int):
    """A checksum that equals every other."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


async def examines(link: Link, path: Path, sound: Sound, trusting: bool) -> Answers:
    _small()
    if trusting:
        encoding.zlib = SimpleNamespace(crc32=lambda data: AnyChecksum())
    answers = Answers()
    try:
        store = await memstore.open(path, index="graph", timeout=5)
    except MemstoreError as error:
        answers.refused = f"{type(error).__name__}: {error}"
        return answers
    except Exception:
        answers.bare.append(f"open: {traceback.format_exc()}")
        return answers
    examination = Examination(store, sound, answers)
    await examination.all()
    await examination.attempt("close", store.close)
    return answers


# -- damage


class Mutation(NamedTuple):
    """Damage at one place: *target* is what is damaged, *how* the kind of damage."""

    target: str
    how: str
    file: str
    offset: int
    data: bytes | None
    """The bytes that are written there; None cuts the file off."""
    victim: Key | None = None
    """The record whose vector is damaged."""


class Damage:
    """Draws mutations of the files in *folder* at random."""

    def __init__(self, folder: Path, sound: Sound, rng: np.random.Generator) -> None:
        self._rng = rng
        self._sound = sound
        self.bytes = {name: (folder / name).read_bytes() for name in ("sound.db", "late.db", "late.db-wal")}
        self._pages = _pages(folder / "sound.db")
        self._chunks = _cells(folder / "sound.db", "SELECT data FROM index_chunk")
        self._kinds: list[tuple[float, Callable[[], Mutation]]] = [
            (12, self._in_vector),
            (10, self._in_snapshot),
            (40, self._in_page),
            (8, self._in_header),
            (8, self._in_text),
            (10, self._in_log),
            (6, self._cut),
            (3, self._foreign),
            (3, self._whole_page),
        ]

    def drawn(self) -> Iterator[Mutation]:
        weights = np.array([weight for weight, _ in self._kinds])
        while True:
            yield self._kinds[self._rng.choice(len(self._kinds), p=weights / weights.sum())][1]()

    def _place(self, size: int) -> int:
        return int(self._rng.integers(size))

    def _changed(self, target: str, file: str, start: int, size: int, victim: Key | None = None) -> Mutation:
        """Flip a bit, or replace some bytes, in the *size* bytes from *start*."""
        data, offset = self.bytes[file], start + self._place(size)
        if self._rng.random() < 0.6:
            return Mutation(target, "bit", file, offset, bytes([data[offset] ^ 1 << self._place(8)]), victim)
        length = min(1 + self._place(16), start + size - offset)
        drawn = self._rng.bytes(length - 1) + bytes([data[offset + length - 1] ^ (1 + self._place(255))])
        return Mutation(target, "bytes", file, offset, drawn, victim)

    def _in_vector(self) -> Mutation:
        vectors = list(self._sound.vectors.items())
        while True:
            data, key = vectors[self._place(len(vectors))]
            at = self.bytes["sound.db"].find(data)
            if at >= 0 and key not in self._sound.late:
                return self._changed("stored vector", "sound.db", at, len(data), key)

    def _in_snapshot(self) -> Mutation:
        chunk = self._chunks[self._place(len(self._chunks))]
        # The bytes of a chunk are on overflow pages: 64 in the middle of a page can be searched for.
        start = self._place(len(chunk) - 64)
        at = self.bytes["sound.db"].find(chunk[start : start + 64])
        return self._changed("snapshot", "sound.db", at, 64) if at >= 0 else self._in_snapshot()

    def _in_page(self) -> Mutation:
        names = sorted(self._pages)
        name = names[self._place(len(names))]
        page = self._pages[name][self._place(len(self._pages[name]))]
        start = (page - 1) * PAGE
        size = 64 if self._rng.random() < 0.3 else PAGE  # the header of the page and its cell pointers
        return self._changed(f"page of {name}", "sound.db", start, size)

    def _in_header(self) -> Mutation:
        return self._changed("header", "sound.db", 0, 100)

    def _in_text(self) -> Mutation:
        keys = [key for key in self._sound.memories if key not in self._sound.late]
        key = keys[self._place(len(keys))]
        content, *_ = self._sound.memories[key]
        part = (content[:40], f'"i":{key[1].split()[1]},', key[1])[self._place(3)]
        at = self.bytes["sound.db"].find(part.encode())
        return self._changed("text", "sound.db", at, len(part)) if at >= 0 else self._in_text()

    def _in_log(self) -> Mutation:
        size = len(self.bytes["late.db-wal"])
        draw = self._rng.random()
        if draw < 0.2:
            return Mutation("log", "cut", "late.db-wal", self._place(size), None)
        start, length = (0, 32) if draw < 0.4 else (32, size - 32)
        return self._changed("log", "late.db-wal", start, length)

    def _cut(self) -> Mutation:
        pages = len(self.bytes["sound.db"]) // PAGE
        sizes = (0, self._place(100), self._place(PAGE), self._place(pages) * PAGE, self._place(pages * PAGE))
        return Mutation("length", "cut", "sound.db", sizes[self._place(5)], None)

    def _foreign(self) -> Mutation:
        files = (b"no database at all\n" * 900, self._rng.bytes(3 * PAGE), _other_database(), b"\0" * PAGE)
        return Mutation("whole file", "another", "sound.db", 0, files[self._place(4)])

    def _whole_page(self) -> Mutation:
        """A page that did not reach the disk, or was written to the place of another."""
        pages = len(self.bytes["sound.db"]) // PAGE
        other = self._place(pages) * PAGE
        data = (bytes(PAGE), self._rng.bytes(PAGE), self.bytes["sound.db"][other : other + PAGE])[self._place(3)]
        return Mutation("whole page", "another", "sound.db", self._place(pages) * PAGE, data)

    def applied(self, mutation: Mutation, path: Path) -> None:
        """Write the damaged file to *path*, with its log if it has one."""
        late = mutation.file != "sound.db"
        path.write_bytes(self.bytes["late.db" if late else "sound.db"])
        log_path = path.with_name(f"{path.name}-wal")
        if late:
            log_path.write_bytes(self.bytes["late.db-wal"])
        with (log_path if late else path).open("r+b") as file:
            if mutation.data is None or mutation.target == "whole file":
                file.truncate(mutation.offset)
            file.seek(mutation.offset)
            file.write(mutation.data or b"")


def _pages(path: Path) -> Mapping[str, list[int]]:
    """The pages of each table and index; all under one name if this SQLite has no dbstat."""
    pages_of: dict[str, list[int]] = defaultdict(list)
    with closing(sqlite3.connect(path)) as base:
        (count,) = base.execute("PRAGMA page_count").fetchone()
        try:
            for name, page in base.execute("SELECT name, pageno FROM dbstat"):
                pages_of[name].append(page)
        except sqlite3.OperationalError:
            return {"anything": list(range(1, count + 1))}
    listed = {page for pages in pages_of.values() for page in pages}
    pages_of["no table"] = [page for page in range(1, count + 1) if page not in listed]  # lock and pointer-map pages
    return {name: pages for name, pages in pages_of.items() if pages}


def _cells(path: Path, question: str) -> list[bytes]:
    with closing(sqlite3.connect(path)) as base:
        return [row[0] for row in base.execute(question)]


def _other_database() -> bytes:
    with closing(sqlite3.connect(":memory:")) as base:
        base.executescript("PRAGMA application_id=7; CREATE TABLE t (x); INSERT INTO t VALUES (1);")
        return bytes(base.serialize())


# -- in the parent


class Tally:
    """The outcomes of all mutations, by target."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Counter[str]] = defaultdict(Counter)
        self.errors: Counter[str] = Counter()
        self.failures: list[str] = []
        self.slowest = (0.0, "")

    def add(self, mutation: Mutation, answers: Answers | str, sound: Sound) -> None:
        """Count the outcome of *mutation*; it is a failure if a requirement is not met."""
        target = "b-tree page" if mutation.target.startswith("page of") else mutation.target
        faults = (
            [answers]
            if isinstance(answers, str)
            else [*answers.bare, *answers.wrong, *_unmet(mutation, answers, sound)]
        )
        if faults:
            self.failures.append(f"{place_of(mutation)}:\n" + "\n".join(dict.fromkeys(faults)))
            self.outcomes[target]["FAILED"] += 1
        elif isinstance(answers, Answers):
            self.outcomes[target][_outcome(mutation, answers, sound)] += 1
            raised = [answers.refused] if answers.refused else [f"{name}: {text}" for _, name, text in answers.raised]
            self.errors.update({error.split(":")[0] for error in raised})

    @property
    def mutations(self) -> int:
        return sum(counts.total() for counts in self.outcomes.values())

    def lines(self) -> Iterator[str]:
        for target, counts in sorted(self.outcomes.items()):
            outcomes = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
            yield f"{target}: {counts.total()}: {outcomes}"
        yield f"slowest: {self.slowest[0]:.1f} s, {self.slowest[1]}"
        yield "errors: " + ", ".join(f"{count} {name}" for name, count in self.errors.most_common())


def place_of(mutation: Mutation) -> Mutation:
    """*mutation* with only the first bytes of its data, for messages."""
    return mutation._replace(data=None if mutation.data is None else mutation.data[:16])


def _expected(mutation: Mutation, sound: Sound) -> set[Key]:
    late = set(sound.late) if mutation.file == "sound.db" else set()
    return set(sound.memories) - late


def _outcome(mutation: Mutation, answers: Answers, sound: Sound) -> str:
    """The outcome as a user would notice it."""
    if answers.refused:
        return "refused"
    missing = _expected(mutation, sound) - answers.keys
    if answers.raised and answers.findings:
        return "named by check, some verbs raise"
    if answers.raised:
        return "some verbs raise"
    if answers.findings:
        return "named by check"
    if mutation.target == "log":
        return "a shorter history" if missing else "nothing is missing"
    if answers.differs:
        return "reads differently, no finding"
    return "fewer hits, no finding" if missing else "no harm"


def _unmet(mutation: Mutation, answers: Answers, sound: Sound) -> Iterator[str]:
    """Requirements that only damage of this kind has."""
    expected = _expected(mutation, sound)
    if mutation.target == "stored vector":
        if answers.keys != expected - {mutation.victim}:
            yield f"a search returns {len(answers.keys)}, without {sorted(expected - answers.keys)[:3]}"
        if ("checksum", mutation.victim[1]) not in answers.findings:
            yield f"check named {sorted(answers.findings)[:3]}"
    elif mutation.target == "snapshot":
        if answers.keys != expected or answers.raised or answers.differs:
            yield f"a damaged snapshot has changed the answers: {answers.raised[:2]}"
        if {kind for kind, _ in answers.findings} != {"snapshot"}:
            yield f"check named {sorted(answers.findings)[:3]}"
    elif mutation.target == "whole file" and not answers.refused:
        yield "it was opened"
    elif mutation.target == "log" and not answers.refused and not answers.raised:
        present = [key in answers.keys for key in sound.late]
        if expected - answers.keys - set(sound.late) or present != sorted(present, reverse=True):
            yield f"of the log {present} is there, without {sorted(expected - answers.keys)[:3]}"


def corrupted(mutations: int, seed: int, folder: Path, *, trusting: bool = False) -> Tally:
    """Run mutations drawn from *seed*; the files of those that fail stay in *folder*.

    With *trusting* the library skips the checksums of vectors: the mutations must find that.
    """
    with Child(makes, folder, seed) as maker:
        maker.receive()
    sound: Sound = pickle.loads((folder / "sound.pickle").read_bytes())
    damage, tally = Damage(folder, sound, np.random.default_rng(seed)), Tally()
    drawn = damage.drawn()
    for number in range(mutations):
        mutation, place = next(drawn), folder / str(number)
        place.mkdir()
        damage.applied(mutation, place / "store.db")
        failures, began = len(tally.failures), time.monotonic()
        with Child(examines, place / "store.db", sound, trusting) as child:
            tally.add(mutation, _heard(child), sound)
        tally.slowest = max(tally.slowest, (time.monotonic() - began, str(place_of(mutation))))
        if len(tally.failures) == failures:
            shutil.rmtree(place)
        else:
            tally.failures[-1] = f"mutation {number} of seed {seed}, {tally.failures[-1]}"
    return tally


def _heard(child: Child) -> Answers | str:
    try:
        answers: Answers = child.receive(PATIENCE)
        return answers
    except AssertionError as error:
        return str(error)
