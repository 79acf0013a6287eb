"""The lineage of an assembly: its ancestors and descendants through merges."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from sqlalchemy import Connection

from memstore.concurrency import yield_gil
from memstore.errors import NotFoundError
from memstore.models.merging import Lineage, LineageEntry, Merge
from memstore.models.records import Namespace
from memstore.repository import merges, record_keys, records
from memstore.repository.record_types import ASSEMBLY
from memstore.timestamps import EPOCH


class _Relative(NamedTuple):
    """An assembly one merge away from another."""

    key: int
    id: str
    merge: Merge


_Step = Callable[[Sequence[int]], list[_Relative]]
"""From the keys of some assemblies to those that are one merge away."""


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

    def parents(keys: Sequence[int]) -> list[_Relative]:
        return [
            _Relative(source, source_id, stored.merge)
            for stored in merges.into(connection, keys)
            for source, source_id in zip(stored.sources, stored.merge.sources, strict=True)
        ]

    def children(keys: Sequence[int]) -> list[_Relative]:
        return [
            _Relative(stored.target, stored.merge.target, stored.merge) for stored in merges.out_of(connection, keys)
        ]

    return Lineage(
        id=id,
        namespace=path,
        exists=exists,
        ancestors=_walk(connection, key, parents),
        descendants=_walk(connection, key, children),
    )


def _walk(connection: Connection, start: int, step: _Step) -> tuple[LineageEntry, ...]:
    """Everything that *step* leads to from *start*, nearest first, each once: so a damaged file cannot make a loop."""
    visited, frontier, depth = {start}, [start], 0
    relatives: list[tuple[_Relative, int]] = []
    while frontier:
        depth += 1
        level: dict[int, _Relative] = {}
        for relative in step(frontier):
            if relative.key not in visited:
                level.setdefault(relative.key, relative)
        visited.update(level)
        frontier = sorted(level)
        relatives += [(relative, depth) for relative in level.values()]
        yield_gil()
    existing = set(record_keys.existing(connection, ASSEMBLY, [relative.key for relative, _ in relatives]))
    return tuple(
        LineageEntry(id=relative.id, depth=distance, exists=relative.key in existing, merge=relative.merge)
        for relative, distance in relatives
    )
