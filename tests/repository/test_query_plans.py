"""Statements whose cost must not grow with what they do not return."""

import pytest

from memstore import Store
from memstore.database import raw
from memstore.repository import memberships, tags
from memstore.repository.statements import Prepared


async def plan(store: Store, statement: Prepared) -> list[str]:
    """SQLite's plan of *statement*."""
    values = [None] * len(statement.names)
    rows = await store._session.read(
        lambda connection: raw(connection).execute(f"EXPLAIN QUERY PLAN {statement.sql}", values).fetchall()
    )
    return [row[3] for row in rows]


async def test_a_page_of_members_is_a_range_of_the_memberships_of_one_assembly(store: Store) -> None:
    first, second = await plan(store, memberships._PAGE)
    assert first == "SEARCH assembly_member USING PRIMARY KEY (assembly_pk=? AND memory_pk>?)"
    assert second == "SEARCH memory USING INTEGER PRIMARY KEY (rowid=?)"


@pytest.mark.parametrize("statement", [memberships._EXPIRED], ids=["expired members"])
async def test_expired_members_are_found_by_the_expired_memories(store: Store, statement: Prepared) -> None:
    steps = await plan(store, statement)
    assert steps[0] == "SEARCH memory USING COVERING INDEX ix_memory_expires_at (expires_at<?)"
    assert steps[1].startswith("SEARCH assembly_member USING COVERING INDEX")


async def test_emptied_namespaces_are_found_without_a_scan_of_the_history_for_each(store: Store) -> None:
    assert not [step for step in await plan(store, tags._EMPTIED_NAMESPACES) if "journal" in step]
    assert [step for step in await plan(store, tags._NAMESPACES_WITH_HISTORY) if "journal" in step]
