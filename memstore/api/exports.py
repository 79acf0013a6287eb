"""The public names of `memstore`, each from the module that owns it.

`memstore` imports this module at the first use of a name, so that what needs none of them, such as `memstore --help`,
starts without SQLAlchemy and NumPy.
"""

from memstore.actor import as_actor as as_actor
from memstore.api.assemblies import Assemblies as Assemblies
from memstore.api.memories import Memories as Memories
from memstore.api.namespace import StoreNamespace as StoreNamespace
from memstore.api.namespace import Transaction as Transaction
from memstore.api.open import open as open
from memstore.api.store import Store as Store
from memstore.api.tags import Tags as Tags
from memstore.config import GraphOptions as GraphOptions
from memstore.config import IndexOptions as IndexOptions
from memstore.database import migrate as migrate
from memstore.embedders.bound import Embedder as Embedder
from memstore.errors import (
    BusyError as BusyError,
)
from memstore.errors import (
    ClosedError as ClosedError,
)
from memstore.errors import (
    CommitUnknownError as CommitUnknownError,
)
from memstore.errors import (
    ConflictError as ConflictError,
)
from memstore.errors import (
    DamagedError as DamagedError,
)
from memstore.errors import (
    DimensionError as DimensionError,
)
from memstore.errors import (
    DuplicateError as DuplicateError,
)
from memstore.errors import (
    EmbedderError as EmbedderError,
)
from memstore.errors import (
    EmbeddingError as EmbeddingError,
)
from memstore.errors import (
    EngineError as EngineError,
)
from memstore.errors import (
    EventLoopError as EventLoopError,
)
from memstore.errors import (
    FilterError as FilterError,
)
from memstore.errors import (
    ForeignFileError as ForeignFileError,
)
from memstore.errors import (
    ForkedStoreError as ForkedStoreError,
)
from memstore.errors import (
    HistoryError as HistoryError,
)
from memstore.errors import (
    InvalidError as InvalidError,
)
from memstore.errors import (
    LoadError as LoadError,
)
from memstore.errors import (
    MemstoreError as MemstoreError,
)
from memstore.errors import (
    MissingFileError as MissingFileError,
)
from memstore.errors import (
    NewerFileError as NewerFileError,
)
from memstore.errors import (
    NotFoundError as NotFoundError,
)
from memstore.errors import (
    OpenError as OpenError,
)
from memstore.errors import (
    ReadOnlyError as ReadOnlyError,
)
from memstore.errors import (
    SettingsMismatchError as SettingsMismatchError,
)
from memstore.errors import (
    StalePlanError as StalePlanError,
)
from memstore.errors import (
    StorageError as StorageError,
)
from memstore.errors import (
    StoreReplacedError as StoreReplacedError,
)
from memstore.errors import (
    TransactionError as TransactionError,
)
from memstore.errors import (
    UsageError as UsageError,
)
from memstore.forgetting.policies import (
    AssemblyForgetPolicy as AssemblyForgetPolicy,
)
from memstore.forgetting.policies import (
    ForgetPlan as ForgetPlan,
)
from memstore.forgetting.policies import (
    ForgetPolicy as ForgetPolicy,
)
from memstore.maintenance.backup import restore_backup as restore_backup
from memstore.maintenance.verify import verify as verify
from memstore.models.explanation import Explanation as Explanation
from memstore.models.history import Change as Change
from memstore.models.merging import Merge as Merge
from memstore.models.records import Assembly as Assembly
from memstore.models.records import Embedding as Embedding
from memstore.models.records import Memory as Memory
from memstore.models.records import Tag as Tag
from memstore.models.search import AssemblyHit as AssemblyHit
from memstore.models.search import Hit as Hit
from memstore.models.search import Hits as Hits
from memstore.schema.tables import include_object as include_object
from memstore.search.activation import AssemblyBoost as AssemblyBoost
from memstore.search.rerank import rerank as rerank
from memstore.vectors.space import Metric as Metric
