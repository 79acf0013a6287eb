"""The choice between NumPy and FAISS, made when the number of vectors is known."""

from memstore.config import EngineName, IndexSettings
from memstore.errors import EngineError
from memstore.escaping import library_logger
from memstore.index.faiss_engine import FaissEngine
from memstore.index.numpy_engine import NumpyEngine
from memstore.index.openmp import faiss_bundles_libomp
from memstore.index.protocol import Engine

FAISS_FROM = 5_000
"""Vectors from which on FAISS saves more time than its import costs; below, NumPy answers in 0.3 ms."""

_log = library_logger()


class EngineSelector:
    """Holds the engine of a store: NumPy at first, FAISS once it is requested or pays.

    Attributes:
        engine: the engine in use.
        reason: why it is in use, for `Stats.engine_reason`.
    """

    def __init__(self, requested: EngineName, options: IndexSettings) -> None:
        self.engine: Engine = NumpyEngine()
        self.reason = "no search yet" if requested == "auto" else "requested"
        self._requested: EngineName = requested
        self._graph_requested = options.kind == "graph"

    def select(self, vectors: int) -> bool:
        """Load FAISS if this number of *vectors* justifies it; True if it was loaded now.

        The import takes a third of a second: call it on a thread, and in no write.

        Raises:
            EngineError: FAISS is requested and cannot be loaded.
        """
        if self.engine.name == "faiss" or self._requested == "numpy":
            return False
        if self._requested == "faiss":
            self.engine = FaissEngine.load()
            return True
        if vectors < FAISS_FROM and not self._graph_requested:
            self.reason = f"fewer than {FAISS_FROM:,} vectors: NumPy is as fast"
            return False
        if faiss_bundles_libomp():
            self.reason = "FAISS bundles an OpenMP runtime on this platform: request it with engine='faiss'"
            return False
        return self._load_faiss()

    def _load_faiss(self) -> bool:
        try:
            self.engine = FaissEngine.load()
        except EngineError as error:
            self._requested = "numpy"  # the import is not tried again
            self.reason = str(error)
            _log.warning("searching with NumPy: %s", error)
            return False
        self.reason = "the graph needs it" if self._graph_requested else f"{FAISS_FROM:,} vectors or more"
        return True
