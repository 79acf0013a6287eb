"""The phases, in the order in which they run. Each is a function of the bench that adds records to it.

`memory` comes first because it leaves filled stores, which later phases reuse.
"""

from collections.abc import Callable

from benchmarks.bench import Bench
from benchmarks.phases import resources, searches, writes

PHASES: dict[str, Callable[[Bench], None]] = {
    "memory": resources.memory,
    "bulk": writes.bulk,
    "add": writes.add,
    "concurrent": writes.concurrent,
    "change": writes.change,
    "search": searches.search,
    "unindexed": searches.unindexed,
    "filters": searches.filters,
    "many": searches.many,
    "open": resources.open_store,
    "gaps": resources.gaps,
}
