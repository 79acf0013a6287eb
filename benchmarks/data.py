"""What every system is given: the same memories and the same queries on every machine."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

SEED = 20_000
CONTENT = 200
"""Characters of a memory's text."""

TAGS = 3
"""Tags of a memory."""

_QUERIES = 500
_WORDS = (
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
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Memories to store and queries to ask.

    Attributes:
        items: mappings with the keyword names of `memories.add`, without ids; each content is unique.
        vectors: float32, shape (rows, dimension): the items' embeddings, which are views of it.
        queries: float32, shape (500, dimension).
    """

    items: list[dict[str, Any]]
    vectors: npt.NDArray[np.float32]
    queries: npt.NDArray[np.float32]


def make(rows: int, dimension: int) -> Data:
    """Random vectors and texts, always the same; tags are drawn from 200 words."""
    random = np.random.default_rng(SEED)
    vectors = random.standard_normal((rows, dimension), dtype=np.float32)
    queries = random.standard_normal((_QUERIES, dimension), dtype=np.float32)
    names = [f"{_WORDS[i % len(_WORDS)]}-{i}" for i in range(200)]
    words = random.integers(0, len(_WORDS), (rows, CONTENT // 4)).tolist()
    carried = random.integers([0, 60, 120], [60, 120, 200], (rows, TAGS)).tolist()
    items: list[dict[str, Any]] = [
        {
            "content": (f"{i} " + " ".join(_WORDS[w] for w in words[i]))[:CONTENT],
            "embedding": vectors[i],
            "tags": [names[t] for t in carried[i]],
            "metadata": {"source": "chat", "turn": i, "speaker": {"name": "Ada", "sure": True}},
        }
        for i in range(rows)
    ]
    return Data(items=items, vectors=vectors, queries=queries)
