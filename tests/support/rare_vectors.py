"""Vectors that a search graph easily loses: rare, copied, long, and queries of another distribution."""

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]


def unit(rows: npt.NDArray[np.floating]) -> Rows:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def texts_of_few_words(
    rng: np.random.Generator, count: int, dimension: int, *, words: int = 30, length: int = 8
) -> Rows:
    """Sums of word vectors, as texts about one field have them: all are fairly near each other."""
    vocabulary = np.random.default_rng(7).standard_normal((words, dimension))
    return unit(vocabulary[rng.integers(0, words, (count, length))].sum(axis=1))


def rare(rng: np.random.Generator, count: int, dimension: int) -> tuple[Rows, Rows]:
    """Vectors far from all others, and a query beside each, at a cosine of about 0.85."""
    rows = unit(rng.standard_normal((count, dimension)))
    return rows, unit(rows + 0.6 * unit(rng.standard_normal((count, dimension))))


def long_and_short(rng: np.random.Generator, count: int, dimension: int, clusters: int = 40) -> tuple[Rows, Rows]:
    """Vectors around some centres, of very different lengths, and queries around the same centres."""
    centres = rng.standard_normal((clusters, dimension))
    rows = centres[rng.integers(0, clusters, count)] + 0.5 * rng.standard_normal((count, dimension))
    lengths = np.exp(0.5 * rng.standard_normal((count, 1)))
    queries = centres[rng.integers(0, clusters, 60)] + 0.5 * rng.standard_normal((60, dimension))
    return (unit(rows) * lengths).astype(np.float32), queries.astype(np.float32)


def of_two_towers(rng: np.random.Generator, count: int, dimension: int) -> tuple[Rows, Rows]:
    """Vectors near a subspace of 12 dimensions, and queries orthogonal to it, as two encoders can make them."""
    basis = rng.standard_normal((12, dimension))
    rows = rng.standard_normal((count, 12)) @ basis + 0.15 * rng.standard_normal((count, dimension))
    complement = np.linalg.svd(basis)[2][12:]
    return unit(rows), unit(rng.standard_normal((200, dimension - 12)) @ complement)


def recall(ids: list[list[str]], scores: npt.NDArray[np.float64], limit: int) -> float:
    """The share of the *limit* highest of *scores*, shape (queries, rows), among the rows *ids*; ties count."""
    shares = []
    for hit_ids, values in zip(ids, scores, strict=True):
        worst = np.partition(values, -limit)[-limit]
        shares.append(sum(values[int(id)] >= worst - 1e-6 for id in hit_ids[:limit]) / limit)
    return float(np.mean(shares))
