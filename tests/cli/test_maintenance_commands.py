"""The commands that maintain a store."""

import asyncio
import json
import sqlite3
from contextlib import closing
from importlib import import_module

import numpy as np

import memstore
from tests.cli.commands import invoke, lines, ok, script


def test_stats_count_the_whole_file(small):
    (result,) = lines(small, "stats --json")
    assert {name: result[name] for name in ("memories", "assemblies", "tags", "namespaces", "dimension")} == {
        "memories": 4,
        "assemblies": 1,
        "tags": 2,
        "namespaces": 2,
        "dimension": 3,
    }
    output = ok(small, "stats")
    assert "2: (root), users/ada" in output
    assert "embedder          none\n" in output


def damage(path):
    """Raw SQL that leaves the first stored vector with a checksum that is another's."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE memory_vector SET checksum = checksum + 1 WHERE rowid = 1")


def test_check_reports_damage_with_exit_code_3_and_repair_lists_what_remains(small):
    damage(small)
    done = invoke(small, "check")
    assert done.exit_code == 3
    assert "checksum" in done.stdout
    assert "memory tea" in done.stdout
    assert "1 finding" in done.stdout
    done = invoke(small, "check --json")
    assert done.exit_code == 3
    result = json.loads(done.stdout)
    assert result["clean"] is False
    assert [(finding["kind"], finding["id"]) for finding in result["findings"]] == [("checksum", "tea")]
    done = invoke(small, "repair")
    assert done.exit_code == 3, "a wrong checksum is damage to what is stored"
    assert "These records are damaged. Delete them" in done.stdout
    ok(small, "add 'green tea' --id tea -e '[1, 0, 0]' --upsert")
    assert ok(small, "check") == "clean\n"


def test_check_builds_the_index_and_compares_it_with_the_rows(small, monkeypatch):
    table = import_module("memstore.index.vector_table").VectorTable
    load = table.load
    monkeypatch.setattr(table, "load", lambda self, entries: load(self, type(entries)(*(e[1:] for e in entries))))
    done = invoke(small, "check --json")
    assert done.exit_code == 3
    assert {finding["kind"] for finding in json.loads(done.stdout)["findings"]} == {"missing"}


def test_check_names_a_record_that_cannot_be_read(small):
    with closing(sqlite3.connect(small)) as connection, connection:
        connection.execute("UPDATE memory_vector SET vector = x'0000000000000000' WHERE rowid = 1")
        connection.execute("PRAGMA ignore_check_constraints=ON")
        connection.execute("UPDATE memory SET metadata = 'no JSON'")
    done = invoke(small, "check --json")
    assert done.exit_code == 3, (done.stderr, done.exception)
    kinds = {(finding["kind"], finding["id"]) for finding in json.loads(done.stdout)["findings"]}
    assert ("wrong_dimension", "tea") in kinds


def test_repair_adds_checksums_that_raw_sql_removed(small):
    with closing(sqlite3.connect(small)) as connection, connection:
        connection.execute("UPDATE memory_vector SET checksum = NULL")
        connection.execute("PRAGMA foreign_keys=OFF")
    (result,) = lines(small, "repair --json")
    assert result["checksums"] == 4
    assert result["remaining"] == []
    output = ok(small, "repair")
    assert "reindexed" in output
    assert output.endswith("clean\n")


def test_compact_returns_the_space_of_deleted_records(small):
    async def fill(store):
        await store.memories.add_many([{"content": "x" * 2000, "embedding": [1, 2, i]} for i in range(500)])
        await store.memories.delete_many(where={"content": {"$startswith": "xx"}})

    script(fill, small)
    before = small.stat().st_size
    (result,) = lines(small, "compact --json")
    assert result["freed"] > 500_000
    assert small.stat().st_size == before - result["freed"]


def test_migrate_does_not_change_a_current_file(small):
    content, revision = small.read_bytes(), lines(small, "stats --json")[0]["revision"]
    assert "is up to date" in ok(small, "migrate")
    assert lines(small, "migrate --json") == [{"before": revision, "after": revision}]
    assert small.read_bytes() == content


def test_optimize_prints_why_searches_stay_exact(small):
    assert ok(small, "optimize").startswith("searches are exact: fewer than ")
    (result,) = lines(small, "optimize --json")
    assert (result["index"], result["graph_nodes"], result["snapshot_bytes"]) == ("exact", 0, 0)


def test_optimize_builds_the_graph_and_stores_it(tmp_path):
    path = tmp_path / "large.db"

    async def fill():
        rows = np.random.default_rng(1).standard_normal((300, 8)).tolist()
        async with memstore.open(path, dimension=8, index="graph") as store:
            await store.memories.add_many([{"content": str(i), "embedding": row} for i, row in enumerate(rows)])

    asyncio.run(fill())
    result = ok(path, "optimize")
    assert result.startswith("the graph has 300 vectors and takes ")
    assert "recall of the nearest ten: " in result
    assert "search graph" in ok(path, "stats")
    assert lines(path, "stats --json")[0]["snapshot_bytes"] > 300 * 100
