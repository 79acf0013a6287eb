"""memstore: the memory store you embed in a Python app.

Memories, assemblies (groups of memories with a live composite embedding) and tags in one SQLite file, with a FAISS
index that cannot drift from it. Asyncio-native.

    async with memstore.open("agent.db", dimension=384) as store:
        ada = await store.memories.add("Ada prefers green tea", embedding=vector, tags={"preference"})
        hits = await store.memories.search(query, limit=5, tags={"preference"})

Records that only some verbs return are in `memstore.models`. The first use of a name imports the parts of the package;
`import memstore` alone is quick. Neither loads an OpenMP runtime or sets an environment variable.
"""

from importlib import import_module
from importlib.util import find_spec

TYPE_CHECKING = False  # as in typing, which takes longer to import than this module
if TYPE_CHECKING:
    from memstore.api.exports import *

__version__ = "0.1.0"

__all__ = [
    "Assemblies",
    "Assembly",
    "AssemblyBoost",
    "AssemblyForgetPolicy",
    "AssemblyHit",
    "BusyError",
    "Change",
    "ClosedError",
    "CommitUnknownError",
    "ConflictError",
    "DamagedError",
    "DimensionError",
    "DuplicateError",
    "Embedder",
    "EmbedderError",
    "Embedding",
    "EmbeddingError",
    "EngineError",
    "EventLoopError",
    "Explanation",
    "FilterError",
    "ForeignFileError",
    "ForgetPlan",
    "ForgetPolicy",
    "ForkedStoreError",
    "GraphOptions",
    "HistoryError",
    "Hit",
    "Hits",
    "IndexOptions",
    "InvalidError",
    "LoadError",
    "Memories",
    "Memory",
    "MemstoreError",
    "Merge",
    "Metric",
    "MissingFileError",
    "NewerFileError",
    "NotFoundError",
    "OpenError",
    "ReadOnlyError",
    "SettingsMismatchError",
    "StalePlanError",
    "StorageError",
    "Store",
    "StoreNamespace",
    "StoreReplacedError",
    "Tag",
    "Tags",
    "Transaction",
    "TransactionError",
    "UsageError",
    "as_actor",
    "include_object",
    "migrate",
    "open",
    "rerank",
    "restore_backup",
    "verify",
]

if not TYPE_CHECKING:  # a type checker would accept every name

    def __getattr__(name: str) -> object:
        """The public name *name*, or a part of the package, such as `memstore.models`."""
        if name in __all__:
            exports = import_module("memstore.api.exports")  # another thread that imports it is waited for
            globals()[name] = getattr(exports, name)
            return globals()[name]
        # Not by `exports`: a module of the package may be imported first, and import a part that `exports` needs.
        if not name.startswith("_") and find_spec(f"memstore.{name}") is not None:
            return import_module(f"memstore.{name}")
        raise AttributeError(f"module 'memstore' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
