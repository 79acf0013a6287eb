"""The phases, in the order in which they run. Each is a function of the bench, and records what it finds."""

from collections.abc import Callable

from benchmarks.bench import Bench
from benchmarks.phases import adding, asking, bulk, changing, memory, opening, stalls

PHASES: dict[str, Callable[[Bench], None]] = {
    "bulk": bulk.run,
    "add": adding.run,
    "concurrent": adding.together,
    "search": asking.run,
    "tail": asking.tail,
    "filters": asking.filters,
    "many": asking.many,
    "open": opening.run,
    "change": changing.run,
    "gaps": stalls.run,
    "memory": memory.run,
}
