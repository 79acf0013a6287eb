"""Malicious files lead to results or memstore errors, within limits of time and memory.

A process with these limits opens each (`tests.reliability.fuzz_files`). No code in a file can run: nothing is
unpickled, evaluated or loaded. `MEMSTORE_FILES` sets the number of files.
"""

# ruff: noqa: E501 - statements read better on one line

import ast
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import memstore
from memstore import DamagedError, ForeignFileError
from tests.reliability import cases, seeds
from tests.reliability.fuzz_files import ROOT, Opener, make_store, run, unguarded

pytestmark = pytest.mark.timeout(400)
FILES = cases("FILES", 12)

ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "whole.db"
    make_store(path)
    return path


@pytest.fixture(scope="module")
def opener() -> Iterator[Opener]:
    with Opener() as opened:
        yield opened


@pytest.fixture
def file(original: Path, path: Path) -> Path:
    """A copy of a store with a graph, to be changed."""
    return Path(shutil.copy(original, path))


def execute(file: Path, *statements: str) -> None:
    with unguarded(file) as connection:
        for statement in statements:
            connection.execute(statement)


# Schemas that would run during a write or a read: `open` refuses them.
STRANGE = {
    "an endless trigger on every commit": [f"CREATE TRIGGER boom AFTER UPDATE ON store_meta BEGIN {ENDLESS}; END"],
    "an endless trigger on a memory": [f"CREATE TRIGGER boom BEFORE INSERT ON Memory BEGIN {ENDLESS}; END"],
    "a trigger that selects from an endless view": [f"CREATE VIEW v AS {ENDLESS}", "CREATE TRIGGER boom AFTER UPDATE ON store_meta BEGIN DELETE FROM tag WHERE pk IN (SELECT * FROM v); END"],
    "a trigger of ours that is another": ["DROP TRIGGER tr_memory_delete", f"CREATE TRIGGER tr_memory_delete AFTER DELETE ON memory BEGIN {ENDLESS}; END"],
    "a trigger of ours that is missing": ["DROP TRIGGER tr_memory_vector_insert"],
    "an endless view for a table": ["DROP TABLE vector_space", f"CREATE VIEW vector_space AS {ENDLESS}"],
    "a view for the version": ["CREATE VIEW v AS SELECT 1", "UPDATE sqlite_master SET name = 'memory', tbl_name = 'memory' WHERE name = 'v'"],
    "a virtual table": ["DROP TABLE tag", "CREATE VIRTUAL TABLE tag USING fts5(pk, namespace_pk, name)"],
    "a computed column": ["ALTER TABLE memory ADD COLUMN bomb AS (hex(zeroblob(100000000)))"],
    "a column less": ["ALTER TABLE memory DROP COLUMN accessed_at"],
    "no table at all": ["DROP TABLE index_snapshot"],
}  # fmt: skip


@pytest.mark.parametrize("case", STRANGE)
def test_a_schema_that_is_not_ours_is_refused_before_anything_in_it_runs(opener: Opener, file: Path, case: str) -> None:
    execute(file, *STRANGE[case])
    answer = opener.open(file)
    assert [line.partition(": ")[2].partition(":")[0] for line in answer["errors"]] == ["DamagedError"] * 3, answer


async def test_tables_and_triggers_of_a_host_are_the_host_s(file: Path) -> None:
    execute(file, "CREATE TABLE hosts (a)", "CREATE TRIGGER theirs AFTER INSERT ON hosts BEGIN DELETE FROM hosts; END", "CREATE VIEW seen AS SELECT id FROM memory", "CREATE TRIGGER also AFTER INSERT ON memory BEGIN INSERT INTO hosts VALUES (NEW.pk); END")  # fmt: skip
    async with memstore.open(file) as store:
        await store.memories.add("x", id="new")
        assert await store.check() == []


CHANGES = {
    "no row of store_meta": ["DELETE FROM store_meta"],
    "no spaces": ["DELETE FROM vector_space"],
    "a space less": ["DELETE FROM vector_space WHERE kind = 'assembly'"],
    "a space more": ["INSERT INTO vector_space (kind, name, dimension, metric) VALUES ('memory', 'other', 9, 'l2')"],
    "a space of another kind": ["UPDATE vector_space SET kind = 'x' WHERE kind = 'memory'"],
    "spaces that differ": ["UPDATE vector_space SET dimension = 5 WHERE kind = 'memory'"],
    **{f"dimension {value}": [f"UPDATE vector_space SET dimension = {value}"] for value in ("0", "-1", "65537", "2147483648", "9223372036854775807", "'x'", "1.5", "x'00'")},
    **{f"metric {value}": [f"UPDATE vector_space SET metric = {value}"] for value in ("'hamming'", "5", "x'00'")},
    "another dimension": ["UPDATE vector_space SET dimension = 65536"],
    **{f"sqlite_sequence {value}": [f"UPDATE sqlite_sequence SET seq = {value}"] for value in ("-1", "0", "9223372036854775807", "'x'", "NULL", "1.5", "x'00'")},
    "no sqlite_sequence": ["DELETE FROM sqlite_sequence"],
    "two in sqlite_sequence": ["INSERT INTO sqlite_sequence SELECT name, 5 FROM sqlite_sequence"],
    "the last change of all": ["INSERT INTO change_log VALUES (9223372036854775807, 1, 1)"],
    "changes of nothing": ["INSERT INTO change_log (space_pk, pk) VALUES (99, 'x'), (1, x'00'), (1, -5), ('x', 1e300)"],
    **{f"log_floor {value}": [f"UPDATE store_meta SET log_floor = {value}"] for value in ("-1", "9223372036854775807", "'x'")},
    **{f"epoch {value}": [f"UPDATE store_meta SET epoch = {value}"] for value in ("5", "x'00'", "''")},
    **{f"path {value}": [f"UPDATE namespace SET path = {value} WHERE path = ''"] for value in ("'abc'", "'~'", "x'2f'", "5", "'/////'")},
    **{f"{column} {value}": [f"UPDATE memory SET {column} = {value}"] for column in ("created_at", "updated_at", "expires_at", "accessed_at") for value in ("9223372036854775807", "-9223372036854775808", "'x'", "x'00'", "1e300")},
    **{f"importance {value}": [f"UPDATE memory SET importance = {value}"] for value in ("'nan'", "9e999", "x'00'", "-5")},
    **{f"metadata {name}": [f"UPDATE memory SET metadata = {value}"] for name, value in {"deep": f"'{'[' * 50_000}'", "deep object": f"""'{'{"a":' * 900}1{"}" * 900}'""", "list": "'[]'", "blob": "x'00'", "number": "5", "cut": "'{'", "NaN": """'{"a":NaN}'""", "huge": """'{"a":1e999}'""", "long": "'{\"a\":' || printf('%.*c', 5000, '9') || '}'"}.items()},
    **{f"{table}.{column} {name}": [f"UPDATE {table} SET {column} = {value}"] for table, column in (("memory", "id"), ("memory", "content"), ("assembly", "name"), ("assembly", "topics"), ("tag", "name")) for name, value in {"blob": "CAST(pk AS BLOB)", "no UTF-8": "CAST(x'ff00fe' || pk AS TEXT)"}.items()},
    **{f"vector {name}": [f"UPDATE {table} SET vector = {value}" for table in ("memory_vector", "assembly_vector")] for name, value in {"text": "'0123456789abcdef'", "none": "x''", "long": "zeroblob(2000)", "NaN": "x'0000c07f0000c07f0000c07f0000c07f'", "number": "5", "short": "zeroblob(12)"}.items()},
    **{f"sum {name}": [f"UPDATE assembly_vector SET sum = {value}"] for name, value in {"text": "'x'", "short": "x'00'", "number": "5", "NaN": "x'000000000000f87f000000000000f87f000000000000f87f000000000000f87f'"}.items()},
    "a vector of 200 MB": ["UPDATE memory_vector SET vector = zeroblob(200000000) WHERE memory_pk = 3"],
    "members of nothing": ["INSERT INTO assembly_member SELECT pk, 99999 FROM assembly", "UPDATE memory_vector SET memory_pk = -memory_pk"],
    **{f"an owner that is {value}": [f"UPDATE OR IGNORE memory_vector SET memory_pk = {value}, vector = x'00'", f"UPDATE OR IGNORE assembly_vector SET assembly_pk = {value}", "UPDATE assembly SET revision = revision + 1"] for value in ("'x'", "x'00'", "1.5")},
    "revisions beyond all bounds": ["UPDATE assembly SET revision = 1e308"],
    "digests": ["UPDATE index_chunk SET digest = 5"],
    "chunks of text": ["UPDATE index_chunk SET data = 'x'"],
    "many chunks": ["UPDATE index_snapshot SET chunks = 9223372036854775807"],
    "another version": ["UPDATE memstore_version SET version_num = x'00'"],
    "no version": ["DELETE FROM memstore_version"],
    "two versions": ["INSERT INTO memstore_version VALUES ('9999')"],
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGES)
def test_rows_of_any_kind_end_in_answers_or_typed_errors(opener: Opener, file: Path, case: str) -> None:
    execute(file, *CHANGES[case])
    answer = opener.open(file)
    assert "failure" not in answer, answer


@pytest.mark.parametrize(
    "name", ["nodes", "links", "entry", "top", "effort", "m", "format", "recall", "dimension", "metric"]
)
def test_a_snapshot_that_says_anything_of_itself_is_passed_over(opener: Opener, file: Path, name: str) -> None:
    for value in (2**39, -1, "x"):
        with unguarded(file) as connection:
            snapshots = connection.execute("SELECT pk, parameters FROM index_snapshot").fetchall()
            assert snapshots
            for pk, text in snapshots:
                parameters = json.dumps({**json.loads(text), name: value})
                connection.execute("UPDATE index_snapshot SET parameters = ? WHERE pk = ?", (parameters, pk))
        answer = opener.open(file)
        assert "failure" not in answer, (value, answer)
        assert not [line for line in answer["errors"] if line.startswith("search")], (value, answer)


@pytest.mark.parametrize("head", [b"x", b"SQLite format 3\0", b"x" * 5_000, b"SQLite format 3\0" + b"\xff" * 5_000])
async def test_what_is_no_database_is_refused_and_keeps_its_bytes(path: Path, head: bytes) -> None:
    path.write_bytes(head)
    with pytest.raises((ForeignFileError, DamagedError, memstore.InvalidError)):
        await memstore.open(path)
    assert path.read_bytes() == head


@pytest.mark.timeout(30 * FILES)
@pytest.mark.parametrize("seed", seeds(1_000, 1_012, 1_024))
def test_files_with_anything_in_them_end_in_answers_or_typed_errors(tmp_path: Path, seed: int) -> None:
    assert run(seed, FILES, tmp_path) == []


def test_nothing_in_a_file_is_ever_code() -> None:
    for module in (ROOT / "memstore").rglob("*.py"):
        tree = ast.parse(module.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name.partition(".")[0] for alias in node.names} | {getattr(node, "module", None)}
                assert not names & {"pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"}, module
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            assert called not in ("eval", "exec", "compile", "np.load", "numpy.load", "np.save"), module
            assert "read_index" not in called, module
            assert "enable_load_extension" not in called, module
        assert not re.search(r"allow_pickle\s*=\s*True|load_extension", module.read_text(encoding="utf-8")), module


async def test_a_record_that_cannot_be_read_is_named_and_keeps_no_other_from_being_read(file: Path) -> None:
    execute(file, "UPDATE memory SET content = CAST('x' AS BLOB) WHERE id = 'm:5'")
    async with memstore.open(file) as store:
        with pytest.raises(DamagedError, match="m:5"):
            await store.memories.get("m:5")
        assert (await store.memories.get("m:6")).content == "m 6"
        await store.memories.delete("m:5")
        assert len([m async for m in store.memories.list()]) == 397
        assert await store.check() == []
