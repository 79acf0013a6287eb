"""Writes the workset from the real corpus, or from random clusters where there is none. The result is deterministic.

Real rows are glosses with two tags and their vectors. Rows beyond the corpus, and all extra rows, have mixed vectors:
one row, half of another row and noise, normalised.
"""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.workset import BUCKETS, CONTENT, Vectors, Workset

SEED = 20_000
FORMAT = 6
_ADVERSE_QUERIES = 50
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

Texts = list[tuple[str, str, str]]
"""For each row a text and two tags."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorksetSpec:
    """The workset to write.

    Attributes:
        rows: memories in every filled store.
        queries: number of queries.
        dimension: numbers per vector of synthetic data; real data has its own.
        corpus: the folder that may hold `real100k.*`, or None for synthetic data.
    """

    rows: int
    queries: int = 500
    dimension: int = 384
    corpus: Path | None = None

    @property
    def extra_rows(self) -> int:
        """Memories beyond `rows`, for phases that add."""
        return min(12_000, max(1_000, self.rows))

    @property
    def corpus_stem(self) -> Path | None:
        """The path of the real corpus without its suffix, or None."""
        if self.corpus is None or not (self.corpus / "real100k.npz").is_file():
            return None
        return self.corpus / "real100k"


def make_workset(spec: WorksetSpec, folder: Path) -> Workset:
    """Return the workset in *folder*, and write it first unless the folder holds this one."""
    stem = spec.corpus_stem
    facts: dict[str, Any] = {
        "format": FORMAT,
        "rows": spec.rows,
        "extra_rows": spec.extra_rows,
        "requested_queries": spec.queries,
        "data": "WordNet glosses with vectors of all-MiniLM-L6-v2"
        if stem
        else "random texts with vectors in random clusters",
    }
    if stem and spec.rows > 100_000:
        facts["data"] += "; rows beyond 100,000 are mixed from two rows and noise"
    facts_file = folder / "facts.json"
    if facts_file.is_file() and facts.items() <= json.loads(facts_file.read_text(encoding="utf-8")).items():
        return Workset(folder)
    folder.mkdir(parents=True, exist_ok=True)
    facts_file.unlink(missing_ok=True)
    for file in folder.glob("answers-*.npz"):
        file.unlink()
    vectors, queries, texts = _real(spec, stem) if stem else _synthetic(spec)
    closeness, adverse_queries = _closeness(vectors, spec.rows, queries)
    with (folder / "vectors.f32").open("wb") as file:
        vectors.tofile(file)
    np.save(folder / "queries.npy", queries)
    np.save(folder / "adverse_queries.npy", adverse_queries)
    line_bytes = _write_items(folder / "items.jsonl", texts, closeness, spec.rows)
    facts |= {"line_bytes": line_bytes, "dimension": vectors.shape[1]}
    facts_file.write_text(json.dumps(facts), encoding="utf-8")
    return Workset(folder)


def _real(spec: WorksetSpec, stem: Path) -> tuple[Vectors, Vectors, Texts]:
    with np.load(stem.with_suffix(".npz")) as file:
        corpus, queries = file["emb"].astype(np.float32), file["q_emb"][: spec.queries].astype(np.float32)
    with gzip.open(stem.with_suffix(".jsonl.gz"), "rt", encoding="utf-8") as lines:
        glosses = [json.loads(line) for line in lines]
    random = np.random.default_rng(SEED)
    unmixed = min(spec.rows, len(corpus))
    vectors = np.empty((spec.rows + spec.extra_rows, corpus.shape[1]), np.float32)
    vectors[:unmixed] = corpus[:unmixed]
    for start in range(unmixed, len(vectors), _BLOCK):
        block = vectors[start : start + _BLOCK]
        first, second = random.integers(0, len(corpus), (2, len(block)))
        noise = random.standard_normal(block.shape, dtype=np.float32) / np.sqrt(block.shape[1])
        block[:] = corpus[first] + 0.5 * corpus[second] + 0.3 * noise
    texts = []
    for row in range(len(vectors)):
        gloss, suffix = glosses[row % len(glosses)], glosses[(row * 7 + 1) % len(glosses)]
        texts.append((f"{gloss['text']}; {suffix['text']}", gloss["tags"][0], gloss["tags"][-1]))
    return _normalised(vectors), _normalised(queries), texts


def _synthetic(spec: WorksetSpec) -> tuple[Vectors, Vectors, Texts]:
    random = np.random.default_rng(SEED)
    count = spec.rows + spec.extra_rows
    centres = _normalised(random.standard_normal((max(10, spec.rows // 200), spec.dimension), dtype=np.float32))

    def sample(size: int) -> Vectors:
        vectors = np.empty((size, spec.dimension), np.float32)
        for start in range(0, size, _BLOCK):
            block = vectors[start : start + _BLOCK]
            noise = random.standard_normal(block.shape, dtype=np.float32) / np.sqrt(spec.dimension)
            block[:] = centres[random.integers(0, len(centres), len(block))] + 1.2 * noise
        return _normalised(vectors)

    words = random.integers(0, len(_WORDS), (count, CONTENT // 4)).tolist()
    tags = random.integers(0, 200, (count, 2)).tolist()
    texts = [(" ".join(_WORDS[w] for w in words[i]), f"kind-{tags[i][0]}", f"group-{tags[i][1]}") for i in range(count)]
    return sample(count), sample(spec.queries), texts


def _normalised(vectors: Vectors) -> Vectors:
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _closeness(vectors: Vectors, rows: int, queries: Vectors) -> tuple[list[int], list[int]]:
    """Each row's closeness to a group of queries, in `BUCKETS` equal steps from the farthest; and that group.

    The group is at most a tenth of the queries: those nearest to query 0.
    """
    group_size = max(1, min(_ADVERSE_QUERIES, len(queries) // 10))
    group = np.argsort(queries @ queries[0])[::-1][:group_size]
    similarity = vectors @ queries[group].mean(axis=0)
    rank = np.searchsorted(np.sort(similarity[:rows]), similarity)  # ranks extra rows among the rows
    return np.minimum(rank * BUCKETS // rows, BUCKETS - 1).tolist(), group.tolist()


def _write_items(path: Path, texts: Texts, closeness: list[int], rows: int) -> int:
    """Write one line a row, padded to one length; return that length in bytes."""
    random = np.random.default_rng(SEED + 1)

    def permutation() -> Any:  # equally many of each value, both among the rows and among the extra rows
        extra_rows = len(texts) - rows
        return np.concatenate([random.permutation(rows) / rows, random.permutation(extra_rows) / extra_rows])

    buckets, tag_draws = (permutation() * BUCKETS).astype(int), permutation()

    def lines() -> Iterator[bytes]:
        for row, (text, first_tag, second_tag) in enumerate(texts):
            content = f"{row} {text} "
            content = (content * (CONTENT // len(content) + 1))[:CONTENT]
            metadata = {
                "row": row, "source": "chat", "sure": row % 3 > 0,
                "bucket": int(buckets[row]), "closeness": closeness[row],
            }  # fmt: skip
            second_tag = second_tag if second_tag != first_tag else f"{first_tag}-too"
            tags = sorted({first_tag, second_tag, _share_tag(float(tag_draws[row]))})
            yield json.dumps({"content": content, "tags": tags, "metadata": metadata}, ensure_ascii=False).encode()

    line_bytes = max(map(len, lines())) + 1
    with path.open("wb") as file:
        for line in lines():
            file.write(line.ljust(line_bytes - 1) + b"\n")
    return line_bytes


def _share_tag(draw: float) -> str:
    for bound, tag in ((0.001, "one-in-1000"), (0.011, "one-in-100"), (0.111, "one-in-10")):
        if draw < bound:
            return tag
    return "any"
