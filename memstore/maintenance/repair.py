"""Repairing a store: what can be computed from the rows is computed again.

Nothing is invented, and no row is deleted except those that refer to a row that does not exist.
"""

from memstore.escaping import library_logger
from memstore.maintenance.check import check
from memstore.models.reports import Finding, RepairReport
from memstore.repository import vectors
from memstore.repository.context import WriteContext
from memstore.repository.record_types import BY_KIND
from memstore.repository.sqlite_only import index_snapshots, integrity
from memstore.session import Autocommit
from memstore.sync import composites

_log = library_logger()

_RECOMPUTED = frozenset({"composite", "checksum", "unusable"})  # kinds of findings of an assembly


async def repair(session: Autocommit) -> RepairReport:
    """Rebuild the index from the rows, and repair the file; see `Store.repair`."""
    findings = await check(session)
    for finding in findings:
        _log.warning("repair found %s", finding)
    orphans, checksums, recomposed = await session.write(lambda context: repair_file(context, findings), batch=True)
    await session.database.call(lambda _: session.follower.drop())
    reindexed = await session.search(lambda _, view: sum(map(view.count, BY_KIND)))
    return RepairReport(
        findings=findings,
        remaining=await check(session),
        reindexed=reindexed,
        recomposed=recomposed,
        checksums=checksums,
        orphans=orphans,
    )


def repair_file(context: WriteContext, findings: list[Finding]) -> tuple[int, int, int]:
    """Repair what *findings* name: rebuild SQLite's indexes, delete orphans, compute checksums and composites.

    Returns:
        The number of deleted orphans, of computed checksums, and of recomputed composites.
    """
    connection = context.connection
    if any(finding.kind == "integrity" for finding in findings):
        integrity.reindex(connection)
    if any(finding.kind == "snapshot" for finding in findings):
        index_snapshots.drop_all(connection)
    orphans = integrity.remove_orphans(connection)
    checksums = sum(integrity.fill_checksums(connection, space) for space in context.spaces.values())
    assemblies = [finding for finding in findings if finding.record_kind == "assembly" and finding.kind in _RECOMPUTED]
    keys = sorted({*integrity.keys(connection, assemblies), *vectors.lagging(connection)})
    composites.recompute(context, keys)
    return orphans, checksums, len(keys)
