"""memstore: the memory store you embed in a Python app.

Memories, assemblies (groups of memories with a live composite embedding) and tags in one SQLite file, with a FAISS
index that cannot drift from it. Asyncio-native.

    async with memstore.open("agent.db", dimension=384) as store:
        ada = await store.memories.add("Ada prefers green tea", embedding=vector, tags={"preference"})
        hits = await store.memories.search(query, limit=5, tags={"preference"})

Records that only some verbs return are in `memstore.models`. Importing the package loads no OpenMP runtime and sets no
environment variable.
"""

from memstore.actor import as_actor
from memstore.api.assemblies import Assemblies
from memstore.api.memories import Memories
from memstore.api.namespace import StoreNamespace, Transaction
from memstore.api.open import open
from memstore.api.store import Store
from memstore.api.tags import Tags
from memstore.config import GraphOptions, IndexOptions
from memstore.database import migrate
from memstore.embedders.bound import Embedder
from memstore.errors import (
    BusyError,
    ClosedError,
    CommitUnknownError,
    ConflictError,
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
    StalePlanError,
    StorageError,
    StoreReplacedError,
    TransactionError,
    UsageError,
)
from memstore.forgetting.policies import AssemblyForgetPolicy, ForgetPlan, ForgetPolicy
from memstore.maintenance.backup import restore_backup
from memstore.maintenance.verify import verify
from memstore.models.explanation import Explanation
from memstore.models.history import Change
from memstore.models.merging import Merge
from memstore.models.records import Assembly, Embedding, Memory, Tag
from memstore.models.search import AssemblyHit, Hit, Hits
from memstore.schema.tables import include_object
from memstore.search.activation import AssemblyBoost
from memstore.search.rerank import rerank
from memstore.vectors.space import Metric

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
