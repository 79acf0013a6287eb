"""`memstore doctor`: its facts, their states and the advice."""

import json
import os
import sqlite3
import sys
from contextlib import closing

import pytest

import memstore
from memstore.cli import doctor, subprocesses
from memstore.database.inspect import HEAD
from memstore.index.openmp import openmp_runtimes
from tests.cli.commands import invoke


def facts(store=None, exit_code=0):
    """Facts by name, of the sections in order."""
    done = invoke(store, "doctor --json")
    assert done.exit_code == exit_code, done.output
    report = json.loads(done.stdout)
    assert report["problems"] == sum(fact["state"] == "problem" for fact in report["facts"])
    return {fact["name"]: fact for fact in report["facts"]}


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 43, 2), True),
        ((3, 44, 0), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 44, 9), False),
        ((3, 45, 0), True),
        ((3, 49, 2), True),
        ((3, 50, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 0), True),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 52, 0), False),
        ((4, 0, 0), False),
    ],
)
def test_the_wal_reset_bug_depends_on_the_version(version, affected):
    assert doctor.wal_reset_bug(version) is affected


def test_doctor_reports_the_sqlite_build_and_the_versions_of_packages():
    by_name = facts()
    assert by_name["version"]["value"].startswith(sqlite3.sqlite_version)
    assert by_name["memstore"]["value"].startswith(memstore.__version__)
    with closing(sqlite3.connect(":memory:")) as connection, connection:
        assert by_name["source id"]["value"] == connection.execute("SELECT sqlite_source_id()").fetchone()[0]
    connection.close()
    assert by_name["threads"]["value"].startswith("THREADSAFE=")
    assert by_name["JSON functions"]["value"] == "present"
    for package in ("numpy", "sqlalchemy", "aiosqlite", "alembic", "Python", "platform"):
        assert by_name[package]["value"]


def test_doctor_loads_faiss_in_another_process():
    before = openmp_runtimes()
    by_name = facts()
    assert openmp_runtimes() == before
    assert by_name["FAISS"]["state"] == "ok"
    assert by_name["OpenMP before FAISS"]["value"] == "none"
    if sys.platform == "linux":
        assert by_name["OpenMP after FAISS"]["value"].startswith("GNU's, /")
        assert "libgomp" in by_name["OpenMP after FAISS"]["value"]
        assert by_name["loaded automatically"]["value"].startswith("yes")


def test_faiss_must_be_requested_if_it_bundles_an_llvm_runtime(monkeypatch):
    monkeypatch.setattr(doctor, "faiss_bundles_libomp", lambda: True)
    by_name = facts()["loaded automatically"]
    assert by_name["state"] == "note"
    assert "engine='faiss'" in by_name["value"]


def test_an_affected_sqlite_is_a_note_that_says_why_the_store_is_safe(monkeypatch):
    monkeypatch.setattr(doctor, "wal_reset_bug", lambda version: True)
    by_name = facts()["WAL-reset bug"]
    assert by_name["state"] == "note"
    assert "TRUNCATE only" in by_name["advice"]
    assert "memstore[sqlite]" in by_name["advice"]
    monkeypatch.setattr(doctor, "wal_reset_bug", lambda version: False)
    assert facts()["WAL-reset bug"]["state"] == "ok"


def test_a_faiss_that_cannot_be_loaded_is_a_problem_with_advice(monkeypatch):
    broken = "import sys; sys.stderr.write('OMP: Error #15\\n'); sys.exit(134)"
    monkeypatch.setattr(subprocesses, "_CODE", broken)
    by_name = facts(exit_code=3)["FAISS"]
    assert by_name["state"] == "problem"
    assert "OMP: Error #15" in by_name["value"]
    assert "engine='numpy'" in by_name["advice"]


def test_a_missing_package_is_a_problem_and_a_missing_extra_a_note(monkeypatch):
    real = doctor.version

    def version(package):
        if package in ("alembic", "wordllama"):
            raise doctor.PackageNotFoundError(package)
        return real(package)

    monkeypatch.setattr(doctor, "version", version)
    by_name = facts(exit_code=3)
    assert by_name["alembic"]["state"] == "problem"
    assert by_name["wordllama"]["state"] == "note"
    assert "memstore[wordllama]" in by_name["wordllama"]["advice"]


async def create_store(path):
    async with memstore.open(path, dimension=3) as store:
        await store.memories.add("tea", embedding=[1, 2, 3])


async def test_doctor_reports_revision_application_sizes_and_journal_of_a_file(path, monkeypatch):
    await create_store(path)
    content = path.read_bytes()
    by_name = facts(path)
    assert by_name["revision"] == {**by_name["revision"], "value": HEAD, "state": "ok"}
    assert by_name["application id"]["value"].endswith("(memstore)")
    assert by_name["journal mode"]["value"] == "wal"
    assert by_name["size"]["value"].endswith("pages of 8,192 bytes")
    assert path.read_bytes() == content
    monkeypatch.setenv("MEMSTORE_FILE", str(path))
    assert facts()["revision"]["value"] == HEAD


def test_doctor_finds_memstore_in_a_checkout_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert facts()["FAISS"]["state"] == "ok"


def test_an_absent_or_foreign_file_is_a_problem_and_is_not_changed(tmp_path):
    assert facts(tmp_path / "absent.db", exit_code=3)["can be opened"]["state"] == "problem"
    assert os.listdir(tmp_path) == []
    other = tmp_path / "notes.txt"
    other.write_text("not a database, and long enough to be looked at as one " * 20)
    by_name = facts(other, exit_code=3)["can be opened"]
    assert "not a memstore file" in by_name["value"]
    assert other.read_text().startswith("not a database")


def test_output_has_marks_and_sections_and_no_colour_codes_in_a_pipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = invoke("absent.db", "doctor")
    assert done.exit_code == 3
    assert "\x1b" not in done.stdout
    assert "✓ memstore" in done.stdout
    assert "✗ can be opened" in done.stdout
    assert "1 problem, marked ✗" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
