"""memstore: the memory store you embed in a Python app.

Memories, assemblies (groups of memories with a live composite embedding) and tags in one SQLite file, with a FAISS
index that cannot drift from it. Asyncio-native.

    async with memstore.open("agent.db", dimension=384) as store:
        ada = await store.memories.add("Ada prefers green tea", embedding=vector, tags={"preference"})
        hits = await store.memories.search(query, limit=5, tags={"preference"})

Importing it loads no OpenMP runtime and sets no environment variable.
"""

from memstore.acting import acting
from memstore.assemblies import Assemblies
from memstore.backups import restore, verify
from memstore.changes import Change
from memstore.database import migrate
from memstore.embedder import Embedder
from memstore.errors import (
    BusyError,
    ClosedError,
    CommitUnknownError,
    DamagedError,
    DimensionError,
    DuplicateError,
    EmbedderError,
    EmbeddingError,
    EngineError,
    EventLoopError,
    FilterError,
    ForeignFileError,
    ForkedStoreError,
    HistoryError,
    InvalidError,
    LoadError,
    MemstoreError,
    MissingFileError,
    NewerFileError,
    NotFoundError,
    OpenError,
    ReadOnlyError,
    SettingsMismatchError,
    StorageError,
    StoreReplacedError,
    TransactionError,
    UndoError,
    UsageError,
)
from memstore.memories import Memories
from memstore.opening import open
from memstore.records import (
    Assembly,
    AssemblyHit,
    Embedding,
    Finding,
    Hit,
    Hits,
    Memory,
    Plan,
    Repair,
    Stats,
    Tag,
    Verification,
)
from memstore.schema import include_object
from memstore.settings import Durability, Engine, GraphOptions, IndexKind, Metric, VectorType
from memstore.store import Store, StoreNamespace, Transaction
from memstore.tags import Tags

__version__ = "0.1.0"

__all__ = [
    "Assemblies",
    "Assembly",
    "AssemblyHit",
    "BusyError",
    "Change",
    "ClosedError",
    "CommitUnknownError",
    "DamagedError",
    "DimensionError",
    "DuplicateError",
    "Durability",
    "Embedder",
    "EmbedderError",
    "Embedding",
    "EmbeddingError",
    "Engine",
    "EngineError",
    "EventLoopError",
    "FilterError",
    "Finding",
    "ForeignFileError",
    "ForkedStoreError",
    "GraphOptions",
    "HistoryError",
    "Hit",
    "Hits",
    "IndexKind",
    "InvalidError",
    "LoadError",
    "Memories",
    "Memory",
    "MemstoreError",
    "Metric",
    "MissingFileError",
    "NewerFileError",
    "NotFoundError",
    "OpenError",
    "Plan",
    "ReadOnlyError",
    "Repair",
    "SettingsMismatchError",
    "Stats",
    "StorageError",
    "Store",
    "StoreNamespace",
    "StoreReplacedError",
    "Tag",
    "Tags",
    "Transaction",
    "TransactionError",
    "UndoError",
    "UsageError",
    "VectorType",
    "Verification",
    "acting",
    "include_object",
    "migrate",
    "open",
    "restore",
    "verify",
]
