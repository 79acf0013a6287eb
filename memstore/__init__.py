"""memstore: the memory store you embed in a Python app.

Memories, assemblies (groups of memories with a live composite embedding) and tags in one SQLite file, with a FAISS
index that cannot drift from it. Asyncio-native.

    async with memstore.open("agent.db", dimension=384) as store:
        ada = await store.memories.add("Ada prefers green tea", embedding=vector, tags={"preference"})
        hits = await store.memories.search(query, limit=5, tags={"preference"})

Importing it loads no OpenMP runtime and sets no environment variable.
"""

from memstore.actor import acting
from memstore.api.assemblies import Assemblies
from memstore.api.memories import Memories
from memstore.api.open import open
from memstore.api.store import Store, StoreNamespace, Transaction
from memstore.api.tags import Tags
from memstore.config import Durability, Engine, GraphOptions, IndexKind, VectorType
from memstore.database import migrate
from memstore.embedders.bound import Embedder
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
from memstore.forgetting.policies import ForgetPlan, ForgetPolicy, Planned, PrunePolicy, Trashed
from memstore.maintenance.backup import restore, verify
from memstore.models.activation import SyncState
from memstore.models.clustering import Formed, Proposal, Proposals
from memstore.models.explanation import AssemblyExplanation, Exclusion, Explanation
from memstore.models.history import Change
from memstore.models.merging import Kin, Lineage, Merge, MergeCandidate, MergedAssembly
from memstore.models.records import Assembly, Embedding, Memory, Tag
from memstore.models.reports import Finding, Repair, Stats, Verification
from memstore.models.search import Activated, AssemblyHit, Gain, Hit, Hits, Plan
from memstore.schema.tables import include_object
from memstore.search.activation import Activation
from memstore.search.rerank import rerank
from memstore.vectors.space import Metric

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
