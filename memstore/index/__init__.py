"""The vector index: a pure function of a committed prefix of the database, held in memory.

* `protocol`: what an index is, and what is always true of one.
* `exact`, `places`: the vectors in arrays we own, compared one by one; where each key lies.
* `numpy_engine`, `faiss_engine`: who computes the nearest; `runtimes`: whether FAISS can be loaded safely.
* `follower`: keeps the indexes equal to the database by its change log.
* `lock`: the fair readers/writer lock around them.
"""

from memstore.index.follower import Follower, View
from memstore.index.loading import as_entries
from memstore.index.protocol import DriftError, Found, Scope
from memstore.index.tending import Tender

__all__ = ["DriftError", "Follower", "Found", "Scope", "Tender", "View", "as_entries"]
