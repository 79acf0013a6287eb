"""A text embedder without network, GPU or torch: WordLlama with the weights in its package.

    from memstore.embedders.wordllama import WordLlamaEmbedder

    async with memstore.open("agent.db", embedder=WordLlamaEmbedder()) as store: ...

It needs the extra `wordllama`. The first text loads the model, on the embedder thread of the store.
"""

import importlib.util
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from memstore.errors import EmbedderError

CONFIG = "l2_supercat"
"""The configuration whose weights and tokenizer are in the package."""

DIMENSION = 256
NAME = f"wordllama-{CONFIG.replace('_', '-')}-{DIMENSION}"


class WordLlamaEmbedder:
    """Averages of static word vectors: dimension 256, thousands of texts per second on one core.

    Raises:
        EmbedderError: the package `wordllama` is not installed.
    """

    def __init__(self) -> None:
        if importlib.util.find_spec("wordllama") is None:
            raise EmbedderError("Package wordllama is not installed: run pip install 'memstore[wordllama]'")
        self.name = NAME
        self.dimension = DIMENSION
        self._model: Any = None

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """One vector for each text, float32, shape (len(texts), 256), not normalised.

        A text without a token, such as an empty one, has no vector. Its row is NaN, for which a store raises an error
        under every metric. WordLlama returns zero or NaN, depending on its version.
        """
        if self._model is None:
            self._model = _load()
        rows: npt.NDArray[np.float32] = np.array(self._model.embed(list(texts)), dtype=np.float32)
        rows = rows.reshape(len(texts), DIMENSION)
        rows[~rows.any(axis=1)] = np.nan
        return rows


def _load() -> Any:
    with _unchanged_logging():
        from wordllama import WordLlama  # lazy: an optional extra that takes 0.8 s

    package = Path(importlib.util.find_spec("wordllama").submodule_search_locations[0])  # type: ignore[union-attr,index]
    try:
        # The folder of the package is the cache and downloads are off, so only files of the package are read.
        return WordLlama.load(CONFIG, cache_dir=package, dim=DIMENSION, disable_download=True)
    except FileNotFoundError as error:
        raise EmbedderError(f"The installed wordllama has no weights of {NAME} ({error}): install it again") from error


@contextmanager
def _unchanged_logging() -> Iterator[None]:
    """Restore the root logger, to which the import of wordllama adds a handler and sets the level INFO."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        for handler in [h for h in root.handlers if h not in handlers]:
            root.removeHandler(handler)
        root.setLevel(level)
