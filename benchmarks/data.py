"""Makes the workset: a real corpus if there is one, else clusters drawn at random; always the same on every machine.

Real rows are glosses with two tags and their vectors. Where more are asked for than there are, and for the extra
ones, a vector is the sum of a row, half of another, and noise, scaled to length 1.
"""

import gzip
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.workset import BUCKETS, CONTENT, FILTERS, LIMIT, Filter, Vectors, Workset

SEED = 20_000
FORMAT = 5
AGAINST = 50
"""Most queries that are asked under the filters that go against them: a tenth of all, which lie close together."""

_BLOCK = 50_000
_WORDS = [
    "tea",
    "coffee",
    "garden",
    "letter",
    "river",
    "window",
    "travel",
    "music",
    "winter",
    "market",
    "silver",
    "bread",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What workset is wanted.

    Attributes:
        rows: memories every store begins with.
        queries: how many.
        dimension: numbers per vector, of synthetic data; real data have their own.
        corpus: the folder in which `real100k.*` may be, or None for synthetic data.
    """

    rows: int
    queries: int = 500
    dimension: int = 384
    corpus: Path | None = None

    @property
    def extra(self) -> int:
        """Memories beside the rows, to be added later."""
        return min(12_000, max(1_000, self.rows))

    @property
    def real(self) -> Path | None:
        """The stem of the real corpus, if it is there."""
        there = self.corpus is not None and (self.corpus / "real100k.npz").is_file()
        return self.corpus / "real100k" if there and self.corpus is not None else None


def workset(wanted: Wanted, folder: Path) -> Workset:
    """The workset in *folder*, made if it is not what is wanted."""
    facts: dict[str, Any] = {
        "format": FORMAT,
        "rows": wanted.rows,
        "extra": wanted.extra,
        "asked": wanted.queries,
        "data": "real: WordNet glosses, all-MiniLM-L6-v2" if wanted.real else "synthetic: clusters, random texts",
    }
    if wanted.real and wanted.rows > 100_000:
        facts["data"] += "; beyond 100,000 rows mixed of two rows and noise"
    kept = folder / "facts.json"
    if kept.is_file() and facts.items() <= json.loads(kept.read_text(encoding="utf-8")).items():
        return Workset(folder)
    folder.mkdir(parents=True, exist_ok=True)
    kept.unlink(missing_ok=True)
    for old in folder.glob("truth-*.npz"):
        old.unlink()
    vectors, queries, texts = _real(wanted) if wanted.real else _synthetic(wanted)
    near, against = _against(vectors, wanted.rows, queries)
    with (folder / "vectors.f32").open("wb") as file:
        vectors.tofile(file)
    np.save(folder / "queries.npy", queries)
    np.save(folder / "against.npy", against)
    line = _write_items(folder / "items.jsonl", texts, near, wanted.rows)
    kept.write_text(json.dumps(facts | {"line": line, "dimension": vectors.shape[1]}), encoding="utf-8")
    return Workset(folder)


Texts = list[tuple[str, str, str]]
"""A text and two tags for each row."""


def _real(wanted: Wanted) -> tuple[Vectors, Vectors, Texts]:
    stem = wanted.real
    assert stem is not None
    with np.load(stem.with_suffix(".npz")) as file:
        corpus, queries = file["emb"].astype(np.float32), file["q_emb"][: wanted.queries].astype(np.float32)
    with gzip.open(stem.with_suffix(".jsonl.gz"), "rt", encoding="utf-8") as lines:
        told = [json.loads(line) for line in lines]
    random = np.random.default_rng(SEED)
    whole = min(wanted.rows, len(corpus))
    made = np.empty((wanted.rows + wanted.extra, corpus.shape[1]), np.float32)
    made[:whole] = corpus[:whole]
    for start in range(whole, len(made), _BLOCK):
        block = made[start : start + _BLOCK]
        one, other = random.integers(0, len(corpus), (2, len(block)))
        noise = random.standard_normal(block.shape, dtype=np.float32) / np.sqrt(block.shape[1])
        block[:] = corpus[one] + 0.5 * corpus[other] + 0.3 * noise
    texts = []
    for row in range(len(made)):
        of, then = told[row % len(told)], told[(row * 7 + 1) % len(told)]
        texts.append((f"{of['text']}; {then['text']}", of["tags"][0], of["tags"][-1]))
    return _unit(made), _unit(queries), texts


def _synthetic(wanted: Wanted) -> tuple[Vectors, Vectors, Texts]:
    random = np.random.default_rng(SEED)
    count = wanted.rows + wanted.extra
    centres = _unit(random.standard_normal((max(10, wanted.rows // 200), wanted.dimension), dtype=np.float32))

    def drawn(n: int) -> Vectors:
        made = np.empty((n, wanted.dimension), np.float32)
        for start in range(0, n, _BLOCK):
            block = made[start : start + _BLOCK]
            noise = random.standard_normal(block.shape, dtype=np.float32) / np.sqrt(wanted.dimension)
            block[:] = centres[random.integers(0, len(centres), len(block))] + 1.2 * noise
        return _unit(made)

    words = random.integers(0, len(_WORDS), (count, CONTENT // 4)).tolist()
    kinds = random.integers(0, 200, (count, 2)).tolist()
    texts = [
        (" ".join(_WORDS[w] for w in words[i]), f"kind-{kinds[i][0]}", f"group-{kinds[i][1]}") for i in range(count)
    ]
    return drawn(count), drawn(wanted.queries), texts


def _unit(vectors: Vectors) -> Vectors:
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _against(vectors: Vectors, rows: int, queries: Vectors) -> tuple[list[int], list[int]]:
    """For each row how near it is to a group of queries, in `BUCKETS` steps from the farthest; and that group."""
    group = np.argsort(queries @ queries[0])[::-1][: max(1, min(AGAINST, len(queries) // 10))]
    closeness = vectors @ queries[group].mean(axis=0)
    rank = np.searchsorted(np.sort(closeness[:rows]), closeness)  # the extra ones among the rows
    return np.minimum(rank * BUCKETS // rows, BUCKETS - 1).tolist(), group.tolist()


def _write_items(path: Path, texts: Texts, near: list[int], rows: int) -> int:
    """Writes one line a row, all of one length in bytes; that length."""
    random = np.random.default_rng(SEED + 1)
    extra = len(texts) - rows

    def drawn() -> Any:  # each value as often as any other, among the rows and among the extra ones
        return np.concatenate([random.permutation(rows) / rows, random.permutation(extra) / extra])

    shelf, draw = (drawn() * BUCKETS).astype(int), drawn()

    def lines() -> Iterator[bytes]:
        for row, (text, one, other) in enumerate(texts):
            content = f"{row} {text} "
            content = (content * (CONTENT // len(content) + 1))[:CONTENT]
            metadata = {"row": row, "source": "chat", "sure": row % 3 > 0, "shelf": int(shelf[row]), "near": near[row]}
            tags = sorted({one, other if other != one else f"{one}-too", _share_tag(float(draw[row]))})
            told = {"content": content, "tags": tags, "metadata": metadata}
            yield json.dumps(told, ensure_ascii=False).encode()

    longest = max(map(len, lines())) + 1
    with path.open("wb") as file:
        for line in lines():
            file.write(line.ljust(longest - 1) + b"\n")
    return longest


def _share_tag(draw: float) -> str:
    for share, tag in ((0.001, "one-in-1000"), (0.011, "one-in-100"), (0.111, "one-in-10")):
        if draw < share:
            return tag
    return "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """The exact answers under one filter.

    Attributes:
        queries: numbers of the queries asked.
        rows: shape (queries, up to LIMIT): the nearest rows, best first; shorter where fewer match.
        least: shape (queries,): the similarity of the last of them.
        allowed: how many rows the filter allows.
    """

    queries: list[int]
    rows: np.ndarray[Any, np.dtype[np.int64]]
    least: np.ndarray[Any, np.dtype[np.float32]]
    allowed: int


class Judge:
    """Knows the exact answers, computed once by NumPy, and says how good an answer is.

    Args:
        made: the workset.
        stop: rows the stores hold: `made.rows`, or more when some were added.
    """

    def __init__(self, made: Workset, stop: int | None = None) -> None:
        self._made = made
        self.stop = stop or made.rows
        self._vectors = np.memmap(
            made.folder / "vectors.f32", np.float32, "r", shape=(made.rows + made.extra, made.dimension)
        )
        self._truths: dict[str, Truth] = {}
        self._allowed: dict[str, np.ndarray[Any, np.dtype[np.bool_]]] = {}

    def queries(self, filter: str) -> list[int]:
        """Numbers of the queries to ask under *filter*, the name of one, or ""."""
        return self._made.against if filter and FILTERS[filter].against else list(range(len(self._made.queries)))

    def truth(self, filter: str = "") -> Truth:
        """The exact answers under the filter of that name, or under none."""
        if filter not in self._truths:
            mark = hashlib.sha256(f"{filter}|{self.stop}".encode()).hexdigest()[:16]
            kept = self._made.folder / f"truth-{mark}.npz"
            asked = self.queries(filter)
            if not kept.is_file():
                rows, least = self._computed(filter, self._made.queries[asked])
                np.savez(kept, rows=rows, least=least)
            with np.load(kept) as file:
                self._truths[filter] = Truth(
                    queries=asked, rows=file["rows"], least=file["least"], allowed=int(self.allowed(filter).sum())
                )
        return self._truths[filter]

    def allowed(self, filter: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Shape (stop,): which rows the filter allows."""
        if not filter:
            return np.ones(self.stop, bool)
        if not self._allowed:  # all at once: every row is read for it
            self._allowed = {name: np.zeros(self.stop, bool) for name in FILTERS}
            for item in self._made.items(0, self.stop):
                for name, rule in FILTERS.items():
                    self._allowed[name][item.row] = _matches(rule, item.tags, item.metadata)
        return self._allowed[filter]

    def _computed(self, filter: str, queries: Vectors) -> tuple[Any, Any]:
        keys = np.flatnonzero(self.allowed(filter))
        best = np.full((len(queries), LIMIT), -np.inf, np.float32)
        rows = np.full((len(queries), LIMIT), -1, np.int64)
        for start in range(0, len(keys), _BLOCK):
            some = keys[start : start + _BLOCK]
            sims = queries @ np.asarray(self._vectors[some]).T
            both = np.concatenate([best, sims], axis=1)
            names = np.concatenate([rows, np.broadcast_to(some, sims.shape)], axis=1)
            some_best = np.argpartition(-both, LIMIT - 1, axis=1)[:, :LIMIT] if both.shape[1] > LIMIT else None
            if some_best is not None:
                both, names = np.take_along_axis(both, some_best, 1), np.take_along_axis(names, some_best, 1)
            order = np.argsort(-both, axis=1, kind="stable")
            best, rows = np.take_along_axis(both, order, 1), np.take_along_axis(names, order, 1)
        found = min(LIMIT, len(keys))
        return rows[:, :found], best[:, max(0, found - 1)]

    def recall(self, filter: str, query: int, found: list[int]) -> float:
        """The share of the exact answer that *found* holds; a row as near as the last of them counts as one of them.

        Raises:
            RuntimeError: an answer that cannot be: a row twice, one that does not exist, or one the filter forbids.
        """
        truth = self.truth(filter)
        at = truth.queries.index(query) if filter else query
        allowed = self.allowed(filter)
        if len(set(found)) < len(found) or any(not (0 <= row < self.stop and allowed[row]) for row in found):
            raise RuntimeError(f"query {query} under {filter or 'no filter'!r}: an answer that cannot be: {found}")
        if not truth.rows.shape[1]:
            return 1.0
        sims = self._vectors[found] @ self._made.queries[query]
        good = sum(bool(s >= truth.least[at] - 1e-5) for s in sims)
        return min(good, truth.rows.shape[1]) / truth.rows.shape[1]

    def wanted(self, filter: str) -> int:
        """How many hits a search under the filter must have."""
        return min(LIMIT, self.truth(filter).allowed)


def _matches(rule: Filter, tags: list[str], metadata: dict[str, Any]) -> bool:
    return rule.tag in tags if rule.tag else metadata[rule.field] < rule.recursive
