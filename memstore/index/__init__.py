"""The vector index: a pure function of a committed prefix of the database, held in memory.

* `protocol`: what an index is, and what is always true of one.
* `table`, `places`: the entries in arrays we own; where each key lies.
* `exact`: all compared; `numpy_engine`, `faiss_engine`: by whom; `runtimes`: whether FAISS can be loaded.
* `graph`: FAISS's HNSW over the same memory; `graphed`: an exact index that also has one; `planner`: when it is asked,
  and what is to be done about it; `measuring`: how much it finds; `snapshot`: it as bytes.
* `follower`: keeps the indexes equal to the database by its change log; `loading`: brings them into memory.
* `tending`: builds, folds, measures and stores the graphs, in the background.
* `lock`: the fair readers/writer lock around them.
"""

from memstore.index.protocol import DriftError, Found, Scope
from memstore.sync.follower import Follower, View
from memstore.sync.loader import as_entries
from memstore.sync.maintainer import Tender

__all__ = ["DriftError", "Follower", "Found", "Scope", "Tender", "View", "as_entries"]
