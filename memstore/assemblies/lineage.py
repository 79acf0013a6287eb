"""The lineage of an assembly: its ancestors and descendants through merges."""

from collections.abc import Callable, Sequence

from sqlalchemy import Connection

from memstore.concurrency import yield_gil
from memstore.errors import NotFoundError
from memstore.models.merging import Lineage, LineageEntry, Merge
from memstore.models.records import Namespace
from memstore.repository import merges, records
from memstore.repository.record_types import ASSEMBLY
from memstore.timestamps import EPOCH

_Step = Callable[[Sequence[int]], list[tuple[int, str, Merge]]]
"""From the keys of some assemblies to those one merge away: key, id, the merge."""


def lineage(connection: Connection, path: Namespace, id: str) -> Lineage:
    """What the assembly *id* came of and became: see `Assemblies.lineage`."""
    key = records.key_of(connection, ASSEMBLY, path, id, EPOCH)
    there = key is not None
    if key is None:
        key = merges.named(connection, path, id)
    if key is None:
        raise NotFoundError("assembly", id, path)

    def up(keys: Sequence[int]) -> list[tuple[int, str, Merge]]:
        found = merges.into(connection, keys)
        return [(k, id, s.merge) for s in found for k, id in zip(s.sources, s.merge.sources, strict=True)]

    def down(keys: Sequence[int]) -> list[tuple[int, str, Merge]]:
        return [(found.target, found.merge.target, found.merge) for found in merges.out_of(connection, keys)]

    return Lineage(
        id=id,
        namespace=path,
        exists=there,
        ancestors=_walked(connection, key, up),
        descendants=_walked(connection, key, down),
    )


def _walked(connection: Connection, start: int, step: _Step) -> tuple[LineageEntry, ...]:
    """All that *step* leads to from *start*, nearest first. Each is met once, so that no damage makes it endless."""
    seen, front, depth = {start}, [start], 0
    met: list[tuple[int, str, Merge, int]] = []
    while front:
        depth += 1
        fresh: dict[int, tuple[int, str, Merge, int]] = {}
        for key, id, by in step(front):
            if key not in seen:
                fresh.setdefault(key, (key, id, by, depth))
        seen.update(fresh)
        front = sorted(fresh)
        met += fresh.values()
        yield_gil()
    alive = merges.alive(connection, [key for key, *_ in met])
    return tuple(LineageEntry(id=id, depth=deep, exists=key in alive, merge=by) for key, id, by, deep in met)
