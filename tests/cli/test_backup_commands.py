"""The commands on whole files: backup, verify, restore."""

import json
import os
import sqlite3
from contextlib import closing

from memstore.cli import confirmation
from tests.cli.commands import fails, invoke, lines, ok
from tests.database.test_migrations import frozen


def damage(path):
    """Raw SQL that leaves the first stored vector with a checksum that is another's."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE memory_vector SET checksum = checksum + 1 WHERE rowid = 1")


def test_backup_copies_into_a_new_file_only(small, tmp_path):
    copy = tmp_path / "copy.db"
    ok(small, "backup", copy)
    assert ok(copy, "export") == ok(small, "export")
    assert "exists" in fails(small, "backup", copy)
    assert ok(copy, "check") == "clean\n"


def test_backup_of_a_file_of_an_older_release_upgrades_neither(tmp_path):
    old, copy = frozen(tmp_path / "old.db", "0001"), tmp_path / "copy.db"
    content = old.read_bytes()
    assert lines(old, "backup", copy, "--json")[0] == {"path": str(copy), "bytes": copy.stat().st_size}
    assert old.read_bytes() == content
    (result,) = lines(None, "verify", copy, "--json")
    assert (result["revision"], result["intact"]) == ("0001", True)
    assert "(this release: " in ok(None, "verify", copy)


def test_verify_describes_a_file_and_its_exit_code_tells_whether_it_is_intact(small, tmp_path):
    copy = tmp_path / "copy.db"
    ok(small, "backup", copy)
    content = copy.read_bytes()
    output = ok(None, "verify", copy)
    assert "memories       4\n" in output
    assert "dimension 3, metric cosine" in output
    assert output.endswith("\nintact\n")
    (result,) = lines(None, "verify --json", copy)
    assert (result["intact"], result["findings"], result["memories"], result["assemblies"]) == (True, [], 4, 1)
    assert copy.read_bytes() == content
    assert {"copy.db-wal", "copy.db-shm"}.isdisjoint(os.listdir(tmp_path))
    damage(copy)
    done = invoke(None, "verify", copy)
    assert done.exit_code == 3
    assert "tea" in done.stdout
    assert "1 finding. Use another backup" in done.stdout
    copy.write_bytes(content[: 8_192 * 2])
    done = invoke(None, "verify --json", copy)
    assert done.exit_code == 3
    assert json.loads(done.stdout)["findings"][0]["kind"] == "integrity"
    assert "no store" in fails(None, "verify", tmp_path / "absent.db")
    (tmp_path / "notes.txt").write_text("notes " * 1000)
    assert "not a memstore file" in fails(None, "verify", tmp_path / "notes.txt")


def test_restore_describes_the_loss_and_needs_confirmation(small, tmp_path, monkeypatch):
    copy = tmp_path / "copy.db"
    ok(small, "backup", copy)
    ok(small, "delete tea")
    ok(small, "add new -e '[1, 1, 1]' --embedder none --id new")
    ok(small, "add newer -e '[1, 1, 1]' --embedder none --id newer")
    message = fails(small, "restore", copy)
    assert "contains 5 memories and 1 assembly (last change " in message
    assert "replaces all of it with 4 memories and 1 assembly" in message
    assert "--yes" in message
    monkeypatch.setattr(confirmation, "is_interactive", lambda: True)
    done = invoke(small, "restore", copy, stdin="n\n")
    assert done.exit_code == 1
    assert "contains 5 memories" in done.stderr
    assert done.stderr.endswith("memstore: error: Nothing was changed.\n")
    assert lines(small, "stats --json")[0]["memories"] == 5
    done = invoke(small, "restore", copy, stdin="y\n")
    assert done.exit_code == 0
    assert "restored 4 memories and 1 assembly" in done.stdout
    assert ok(small, "export") == ok(copy, "export")
    assert ok(small, "check") == "clean\n"


def test_restore_asks_nothing_with_yes_or_without_an_existing_store(small, tmp_path):
    copy, target = tmp_path / "copy.db", tmp_path / "fresh.db"
    ok(small, "backup", copy)
    assert "restored 4 memories and 1 assembly" in ok(target, "restore", copy)
    assert ok(target, "export") == ok(small, "export")
    (result,) = lines(target, "restore", copy, "--yes", "--json")
    assert (result["memories"], result["findings"], result["path"]) == (4, [], str(copy))
    damage(copy)
    assert "not restored" in fails(target, "restore", copy, "--yes")
    assert ok(target, "export") == ok(small, "export")


def test_restore_over_an_unreadable_store_reports_that(small, tmp_path):
    copy = tmp_path / "copy.db"
    ok(small, "backup", copy)
    content = bytearray(small.read_bytes())
    content[100:4000] = os.urandom(3900)
    small.write_bytes(content)
    assert "contains data that cannot be read (The database file is damaged" in fails(small, "restore", copy)
    ok(small, "restore", copy, "-y")
    assert ok(small, "export") == ok(copy, "export")


def test_restore_waits_for_other_writers_until_its_timeout(small, tmp_path):
    copy = tmp_path / "copy.db"
    ok(small, "backup", copy)
    with closing(sqlite3.connect(small, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        result = fails(small, "restore", copy, "--yes", "--timeout", "0.1s")
        assert "Other connections were writing" in result
        assert "for 0.1 s" in result
