"""memstore: the memory store you embed in a Python app.

Memories, assemblies (groups of memories with a live composite embedding) and tags in one SQLite file, with a FAISS
index that cannot drift from it. Asyncio-native.

    async with memstore.open("agent.db", dimension=384) as store:
        ada = await store.memories.add("Ada prefers green tea", embedding=vector, tags={"preference"})
        hits = await store.memories.search(query, limit=5, tags={"preference"})

Importing it loads no OpenMP runtime and sets no environment variable.
"""

from memstore.acting import acting
from memstore.activation import Activation, SyncState
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
    StalePlanError,
    StorageError,
    StoreReplacedError,
    TransactionError,
    UndoError,
    UnmergeError,
    UsageError,
)
from memstore.explaining import AssemblyExplanation, Exclusion, Explanation
from memstore.groups import (
    Formed,
    Kin,
    Lineage,
    Merge,
    MergeCandidate,
    MergedAssembly,
    Proposal,
    Proposals,
)
from memstore.hits import Activated, AssemblyHit, Gain, Hit, Hits, Plan
from memstore.memories import Memories
from memstore.opening import open
from memstore.policies import ForgetPlan, ForgetPolicy, Planned, PrunePolicy, Trashed
from memstore.records import (
    Assembly,
    Embedding,
    Finding,
    Memory,
    Repair,
    Stats,
    Tag,
    Verification,
)
from memstore.reranking import rerank
from memstore.schema import include_object
from memstore.settings import Durability, Engine, GraphOptions, IndexKind, Metric, VectorType
from memstore.store import Store, StoreNamespace, Transaction
from memstore.tags import Tags

__version__ = "0.1.0"

__all__ = [
    "Activated",
    "Activation",
    "Assemblies",
    "Assembly",
    "AssemblyExplanation",
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
    "Exclusion",
    "Explanation",
    "FilterError",
    "Finding",
    "ForeignFileError",
    "ForgetPlan",
    "ForgetPolicy",
    "ForkedStoreError",
    "Formed",
    "Gain",
    "GraphOptions",
    "HistoryError",
    "Hit",
    "Hits",
    "IndexKind",
    "InvalidError",
    "Kin",
    "Lineage",
    "LoadError",
    "Memories",
    "Memory",
    "MemstoreError",
    "Merge",
    "MergeCandidate",
    "MergedAssembly",
    "Metric",
    "MissingFileError",
    "NewerFileError",
    "NotFoundError",
    "OpenError",
    "Plan",
    "Planned",
    "Proposal",
    "Proposals",
    "PrunePolicy",
    "ReadOnlyError",
    "Repair",
    "SettingsMismatchError",
    "StalePlanError",
    "Stats",
    "StorageError",
    "Store",
    "StoreNamespace",
    "StoreReplacedError",
    "SyncState",
    "Tag",
    "Tags",
    "Transaction",
    "TransactionError",
    "Trashed",
    "UndoError",
    "UnmergeError",
    "UsageError",
    "VectorType",
    "Verification",
    "acting",
    "include_object",
    "migrate",
    "open",
    "rerank",
    "restore",
    "verify",
]
