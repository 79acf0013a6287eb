"""The frozen records that callers receive.

They compare by all fields and hold no connection.
May import `errors`, `concurrency` and `vectors`.
"""

from memstore.models.activation import SyncState
from memstore.models.clustering import AssemblySuggestion, AssemblySuggestions, ClusterResult
from memstore.models.explanation import AssemblyExplanation, Exclusion, Explanation
from memstore.models.forgetting import Criterion, ForgetCandidate, TrashEntry
from memstore.models.history import Change
from memstore.models.items import AssemblyItem, MemoryItem
from memstore.models.merging import Lineage, LineageEntry, Merge, MergeCandidate, MergedAssembly
from memstore.models.records import Assembly, Embedding, EmbeddingLike, Json, Memory, Namespace, Tag
from memstore.models.reports import EraseReport, Finding, RepairReport, Stats, VerifyReport
from memstore.models.results import AddOutcome, AddResult, Page
from memstore.models.search import ActivatedAssembly, AssemblyHit, Hit, Hits, NearestAssembly, ScoreBoost, SearchPlan
from memstore.models.vectors import Vectors

__all__ = [
    "ActivatedAssembly",
    "AddOutcome",
    "AddResult",
    "Assembly",
    "AssemblyExplanation",
    "AssemblyHit",
    "AssemblyItem",
    "AssemblySuggestion",
    "AssemblySuggestions",
    "Change",
    "ClusterResult",
    "Criterion",
    "Embedding",
    "EmbeddingLike",
    "EraseReport",
    "Exclusion",
    "Explanation",
    "Finding",
    "ForgetCandidate",
    "Hit",
    "Hits",
    "Json",
    "Lineage",
    "LineageEntry",
    "Memory",
    "MemoryItem",
    "Merge",
    "MergeCandidate",
    "MergedAssembly",
    "Namespace",
    "NearestAssembly",
    "Page",
    "RepairReport",
    "ScoreBoost",
    "SearchPlan",
    "Stats",
    "SyncState",
    "Tag",
    "TrashEntry",
    "Vectors",
    "VerifyReport",
]
