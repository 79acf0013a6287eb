"""Stored texts in the output of commands."""

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import memstore
from memstore.cli.namespaces import format_namespace
from memstore.cli.options import parse_namespace
from tests.cli.commands import fails, invoke, lines, ok, script


def test_texts_of_records_are_neither_markup_nor_control_sequences(small):
    content = "\x1b[31m[bold]loud[/bold] \x9b2J:smile: \x07"
    ok(small, "add", content, "--id", "[red]evil\x1b[0m", "-t", "[dim]\x1b", "-e", "[1, 0, 0]")
    for arguments in (["list"], ["search", "-e", "[1, 0, 0]"], ["show", "[red]evil\x1b[0m"], ["tags", "list"]):
        output = ok(small, *arguments)
        assert "\x1b" not in output
        assert "\x9b" not in output
        assert "[dim]\\x1b" in output
    assert "\\x1b[31m[bold]loud[/bold] \\x9b2J:smile: \\x07" in ok(small, "list")
    assert lines(small, "list --order=-created_at -l 1 --json")[0]["content"] == content
    assert "\x1b" not in fails(small, "show", "\x1b[31m")


@pytest.mark.parametrize(
    "namespace", [(), ("a",), ("a", "b"), ("a/b", "c"), ("",), ("", ""), ("a", ""), ("[x",), ("ü", "日本")]
)
def test_a_formatted_namespace_parses_to_the_same_namespace(namespace):
    assert parse_namespace(format_namespace(namespace)) == namespace


FORGED = "\nFORGED LINE: memstore: all is well"
EVIL = "\x1b]0;title\x07\x1b[2J\x1b[31mred\x9b31m\u202egpj.exe\u2066\u200b\u2028\x85\r\n" + FORGED
UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


def expect_safe(*outputs: str) -> None:
    for output in outputs:
        assert UNSAFE.findall(output) == []
        assert not [line for line in output.splitlines() if line.startswith("FORGED")]


@pytest.fixture
def evil(path: Path) -> Path:
    """A store in which every text is hostile: contents, ids, tags, metadata, names, namespaces, actors, reasons."""

    async def fill(store: memstore.Store) -> None:
        for scope in (store, store.namespace(EVIL)):
            with memstore.as_actor(EVIL, reason=EVIL):
                await scope.memories.add(
                    EVIL, id=EVIL, embedding=[1, 0, 0, 0], tags={EVIL}, metadata={EVIL: EVIL, "headings": [EVIL]}
                )
                await scope.memories.add(EVIL, id=EVIL + "2", embedding=[1, 0.1, 0, 0])
                await scope.memories.add(EVIL, id=EVIL + "3", embedding=[1, 0.2, 0, 0], importance=0)
                for id in (EVIL, EVIL + "2"):
                    await scope.assemblies.add(
                        id, name=EVIL, description=EVIL, topics=[EVIL], tags={EVIL}, members=[EVIL, EVIL + "2"]
                    )
                await scope.assemblies.add("plain", description=EVIL, members=[EVIL])
                await scope.memories.update(EVIL, importance=0.9, tags={EVIL, "x"})
                await scope.assemblies.merge([EVIL, EVIL + "2"], into=EVIL, reason=EVIL)
                plan = await scope.memories.plan_forget(memstore.ForgetPolicy(importance_below=0.1))
                await scope.memories.forget(plan, reason=EVIL)

    script(fill, path, dimension=4)
    return path


QUERY = ["--embedding", "[1,0,0,0]"]
COMMANDS_ON_EVIL = [
    ["list"],
    ["list", "--recursive"],
    ["list", "--namespace", "none"],
    ["list", "--namespace", json.dumps([EVIL])],
    ["search", *QUERY],
    ["search", *QUERY, "--boost", "--threshold", "0"],
    ["show", EVIL],
    ["explain", EVIL, *QUERY, "--boost", "--threshold", "0"],
    ["explain", EVIL, *QUERY, "--tag", EVIL + "none", "--where", json.dumps({"id": EVIL + "none"})],
    ["history", EVIL],
    ["history", EVIL, "--assembly"],
    ["trash"],
    ["forget", "--importance-below", "1"],
    ["forget", "--assemblies", "--members-below", "9"],
    ["tags", "list"],
    ["tags", "rename", EVIL, EVIL + "new"],
    ["tags", "delete", EVIL],
    ["assemblies", "list"],
    ["assemblies", "show", EVIL],
    ["assemblies", "search", *QUERY],
    ["assemblies", "merge-candidates", "--threshold", "-1"],
    ["assemblies", "suggest", "--threshold", "0"],
    ["assemblies", "lineage", EVIL],
    ["assemblies", "unmerge", EVIL],
    ["assemblies", "delete", EVIL],
    ["update", EVIL, "--importance", "0.5"],
    ["pin", EVIL],
    ["add", EVIL, "--id", EVIL + "new", *QUERY],
    ["delete", EVIL],
    ["recover", EVIL + "3"],
    ["erase", EVIL, EVIL + "none", "--yes"],
    ["stats"],
    ["check"],
    ["export"],
]
FAILING = [
    ["show", "none" + EVIL],
    ["add", "x", "--id", EVIL, *QUERY],
    ["erase", EVIL],
    ["assemblies", "add", EVIL],
    ["undo", "99", EVIL],
    ["list", "--order", EVIL],
    ["list", "--where", json.dumps({EVIL: EVIL})],
    ["list", "--where", EVIL],
    ["list", EVIL],
    [EVIL],
    ["list", "--" + EVIL],
    ["import", EVIL],
    ["--" + EVIL],
    ["search", EVIL],
]


@pytest.mark.parametrize("option", ["", "--json"], ids=["text", "json"])
@pytest.mark.parametrize("arguments", COMMANDS_ON_EVIL, ids=lambda words: " ".join(words[:2])[:20].split("\x1b")[0])
def test_no_command_prints_what_controls_a_terminal(evil: Path, arguments: list[str], option: str) -> None:
    if option and arguments[0] == "export":
        option = ""
    done = invoke(evil, *arguments, *([option] if option else []), columns=200)
    assert done.exit_code == 0, done.output
    expect_safe(done.stdout, done.stderr)
    assert done.stdout or "none" in arguments
    if option:
        for line in done.stdout.splitlines():
            assert isinstance(json.loads(line), dict)


@pytest.mark.parametrize("arguments", FAILING, ids=range(len(FAILING)))
def test_no_error_prints_what_controls_a_terminal(evil: Path, arguments: list[str]) -> None:
    done = invoke(evil, *arguments, columns=200)
    assert done.exit_code in (1, 2), done.output
    expect_safe(done.stdout, done.stderr)


def test_json_output_is_exact(evil: Path) -> None:
    (record, _) = lines(evil, "list --json")
    assert (record["id"], record["content"], record["metadata"]) == (EVIL, EVIL, {EVIL: EVIL, "headings": [EVIL]})


def test_a_text_of_several_lines_has_a_margin(path: Path) -> None:
    ok(path, "add", "first\n\n  second", "--id", "x", "--embedding", "[1, 2]")
    assert ok(path, "show x").startswith("│ first\n│ \n│   second\n\nid ")
    ok(path, "add", "one line", "--id", "y", "--embedding", "[1, 2]")
    assert ok(path, "show y").startswith("one line\n\nid ")


def test_damage_and_imports_print_nothing_that_controls_a_terminal(evil: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(evil)) as connection, connection:
        connection.execute("UPDATE memory_vector SET vector = x'0000c07f0000c07f0000c07f0000c07f'")
    for command in ("check", "repair", "verify", "list", "stats", "doctor"):
        done = invoke(evil, command, columns=200)
        assert done.exit_code in (0, 1, 3)
        expect_safe(done.stdout, done.stderr)
    (tmp_path / "bad.jsonl").write_text(json.dumps({"kind": "memory", "id": EVIL, "content": 5}) + "\n")
    folder = tmp_path / "folder"
    (folder / "memories").mkdir(parents=True)
    (folder / "memories" / "x\x1b[31m\nFORGED.json").write_text(json.dumps({"content": 5, "id": EVIL}))
    (folder / "\x1b]0;x\x07\nFORGED").write_text("")
    for arguments in (["import", tmp_path / "bad.jsonl"], ["import-folder", folder]):
        done = invoke(tmp_path / "new.db", *arguments, columns=200)
        assert done.exit_code != 0
        expect_safe(done.stdout, done.stderr)
