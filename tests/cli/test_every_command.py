"""What holds for every command: missing and foreign files, unchanged files, JSON."""

import os
from pathlib import Path

import pytest

import memstore
from tests.cli.commands import fails, lines, ok

READS = [
    ["search", "--embedding", "[1, 0, 0]"],
    ["list"],
    ["show", "tea"],
    ["export"],
    ["stats"],
    ["check"],
    ["tags", "list"],
    ["assemblies", "list"],
    ["assemblies", "show", "drinks"],
    ["assemblies", "search", "--embedding", "[1, 0, 0]"],
]


WRITES = [
    ["delete", "tea"],
    ["repair"],
    ["compact"],
    ["migrate"],
    ["backup", "copy.db"],
    ["tags", "rename", "drink", "beverage"],
    ["tags", "delete", "drink"],
    ["assemblies", "add", "new"],
    ["assemblies", "add-members", "drinks", "walk"],
    ["assemblies", "remove-members", "drinks", "tea"],
    ["assemblies", "delete", "drinks"],
]


@pytest.mark.parametrize("arguments", READS + WRITES, ids=" ".join)
def test_a_missing_file_is_an_error_and_is_not_created(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "absent.db" in fails("absent.db", *arguments)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("arguments", READS, ids=" ".join)
def test_commands_that_read_leave_every_byte_of_the_file(arguments, small):
    content = small.read_bytes()
    ok(small, *arguments)
    assert small.read_bytes() == content
    assert not small.with_name(small.name + "-wal").exists() or not small.with_name(small.name + "-wal").stat().st_size


@pytest.mark.parametrize("arguments", [*WRITES, ["add", "x"]], ids=" ".join)
def test_commands_that_write_leave_an_intact_store(arguments, small, monkeypatch):
    monkeypatch.chdir(small.parent)
    extra = ["-e", "[1, 2, 3]"] if arguments[0] == "add" else []
    ok(small, *arguments, *extra)
    assert ok(small, "check") == "clean\n"


@pytest.mark.parametrize("arguments", READS + WRITES, ids=" ".join)
def test_a_foreign_file_is_an_error_and_keeps_its_bytes(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("these are notes " * 100)
    assert "not a memstore file" in fails("notes.txt", *arguments)
    assert Path("notes.txt").read_text() == "these are notes " * 100
    assert os.listdir(tmp_path) == ["notes.txt"]


@pytest.mark.parametrize("arguments", [*READS, *(a for a in WRITES if a[0] != "demo")], ids=" ".join)
def test_every_json_output_is_lines_of_json(arguments, small, monkeypatch):
    monkeypatch.chdir(small.parent)
    option = [] if arguments[0] == "export" else ["--json"]
    result = lines(small, *arguments, *option)
    assert result
    assert all(isinstance(line, dict) for line in result)


def test_a_store_without_a_dimension_is_treated_as_missing_and_can_be_created(path):
    memstore.migrate(str(path))
    assert "no settings yet" in fails(path, "list")
    ok(path, "add x -e '[1, 2]'")
    assert lines(path, "stats --json")[0]["dimension"] == 2
