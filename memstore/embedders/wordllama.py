"""An embedder for texts that needs no network, no GPU and no torch: WordLlama with the weights its package carries.

    from memstore.integrations.wordllama import WordLlamaEmbedder

    async with memstore.open("agent.db", embedder=WordLlamaEmbedder()) as store: ...

Needs the extra `wordllama`. The model is loaded at the first text, on the store's embedder thread.
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
"""The one configuration whose weights and tokenizer are inside the package."""

DIMENSION = 256
NAME = f"wordllama-{CONFIG.replace('_', '-')}-{DIMENSION}"


class WordLlamaEmbedder:
    """Static word vectors, averaged over a text: 256 numbers, thousands of texts a second on one core.

    Raises:
        EmbedderError: the package `wordllama` is not installed.
    """

    def __init__(self) -> None:
        if importlib.util.find_spec("wordllama") is None:
            raise EmbedderError("turning text into vectors needs wordllama: pip install 'memstore[wordllama]'")
        self.name = NAME
        self.dimension = DIMENSION
        self._model: Any = None

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """One vector a text, float32, shape (len(texts), 256), not normalised.

        A text without a token, such as the empty one, has no vector: its row is NaN, which a store refuses under
        every metric, naming the text. WordLlama's own answer is zero or NaN, by its version.
        """
        if self._model is None:
            self._model = _load()
        made: npt.NDArray[np.float32] = np.array(self._model.embed(list(texts)), dtype=np.float32)
        made = made.reshape(len(texts), DIMENSION)
        made[~made.any(axis=1)] = np.nan
        return made


def _load() -> Any:
    with _logging_kept():
        from wordllama import WordLlama  # an optional extra, and 0.8 s: imported at the first text

    package = Path(importlib.util.find_spec("wordllama").submodule_search_locations[0])  # type: ignore[union-attr,index]
    try:
        # With the package's own folder for a cache and no downloads nothing but the package's own files is read.
        return WordLlama.load(CONFIG, cache_dir=package, dim=DIMENSION, disable_download=True)
    except FileNotFoundError as error:
        raise EmbedderError(
            f"the installed wordllama does not carry the weights of {NAME} ({error}): install it again"
        ) from error


@contextmanager
def _logging_kept() -> Iterator[None]:
    """Undo what importing wordllama does to the root logger: a handler on stderr, and the level INFO."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        for handler in [h for h in root.handlers if h not in handlers]:
            root.removeHandler(handler)
        root.setLevel(level)
