"""The lineage of an assembly: its ancestors and descendants through merges."""

from collections.abc import Callable, Iterable, Sequence

from sqlalchemy import Connection

from memstore.concurrency import yield_gil
from memstore.errors import NotFoundError
from memstore.models.merging import Lineage, LineageEntry, Merge
from memstore.models.records import Namespace
from memstore.repository import merges, record_keys, records
from memstore.repository.record_types import ASSEMBLY
from memstore.timestamps import EPOCH

_Relative = tuple[str, Merge]
"""The id of an assembly one merge away from another, and that merge."""

_Step = Callable[[Sequence[int]], Iterable[tuple[int, _Relative]]]
"""From the keys of some assemblies to those that are one merge away, by key."""


def lineage(connection: Connection, path: Namespace, id: str) -> Lineage:
    """The lineage of the assembly *id*: see `Assemblies.lineage`.

    Raises:
        NotFoundError: there is no such assembly, and no merge has it as its target or a source.
    """
    key = records.key_of(connection, ASSEMBLY, path, id, EPOCH)
    exists = key is not None
    if key is None:
        key = merges.last_key_of_id(connection, path, id)
    if key is None:
        raise NotFoundError("assembly", id, path)

    def parents(keys: Sequence[int]) -> Iterable[tuple[int, _Relative]]:
        for stored in merges.into(connection, keys):
            for source, source_id in zip(stored.sources, stored.merge.sources, strict=True):
                yield source, (source_id, stored.merge)

    def children(keys: Sequence[int]) -> Iterable[tuple[int, _Relative]]:
        for stored in merges.out_of(connection, keys):
            yield stored.target, (stored.merge.target, stored.merge)

    return Lineage(
        id=id,
        namespace=path,
        exists=exists,
        ancestors=_walk(connection, key, parents),
        descendants=_walk(connection, key, children),
    )


def _walk(connection: Connection, start: int, step: _Step) -> tuple[LineageEntry, ...]:
    """Everything that *step* leads to from *start*, nearest first, each once: so a damaged file cannot make a loop."""
    levels: list[dict[int, _Relative]] = []
    visited, frontier = {start}, [start]
    while frontier:
        level: dict[int, _Relative] = {}
        for key, relative in step(frontier):
            if key not in visited:
                level.setdefault(key, relative)
        levels.append(level)
        visited.update(level)
        frontier = sorted(level)
        yield_gil()
    existing = set(record_keys.existing(connection, ASSEMBLY, visited))
    return tuple(
        LineageEntry(id=id, depth=depth, exists=key in existing, merge=merge)
        for depth, level in enumerate(levels, 1)
        for key, (id, merge) in level.items()
    )
