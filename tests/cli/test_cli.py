"""The command line as a user runs it: the output, the exit code and the effects of every command."""

import asyncio
import json
import os
import signal
import sqlite3
import struct
import subprocess
import sys
import time
import tracemalloc
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

import memstore
from memstore.cli import backups, import_export, sources
from memstore.cli.app import _Assemblies, _Commands, _Tags, app
from memstore.cli.exit_codes import EXIT_CODES
from memstore.cli.options import format_namespace, parse_namespace
from memstore.cli.text import json_line
from memstore.database.inspect import HEAD
from memstore.index.vector_table import VectorTable
from memstore.testing import HashEmbedder
from tests.database.test_migrations import frozen

if os.name != "nt":
    import fcntl
    import termios

CHECKOUT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "memstore.cli.main"]
runner = CliRunner()


def environment(**extra):
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT), "COLUMNS": "80", "PYTHONWARNINGS": "error", **extra}
    env.pop("MEMSTORE_FILE", None)
    return env


def process(*arguments, stdin="", **extra):
    """The command in a process of its own."""
    line = [*COMMAND, *map(str, arguments)]
    return subprocess.run(
        line, input=stdin, env=environment(**extra), capture_output=True, encoding="utf-8", timeout=100
    )


def ok(*arguments, stdin=None):
    """The command in this process: what it printed."""
    done = runner.invoke(app, list(map(str, arguments)), input=stdin, env={"COLUMNS": "80"})
    assert done.exit_code == 0, (done.output, done.exception)
    assert done.stderr == ""
    return done.stdout


def lines(*arguments, stdin=None):
    """The command in this process: its lines of JSON."""
    return [json.loads(line) for line in ok(*arguments, stdin=stdin).splitlines()]


def fails(*arguments, code=1, stdin=None):
    """The command in this process, which fails: its one line on stderr."""
    done = runner.invoke(app, list(map(str, arguments)), input=stdin, env={"COLUMNS": "80"})
    assert done.exit_code == code, (done.output, done.exception)
    if code == 1:
        assert done.stdout == ""
        assert done.stderr.startswith("memstore: error: ")
        assert done.stderr.count("\n") == 1
    return done.stderr


def script(function, path, **options):
    """Run *function* of an open store."""

    async def run():
        async with memstore.open(path, **options) as store:
            return await function(store)

    return asyncio.run(run())


@pytest.fixture
def small(path):
    """A store without an embedder, dimension 3."""

    async def fill(store):
        await store.memories.add(
            "green tea", id="tea", embedding=[1, 0, 0], tags={"drink"}, metadata={"hot": True}, importance=0.9
        )
        await store.memories.add("iced coffee", id="coffee", embedding=[0, 1, 0], tags={"drink", "cold"})
        await store.memories.add("a long walk", id="walk", embedding=[0, 0, 1])
        await store.assemblies.add("drinks", name="Drinks", members=["tea", "coffee"], topics=["hot", "cold"])
        await store.namespace("users", "ada").memories.add("her own note", id="note", embedding=[1, 1, 0])

    script(fill, path, dimension=3)
    return path


@pytest.fixture
def texts(path):
    """A store whose file names WordLlama."""
    ok("add", "Ada drinks green tea", "--id", "tea", "-t", "drink", "-f", path)
    ok("add", "The train leaves at noon", "--id", "train", "-f", path)
    return path


# --- the entry, help and exit codes ---


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_it_says_in_one_line_what_to_install(missing):
    code = f"import sys; sys.modules[{missing!r}] = None; from memstore.cli.main import run; run()"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=240)
    assert done.returncode == 1
    assert done.stderr == "The command line needs an extra: pip install 'memstore[cli]'\n"
    assert done.stdout == ""


def test_another_missing_module_is_not_reported_as_the_missing_extra():
    code = "import sys; sys.modules['numpy'] = None; from memstore.cli.main import run; run()"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=240)
    assert done.returncode != 0
    assert "pip install" not in done.stderr


def test_version():
    done = process("--version")
    assert done.returncode == 0
    assert done.stdout == f"memstore {memstore.__version__}\n"


def commands(group=None, path=()):
    group = group or typer.main.get_command(app)
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        if isinstance(command, TyperGroup):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands())


def test_help_imports_no_command_and_a_command_only_its_own_module():
    code = "import sys; from memstore.cli.main import run\ntry:\n run()\nfinally: print(*sys.modules, file=sys.stderr)"
    loaded = []
    for arguments in (["--help"], ["assemblies", "--help"], ["--version"], ["stats", "--help"]):
        line = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=200, check=True)
        loaded.append({name.removeprefix("memstore.cli.") for name in done.stderr.split()})
    modules = {entry.module for group in (_Commands, _Assemblies, _Tags) for entry in group.entries.values()}
    assert [modules & names for names in loaded] == [set(), set(), set(), {"maintenance"}]
    for names in loaded:
        assert {"chunking", "semantic_text_splitter", "wordllama", "memstore.visualize"}.isdisjoint(names)
    assert "rich" not in loaded[2]


def test_the_list_of_commands_has_the_first_sentence_of_each_help():
    for prefix, group in (((), _Commands), (("assemblies",), _Assemblies), (("tags",), _Tags)):
        for name, entry in group.entries.items():
            text = COMMANDS[*prefix, name].help
            assert text.startswith(entry.summary[:-1]), (name, text)


def test_every_documented_command_exists():
    names = {" ".join(path) for path in COMMANDS}
    assert names >= {"demo", "add", "search", "list", "show", "import", "export", "stats", "check", "repair"}
    assert names >= {"migrate", "doctor", "delete", "backup", "verify", "restore", "compact"}
    assert names >= {"tags list", "tags rename", "tags delete"}
    assert names >= {f"assemblies {verb}" for verb in ("list", "show", "search", "add", "add-members", "delete")}


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_and_each_of_its_options_is_documented(path):
    command = COMMANDS[path]
    assert command.help, path
    for parameter in command.params:
        assert getattr(parameter, "help", None), (path, parameter.name)
    output = ok(*path, "--help")
    assert command.help.split("\n")[0].split()[0] in output
    if "json" in {parameter.name for parameter in command.params}:
        assert "--json prints" in " ".join(command.help.split())


def test_the_help_names_the_exit_codes_and_the_variable():
    output = " ".join(ok("--help").split())
    assert EXIT_CODES in output
    assert "MEMSTORE_FILE" in output
    assert " ".join(EXIT_CODES.split()[:6]) in " ".join(ok("add", "--help").split())


def test_a_user_adds_searches_shows_and_deletes_in_processes_of_their_own(tmp_path):
    file = tmp_path / "agent.db"
    done = process("add", "Ada prefers green tea", "--id", "ada", "--tag", "taste", "--file", file)
    assert (done.returncode, done.stdout, done.stderr) == (0, "added ada\n", "")
    assert process("add", "The train to Ghent leaves at noon", "-f", file).returncode == 0
    done = process("search", "what does she like to drink", "--limit", "1", MEMSTORE_FILE=str(file))
    assert done.returncode == 2, "the test's environment has no MEMSTORE_FILE"
    done = process("search", "what does she like to drink", "--limit", "1", "-f", file)
    assert done.returncode == 0
    assert "Ada prefers green tea" in done.stdout
    assert "Ghent" not in done.stdout
    assert "1 hit (2 memories compared)" in done.stdout
    assert "\x1b" not in done.stdout
    output = json.loads(process("show", "ada", "--json", "-f", file).stdout)
    assert len(output["embedding"]) == 256
    assert process("delete", "ada", "-f", file).stdout == "deleted 1 memory\n"
    done = process("show", "ada", "-f", file)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "memstore: error: There is no memory 'ada'.\n"
    assert process("check", "-f", file).stdout == "clean\n"


def test_the_file_may_come_from_the_environment(small, monkeypatch):
    monkeypatch.setenv("MEMSTORE_FILE", str(small))
    assert "3 memories" in ok("list")
    assert "2 members" in ok("assemblies", "add-members", "drinks", "tea")


@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "tea"],
        ["nonsense"],
        ["list", "-f", "x.db", "--where", "no json"],
        ["list", "-f", "x.db", "--where", "[1]"],
        ["list", "-f", "x.db", "--where", '{"created_at": {"$gt": "yesterday"}}'],
        ["list", "-f", "x.db", "--limit", "0"],
        ["list", "-f", "x.db", "--namespace", "[1]"],
        ["add", "x", "-f", "x.db", "--metadata", "[]"],
        ["add", "x", "-f", "x.db", "--embedding", '["a"]'],
        ["add", "x", "-f", "x.db", "--embedding", "[]"],
        ["add", "x", "-f", "x.db", "--importance", "2"],
        ["add", "x", "-f", "x.db", "--embedder", "openai"],
        ["import", "notes.xyz", "-f", "x.db"],
    ],
    ids=" ".join,
)
def test_invalid_arguments_are_exit_code_2_and_create_no_file(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fails(*arguments, code=2)
    assert os.listdir(tmp_path) == []


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
    assert "absent.db" in fails(*arguments, "-f", "absent.db")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("arguments", READS, ids=" ".join)
def test_commands_that_read_leave_every_byte_of_the_file(arguments, small):
    content = small.read_bytes()
    ok(*arguments, "-f", small)
    assert small.read_bytes() == content
    assert not small.with_name(small.name + "-wal").exists() or not small.with_name(small.name + "-wal").stat().st_size


@pytest.mark.parametrize("arguments", [*WRITES, ["add", "x"]], ids=" ".join)
def test_commands_that_write_leave_an_intact_store(arguments, small, monkeypatch):
    monkeypatch.chdir(small.parent)
    extra = ["-e", "[1, 2, 3]"] if arguments[0] == "add" else []
    ok(*arguments, *extra, "-f", small)
    assert ok("check", "-f", small) == "clean\n"


@pytest.mark.parametrize("arguments", READS + WRITES, ids=" ".join)
def test_a_foreign_file_is_an_error_and_keeps_its_bytes(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("these are notes " * 100)
    assert "not a memstore file" in fails(*arguments, "-f", "notes.txt")
    assert Path("notes.txt").read_text() == "these are notes " * 100
    assert os.listdir(tmp_path) == ["notes.txt"]


@pytest.mark.parametrize("arguments", [*READS, *(a for a in WRITES if a[0] != "demo")], ids=" ".join)
def test_every_json_output_is_lines_of_json(arguments, small, monkeypatch):
    monkeypatch.chdir(small.parent)
    option = [] if arguments[0] == "export" else ["--json"]
    result = lines(*arguments, *option, "-f", small)
    assert result
    assert all(isinstance(line, dict) for line in result)


def test_a_store_without_a_dimension_is_treated_as_missing_and_can_be_created(path):
    memstore.migrate(str(path))
    assert "no settings yet" in fails("list", "-f", path)
    ok("add", "x", "-e", "[1, 2]", "-f", path)
    assert lines("stats", "--json", "-f", path)[0]["dimension"] == 2


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals and pipes")
def test_export_ends_without_a_message_when_its_reader_closes_the_pipe(small):
    async def fill(store):
        await store.memories.add_many([{"content": "x" * 1000, "embedding": [1, 2, i]} for i in range(2000)])

    script(fill, small)
    line = [*COMMAND, "export", "-f", str(small)]
    with subprocess.Popen(line, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert json.loads(running.stdout.readline())["kind"] == "store"
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait(240) == 141


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals and pipes")
def test_ctrl_c_while_import_waits_for_stdin_keeps_what_was_committed(path):
    line = [*COMMAND, "import", "-", "-f", str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(line, env=environment(), stdin=pipe, stdout=pipe, stderr=pipe, text=True) as running:
        for i in range(700):
            running.stdin.write(json.dumps({"content": f"text {i}", "embedding": [1, i, 2]}) + "\n")
        running.stdin.flush()
        deadline = time.monotonic() + 60
        while not _stored(path) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)
        running.send_signal(signal.SIGINT)
        message = running.stderr.read()
        assert running.wait(240) == 130
    assert message == "memstore: interrupted. Committed changes are stored, and the store is intact.\n"
    assert ok("check", "-f", path) == "clean\n"
    assert lines("stats", "--json", "-f", path)[0]["memories"] == 500


def _unread(pipe):
    """The number of bytes in a pipe that its reader has not read."""
    return struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))[0]


ENDLESS_EXPORT = """
import asyncio, sys
from memstore.cli import import_export
from memstore.cli.main import run

async def endless(store, path):
    async for line in lines(store, path):
        yield line
    sys.stderr.write("exporting\\n"); sys.stderr.flush()
    while True:
        await asyncio.sleep(0.001)
        yield line

lines, import_export._lines = import_export._lines, endless
sys.argv = ["memstore", *sys.argv[1:]]
run()
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals and pipes")
def test_ctrl_c_while_export_writes_a_file_deletes_it(small, tmp_path):
    target = tmp_path / "out.jsonl"
    line = [sys.executable, "-c", ENDLESS_EXPORT, "export", str(target), "-f", str(small)]
    with subprocess.Popen(line, env=environment(), stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr.readline() == "exporting\n"
        assert target.exists()
        running.send_signal(signal.SIGINT)
        message = running.stderr.read()
        assert running.wait(200) == 130
    assert message == "memstore: interrupted. Committed changes are stored, and the store is intact.\n"
    assert not target.exists()


def _stored(path):
    if not path.exists():
        return 0
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return connection.execute("SELECT count(*) FROM memory").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


# --- memories ---


def test_add_stores_every_field_of_its_options(path):
    ok(
        *("add", "tea", "--id", "x", "-t", "a", "-t", "b", "-m", '{"n": [1, null]}', "--importance", "0.25"),
        *("--ttl", "3600", "-n", "users/ada", "-e", "[1, 2]", "--metric", "l2", "-f", path),
    )
    memory = script(lambda s: s.namespace("users", "ada").memories.get("x"), path)
    assert (memory.content, memory.tags, memory.importance) == ("tea", frozenset("ab"), 0.25)
    assert memory.metadata == {"n": [1, None]}
    assert memory.namespace == ("users", "ada")
    assert memory.embedding.tolist() == [1, 2]
    assert timedelta(minutes=59) < memory.expires_at - datetime.now(UTC) <= timedelta(hours=1)
    assert lines("stats", "--json", "-f", path)[0]["metric"] == "l2"


def test_add_refuses_a_taken_id_and_upsert_replaces_it(small):
    assert "pass --upsert to replace it" in fails("add", "x", "--id", "tea", "-e", "[1, 1, 1]", "-f", small)
    ok("add", "black tea", "--id", "tea", "-e", "[1, 1, 1]", "--upsert", "-f", small)
    assert lines("show", "tea", "--json", "-f", small)[0]["content"] == "black tea"


def test_add_with_json_prints_the_record_without_its_embedding(small):
    (result,) = lines("add", "x", "-e", "[1, 1, 1]", "--json", "-f", small)
    assert result["content"] == "x"
    assert "embedding" not in result


def test_a_wrong_dimension_is_refused(small):
    assert "dimension of an embedding: expected 3, found 2" in fails("add", "x", "-e", "[1, 2]", "-f", small)
    assert "dimension of an embedding: expected 3, found 2" in fails("search", "-e", "[1, 2]", "-f", small)


def test_search_by_text_ranks_by_meaning(texts):
    hits = lines("search", "something to drink", "--json", "-f", texts)
    assert [hit["memory"]["id"] for hit in hits] == ["tea", "train"]
    assert hits[0]["score"] > hits[1]["score"]
    nearest = lines("search", "something to drink", "-l", "1", "--json", "-f", texts)
    assert [hit["memory"] for hit in nearest] == [hits[0]["memory"]]


def test_every_option_of_search_has_an_effect(small):
    def ids(*arguments):
        return [
            hit["memory"]["id"] for hit in lines("search", "-e", "[1, 0.5, 0.1]", "--json", "-f", small, *arguments)
        ]

    assert ids() == ["tea", "coffee", "walk"]
    assert ids("-l", "2") == ["tea", "coffee"]
    assert ids("-t", "cold") == ["coffee"]
    assert ids("-t", "cold", "-t", "drink", "-l", "1") == ["coffee"]
    assert ids("-w", '{"importance": {"$lt": 0.6}}') == ["coffee", "walk"]
    assert ids("--min-score", "0.5") == ["tea"]
    assert ids("-n", "users/ada") == ["note"]
    assert ids("--recursive", "-l", "2") == ["note", "tea"]


def test_search_needs_a_text_or_an_embedding(small):
    fails("search", "-f", small, code=2)
    fails("search", "tea", "-e", "[1, 2, 3]", "-f", small, code=2)
    fails("search", "-e", "null", "-f", small, code=2)


def test_every_option_of_list_has_an_effect(small):
    def ids(*arguments):
        return [memory["id"] for memory in lines("list", "--json", "-f", small, *arguments)]

    assert ids() == ["tea", "coffee", "walk"]
    assert ids("-l", "1") == ["tea"]
    assert ids("-l", "1", "--all") == ["tea", "coffee", "walk"]
    assert ids("--order=-id") == ["walk", "tea", "coffee"]
    assert ids("-t", "cold") == ["coffee"]
    assert ids("-w", '{"metadata.hot": true}') == ["tea"]
    assert ids("-w", '{"created_at": {"$gt": "2999-01-01"}}') == []
    assert ids("-w", '{"$not": {"created_at": {"$in": ["2999-01-01T00:00:00Z"]}}}') == ["tea", "coffee", "walk"]
    assert ids("-w", '{"$or": [{"updated_at": {"$not": {"$gt": "2000-01-01"}}}, {"id": "tea"}]}') == ["tea"]
    assert ids("-w", '{"metadata": {"created_at": "is a text here"}}') == []
    assert ids("-n", "users") == []
    assert ids("-n", "users", "-r") == ["note"]


def test_list_prints_the_total_and_the_namespaces_below(small):
    assert ok("list", "-l", "2", "-f", small).splitlines()[-1] == "2 of 3 memories; pass --all for all"
    assert ok("list", "-f", small).splitlines()[-1] == "3 memories"
    assert ok("list", "-n", "users", "-f", small).splitlines() == [
        "0 memories",
        "There are namespaces below: users/ada. Pass --namespace or --recursive.",
    ]


def test_show_prints_every_field_of_a_memory(small):
    output = ok("show", "tea", "-f", small)
    for part in ("green tea", "drink", "drinks", '{"hot": true}', "0.9", "dimension 3, norm 1: 1, 0, 0"):
        assert part in output
    (result,) = lines("show", "tea", "--json", "-f", small)
    assert result["embedding"] == [1, 0, 0]
    assert result["assemblies"] == ["drinks"]
    assert set(result) == {*memstore.Memory.__dataclass_fields__, "assemblies"}


def test_delete_takes_ids_or_a_filter(small):
    assert ok("delete", "tea", "absent", "-f", small) == "deleted 1 memory\n"
    assert lines("delete", "-w", '{"tags": {"$contains": "cold"}}', "--json", "-f", small) == [{"deleted": 1}]
    fails("delete", "-f", small, code=2)
    fails("delete", "-w", "{}", "-f", small)
    fails("delete", "walk", "-w", '{"id": "walk"}', "-f", small, code=2)
    assert [memory["id"] for memory in lines("list", "--json", "-f", small)] == ["walk"]


def test_texts_of_records_are_neither_markup_nor_control_sequences(small):
    hostile = "\x1b[31m[bold]loud[/bold] \x9b2J:smile: \x07"
    ok("add", hostile, "--id", "[red]evil\x1b[0m", "-t", "[dim]\x1b", "-e", "[1, 0, 0]", "-f", small)
    for arguments in (["list"], ["search", "-e", "[1, 0, 0]"], ["show", "[red]evil\x1b[0m"], ["tags", "list"]):
        output = ok(*arguments, "-f", small)
        assert "\x1b" not in output
        assert "\x9b" not in output
        assert "[dim]\\x1b" in output
    assert "\\x1b[31m[bold]loud[/bold] \\x9b2J:smile: \\x07" in ok("list", "-f", small)
    assert lines("list", "--order=-created_at", "-l", "1", "--json", "-f", small)[0]["content"] == hostile
    assert "\x1b" not in fails("show", "\x1b[31m", "-f", small)


@pytest.mark.parametrize(
    "namespace", [(), ("a",), ("a", "b"), ("a/b", "c"), ("",), ("", ""), ("a", ""), ("[x",), ("ü", "日本")]
)
def test_a_formatted_namespace_parses_to_the_same_namespace(namespace):
    assert parse_namespace(format_namespace(namespace)) == namespace


# --- embedders ---


@pytest.fixture
def hashed(path):
    script(lambda s: s.memories.add("green tea", id="tea"), path, embedder=HashEmbedder(8))
    return path


def test_a_file_of_an_unknown_embedder_refuses_texts_with_advice_and_accepts_vectors(hashed):
    for arguments in (["search", "tea"], ["add", "coffee"], ["assemblies", "search", "tea"]):
        message = fails(*arguments, "-f", hashed)
        assert "hash-8-0" in message
        assert "--embedding" in message
    assert "hash-8-0" in fails("import", "-", "-f", hashed, stdin='{"content": "coffee"}\n')
    vector = json.dumps([1.0] * 8)
    assert lines("search", "-e", vector, "--json", "-f", hashed)[0]["memory"]["id"] == "tea"
    ok("add", "coffee", "-e", vector, "-f", hashed)
    ok("add", "water", "-e", "null", "-f", hashed)
    assert lines("stats", "--json", "-f", hashed)[0]["embedder"] == "hash-8-0"
    assert lines("stats", "--json", "-f", hashed)[0]["memories"] == 3


def test_another_embedder_than_that_of_the_file_is_refused(hashed):
    for arguments in (["search", "tea"], ["add", "tea"]):
        assert "This file has dimension 8" in fails(*arguments, "--embedder", "wordllama", "-f", hashed)


def test_a_file_without_an_embedder_stores_a_text_only_with_embedder_none(small):
    assert "names no embedder" in fails("add", "x", "-f", small)
    assert "names no embedder" in fails("search", "x", "-f", small)
    assert "without an embedding" in ok("add", "x", "--embedder", "none", "-f", small)
    message = fails("search", "x", "--embedder", "none", "-f", small)
    assert "no embedder" in message


def test_a_new_file_has_wordllama_or_the_dimension_of_the_options(tmp_path):
    ok("add", "x", "-f", tmp_path / "a.db")
    assert lines("stats", "--json", "-f", tmp_path / "a.db")[0]["embedder"] == "wordllama-l2-supercat-256"
    ok("add", "x", "-e", "[1, 2]", "-f", tmp_path / "b.db")
    assert lines("stats", "--json", "-f", tmp_path / "b.db")[0]["dimension"] == 2
    ok("add", "x", "--embedder", "none", "--dimension", "5", "-f", tmp_path / "c.db")
    assert lines("stats", "--json", "-f", tmp_path / "c.db")[0]["dimension"] == 5
    assert "--dimension" in fails("add", "x", "--embedder", "none", "-f", tmp_path / "d.db")
    assert not (tmp_path / "d.db").exists()


def test_without_wordllama_reads_work_and_texts_raise_with_advice(texts, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'memstore[wordllama]'" in fails("search", "tea", "-f", texts)
    assert "pip install 'memstore[wordllama]'" in fails("add", "x", "-f", tmp_path / "new.db")
    assert not (tmp_path / "new.db").exists()
    assert "2 memories" in ok("list", "-f", texts)
    ok("add", "x", "-e", json.dumps([1.0] * 256), "-f", texts)


# --- assemblies and tags ---


def test_assemblies_are_created_changed_shown_searched_and_deleted(small):
    ok("assemblies", "add", "out", "walk", "--name", "Outdoors", "-t", "t", "--topic", "b", "--topic", "a", "-f", small)
    (result,) = lines("assemblies", "show", "out", "--json", "-f", small)
    assert (result["name"], result["tags"], result["topics"], result["members"]) == (
        "Outdoors",
        ["t"],
        ["b", "a"],
        ["walk"],
    )
    assert result["composite"] == [0, 0, 1]
    output = ok("assemblies", "show", "out", "-f", small)
    assert "Outdoors" in output
    assert "a long walk" in output
    hits = lines("assemblies", "search", "-e", "[0, 0.1, 1]", "--json", "-f", small)
    assert [hit["assembly"]["id"] for hit in hits] == ["out", "drinks"]
    assert [a["id"] for a in lines("assemblies", "list", "--json", "-f", small)] == ["drinks", "out"]
    assert [a["id"] for a in lines("assemblies", "list", "-t", "t", "--json", "-f", small)] == ["out"]
    assert "2 assemblies" in ok("assemblies", "list", "-f", small)
    assert "1 of 2" in ok("assemblies", "list", "-l", "1", "-f", small)
    assert "has 2 members" in ok("assemblies", "add-members", "out", "tea", "-f", small)
    assert "has 1 member\n" in ok("assemblies", "remove-members", "out", "walk", "-f", small)
    assert "pass --upsert to replace it" in fails("assemblies", "add", "out", "-f", small)
    ok("assemblies", "add", "out", "--name", "Out", "--upsert", "-f", small)
    (result,) = lines("assemblies", "show", "out", "--json", "-f", small)
    assert (result["name"], result["members"]) == ("Out", ["tea"])
    ok("assemblies", "delete", "out", "-f", small)
    assert "no assembly 'out'" in fails("assemblies", "delete", "out", "-f", small)
    assert "no memory 'nobody'" in fails("assemblies", "add", "new", "nobody", "-f", small)
    assert ok("check", "-f", small) == "clean\n"


def test_tags_are_listed_renamed_and_deleted(small):
    tags = lines("tags", "list", "--json", "-f", small)
    assert tags == [
        {"name": "cold", "memory_count": 1, "assembly_count": 0},
        {"name": "drink", "memory_count": 2, "assembly_count": 0},
    ]
    assert "2 tags" in ok("tags", "list", "-f", small)
    assert ok("tags", "rename", "drink", "beverage", "-f", small) == "renamed drink to beverage on 2 records\n"
    assert ok("tags", "delete", "cold", "-f", small) == "removed cold from 1 record\n"
    assert [tag["name"] for tag in lines("tags", "list", "--json", "-f", small)] == ["beverage"]
    fails("tags", "rename", "absent", "x", "-f", small)
    assert lines("tags", "delete", "absent", "--json", "-f", small) == [{"changed": 0}]


# --- the file ---


def test_stats_count_the_whole_file(small):
    (result,) = lines("stats", "--json", "-f", small)
    assert {name: result[name] for name in ("memories", "assemblies", "tags", "namespaces", "dimension")} == {
        "memories": 4,
        "assemblies": 1,
        "tags": 2,
        "namespaces": 2,
        "dimension": 3,
    }
    output = ok("stats", "-f", small)
    assert "2: (root), users/ada" in output
    assert "embedder          none\n" in output


def damage(path):
    """Raw SQL that leaves the first stored vector with a checksum that is another's."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE memory_vector SET checksum = checksum + 1 WHERE rowid = 1")


def test_check_reports_damage_with_exit_code_3_and_repair_lists_what_remains(small):
    damage(small)
    done = runner.invoke(app, ["check", "-f", str(small)], env={"COLUMNS": "80"})
    assert done.exit_code == 3
    assert "checksum" in done.stdout
    assert "memory tea" in done.stdout
    assert "1 finding" in done.stdout
    done = runner.invoke(app, ["check", "--json", "-f", str(small)])
    assert done.exit_code == 3
    result = json.loads(done.stdout)
    assert result["clean"] is False
    assert [(finding["kind"], finding["id"]) for finding in result["findings"]] == [("checksum", "tea")]
    done = runner.invoke(app, ["repair", "-f", str(small)])
    assert done.exit_code == 3, "a wrong checksum is damage to what is stored"
    assert "These records are damaged. Delete them" in done.stdout
    ok("add", "green tea", "--id", "tea", "-e", "[1, 0, 0]", "--upsert", "-f", small)
    assert ok("check", "-f", small) == "clean\n"


def test_check_builds_the_index_and_compares_it_with_the_rows(small, monkeypatch):
    whole = VectorTable.load
    monkeypatch.setattr(
        VectorTable, "load", lambda table, entries: whole(table, type(entries)(*(e[1:] for e in entries)))
    )
    done = runner.invoke(app, ["check", "--json", "-f", str(small)])
    assert done.exit_code == 3
    assert {finding["kind"] for finding in json.loads(done.stdout)["findings"]} == {"missing"}


def test_check_names_a_record_that_cannot_be_read(small):
    with closing(sqlite3.connect(small)) as connection, connection:
        connection.execute("UPDATE memory_vector SET vector = x'0000000000000000' WHERE rowid = 1")
        connection.execute("PRAGMA ignore_check_constraints=ON")
        connection.execute("UPDATE memory SET metadata = 'no JSON'")
    done = runner.invoke(app, ["check", "--json", "-f", str(small)])
    assert done.exit_code == 3, (done.stderr, done.exception)
    kinds = {(finding["kind"], finding["id"]) for finding in json.loads(done.stdout)["findings"]}
    assert ("wrong_dimension", "tea") in kinds


def test_repair_adds_checksums_that_raw_sql_removed(small):
    with closing(sqlite3.connect(small)) as connection, connection:
        connection.execute("UPDATE memory_vector SET checksum = NULL")
        connection.execute("PRAGMA foreign_keys=OFF")
    (result,) = lines("repair", "--json", "-f", small)
    assert result["checksums"] == 4
    assert result["remaining"] == []
    output = ok("repair", "-f", small)
    assert "reindexed" in output
    assert output.endswith("clean\n")


def test_compact_returns_the_space_of_deleted_records(small):
    async def fill(store):
        await store.memories.add_many([{"content": "x" * 2000, "embedding": [1, 2, i]} for i in range(500)])
        await store.memories.delete_many(where={"content": {"$startswith": "xx"}})

    script(fill, small)
    before = small.stat().st_size
    (result,) = lines("compact", "--json", "-f", small)
    assert result["freed"] > 500_000
    assert small.stat().st_size == before - result["freed"]


def test_backup_copies_into_a_new_file_only(small, tmp_path):
    copy = tmp_path / "copy.db"
    ok("backup", copy, "-f", small)
    assert ok("export", "-f", copy) == ok("export", "-f", small)
    assert "exists" in fails("backup", copy, "-f", small)
    assert ok("check", "-f", copy) == "clean\n"


def test_backup_of_a_file_of_an_older_release_upgrades_neither(tmp_path):
    old, copy = frozen(tmp_path / "old.db", "0001"), tmp_path / "copy.db"
    content = old.read_bytes()
    assert lines("backup", copy, "--json", "-f", old)[0] == {"path": str(copy), "bytes": copy.stat().st_size}
    assert old.read_bytes() == content
    (result,) = lines("verify", copy, "--json")
    assert (result["revision"], result["intact"]) == ("0001", True)
    assert "(this release: " in ok("verify", copy)


def test_verify_describes_a_file_and_its_exit_code_tells_whether_it_is_intact(small, tmp_path):
    copy = tmp_path / "copy.db"
    ok("backup", copy, "-f", small)
    content = copy.read_bytes()
    output = ok("verify", copy)
    assert "memories       4\n" in output
    assert "dimension 3, metric cosine" in output
    assert output.endswith("\nintact\n")
    (result,) = lines("verify", "--json", copy)
    assert (result["intact"], result["findings"], result["memories"], result["assemblies"]) == (True, [], 4, 1)
    assert copy.read_bytes() == content
    assert {"copy.db-wal", "copy.db-shm"}.isdisjoint(os.listdir(tmp_path))
    damage(copy)
    done = runner.invoke(app, ["verify", str(copy)], env={"COLUMNS": "80"})
    assert done.exit_code == 3
    assert "tea" in done.stdout
    assert "1 finding. Use another backup" in done.stdout
    copy.write_bytes(content[: 8_192 * 2])
    done = runner.invoke(app, ["verify", "--json", str(copy)])
    assert done.exit_code == 3
    assert json.loads(done.stdout)["findings"][0]["kind"] == "integrity"
    assert "no store" in fails("verify", tmp_path / "absent.db")
    (tmp_path / "notes.txt").write_text("notes " * 1000)
    assert "not a memstore file" in fails("verify", tmp_path / "notes.txt")


def test_restore_describes_the_loss_and_needs_confirmation(small, tmp_path, monkeypatch):
    copy = tmp_path / "copy.db"
    ok("backup", copy, "-f", small)
    ok("delete", "tea", "-f", small)
    ok("add", "new", "-e", "[1, 1, 1]", "--embedder", "none", "--id", "new", "-f", small)
    ok("add", "newer", "-e", "[1, 1, 1]", "--embedder", "none", "--id", "newer", "-f", small)
    message = fails("restore", copy, "-f", small)
    assert "contains 5 memories and 1 assembly (last change " in message
    assert "replaces all of it with 4 memories and 1 assembly" in message
    assert "--yes" in message
    monkeypatch.setattr(backups, "_is_interactive", lambda: True)
    done = runner.invoke(app, ["restore", str(copy), "-f", str(small)], input="n\n")
    assert done.exit_code == 1
    assert "contains 5 memories" in done.stderr
    assert done.stderr.endswith("memstore: error: Nothing was changed.\n")
    assert lines("stats", "--json", "-f", small)[0]["memories"] == 5
    done = runner.invoke(app, ["restore", str(copy), "-f", str(small)], input="y\n")
    assert done.exit_code == 0
    assert "restored 4 memories and 1 assembly" in done.stdout
    assert ok("export", "-f", small) == ok("export", "-f", copy)
    assert ok("check", "-f", small) == "clean\n"


def test_restore_asks_nothing_with_yes_or_without_an_existing_store(small, tmp_path):
    copy, fresh = tmp_path / "copy.db", tmp_path / "fresh.db"
    ok("backup", copy, "-f", small)
    assert "restored 4 memories and 1 assembly" in ok("restore", copy, "-f", fresh)
    assert ok("export", "-f", fresh) == ok("export", "-f", small)
    (result,) = lines("restore", copy, "--yes", "--json", "-f", fresh)
    assert (result["memories"], result["findings"], result["path"]) == (4, [], str(copy))
    damage(copy)
    assert "not restored" in fails("restore", copy, "--yes", "-f", fresh)
    assert ok("export", "-f", fresh) == ok("export", "-f", small)


def test_restore_over_an_unreadable_store_reports_that(small, tmp_path):
    copy = tmp_path / "copy.db"
    ok("backup", copy, "-f", small)
    content = bytearray(small.read_bytes())
    content[100:4000] = os.urandom(3900)
    small.write_bytes(content)
    assert "contains data that cannot be read (The database file is damaged" in fails("restore", copy, "-f", small)
    ok("restore", copy, "-y", "-f", small)
    assert ok("export", "-f", small) == ok("export", "-f", copy)


def test_a_restore_waits_for_other_writers_up_to_its_timeout(small, tmp_path):
    copy = tmp_path / "copy.db"
    ok("backup", copy, "-f", small)
    with closing(sqlite3.connect(small, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        result = fails("restore", copy, "--yes", "--timeout", "0.1", "-f", small)
        assert "Other connections were writing" in result
        assert "for 0.1 s" in result


def test_migrate_does_not_change_a_current_file(small):
    content = small.read_bytes()
    assert "is up to date" in ok("migrate", "-f", small)
    assert lines("migrate", "--json", "-f", small) == [{"before": HEAD, "after": HEAD}]
    assert small.read_bytes() == content


# --- export and import ---

WHEN = datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=UTC)


def rich_items():
    tiny, third = np.float32(1e-45), np.float32(1) / np.float32(3)
    return [
        {
            "id": "../../x\n\u2028\x85 ü 😀",
            "content": 'lines\nand\r\n"quotes" \u2028 \x00 \\ 日本',
            "embedding": np.array([tiny, -0.0, third, np.float32(3.4028235e38) / 4], dtype=np.float32),
            "tags": {"b", "a", "ü\n"},
            "metadata": {"a.b": [1, 2.5, None, True, {"": "x"}], "big": 2**63 - 1, "f": 1e-300, "\n": "\t"},
            "importance": 1 / 3,
            "created_at": WHEN,
            "updated_at": WHEN + timedelta(microseconds=1),
            "expires_at": datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
            "accessed_at": datetime(1, 1, 1, tzinfo=UTC),
            "access_count": 7,
            "pinned": True,
        },
        {"id": "plain", "content": "", "embedding": None, "created_at": WHEN - timedelta(days=1)},
        {"id": "second", "content": "s", "embedding": [0.1, 0.2, 0.3, 1e-7]},
    ]


@pytest.fixture
def rich(path):
    """A store in which every field of every noun holds something hard."""

    async def fill(store):
        for place in (store, store.namespace("a/b", ""), store.namespace("a", "b")):
            await place.memories.add_many(rich_items())
            await place.assemblies.add_many(
                [
                    {
                        "id": "group",
                        "name": "Ü\n",
                        "description": "d\u2028",
                        "tags": {"x", "y"},
                        "topics": ["z", "a", "m"],
                        "metadata": {"k": [None]},
                        "created_at": WHEN,
                        "updated_at": WHEN + timedelta(seconds=1),
                        "members": ["second", "../../x\n\u2028\x85 ü 😀"],
                    },
                    {"id": "empty"},
                ]
            )
        await store.namespace("only").assemblies.add("alone")

    script(fill, path, dimension=4, metric="l2")
    return path


async def everything(store):
    memories = {(m.namespace, m.id): m async for m in store.memories.list(recursive=True)}
    assemblies = {(a.namespace, a.id): a async for a in store.assemblies.list(recursive=True)}
    members = {
        key: {member async for member in store.namespace(*key[0]).assemblies.members(key[1])} for key in assemblies
    }
    derived = {"revision"}  # how often the members changed: not a field one can give
    fields = [name for name in memstore.Assembly.__dataclass_fields__ if name not in derived]
    plain = {
        key: [
            a.composite.tobytes() if name == "composite" and a.composite is not None else getattr(a, name)
            for name in fields
        ]
        for key, a in assemblies.items()
    }
    return memories, plain, members, (store.dimension, store.metric)


def test_export_and_import_preserve_every_field(rich, tmp_path):
    exported, copy = tmp_path / "all.jsonl", tmp_path / "copy.db"
    assert ok("export", exported, "-f", rich) == f"exported 9 memories and 7 assemblies to {exported}\n"
    assert "imported 9 memories and 7 assemblies" in ok("import", exported, "-f", copy)
    before, after = script(everything, rich), script(everything, copy)
    assert after == before
    assert len(before[0]) == 9
    assert ok("export", "-f", copy) == exported.read_text("utf-8")
    assert ok("check", "-f", copy) == "clean\n"


def test_export_pipes_into_import_between_processes(rich, tmp_path):
    exported = process("export", "-f", rich)
    assert exported.stderr == ""
    done = process("import", "-", "-f", tmp_path / "copy.db", stdin=exported.stdout)
    assert done.returncode == 0, done.stderr
    assert script(everything, tmp_path / "copy.db") == script(everything, rich)


def test_import_with_upsert_replaces_changed_records(rich, tmp_path):
    exported = tmp_path / "all.jsonl"
    ok("export", exported, "-f", rich)
    before = script(everything, rich)

    async def change(store):
        await store.memories.update("second", content="changed", embedding=[9, 9, 9, 9], tags={"new"})
        await store.assemblies.update("group", topics=["other"])
        await store.assemblies.remove_members("group", ["second"])

    script(change, rich)
    assert "pass --upsert to replace it" in fails("import", exported, "-f", rich)
    ok("import", exported, "--upsert", "-f", rich)
    assert script(everything, rich) == before


def test_import_keeps_the_name_of_an_embedder_that_cannot_be_loaded(hashed, tmp_path):
    copy = tmp_path / "copy.db"
    ok("import", "-", "-f", copy, stdin=ok("export", "-f", hashed))
    assert lines("stats", "--json", "-f", copy)[0]["embedder"] == "hash-8-0"
    memory = script(lambda s: s.memories.get("tea"), copy, embedder=HashEmbedder(8))
    assert memory == script(lambda s: s.memories.get("tea"), hashed)


def test_export_of_a_namespace_includes_those_below_and_import_can_move_them(rich, tmp_path):
    result = lines("export", "-n", "a", "-f", rich)
    assert {tuple(line["namespace"]) for line in result[1:]} == {("a", "b")}
    ok("import", "-", "-n", "x/y", "-f", tmp_path / "copy.db", stdin=ok("export", "-n", "a", "-f", rich))
    assert {key[0] for key in script(everything, tmp_path / "copy.db")[0]} == {("x", "y", "a", "b")}


def test_export_overwrites_no_file(small):
    content = small.read_bytes()
    assert "does not overwrite files" in fails("export", small, "-f", small)
    assert small.read_bytes() == content
    assert "No such file" in fails("export", small.parent / "nowhere" / "x.jsonl", "-f", small)


def test_members_that_expired_after_the_export_are_skipped(path):
    past, future = datetime(2020, 1, 1, tzinfo=UTC).isoformat(), datetime(2990, 1, 1, tzinfo=UTC).isoformat()
    result = [
        {"content": "old", "id": "old", "expires_at": past, "embedding": [1, 2]},
        {"content": "new", "id": "new", "expires_at": future, "embedding": [2, 1]},
        {"kind": "assembly", "id": "both", "members": ["old", "new"]},
    ]
    output = ok("import", "-", "-f", path, stdin="".join(json.dumps(line) + "\n" for line in result))
    assert "imported 1 memory and 1 assembly" in output
    assert "skipped 1 expired memory" in output
    assert lines("assemblies", "show", "both", "--json", "-f", path)[0]["members"] == ["new"]
    broken = json.dumps({"kind": "assembly", "id": "other", "members": ["nobody"]})
    assert "no memory 'nobody'" in fails("import", "-", "-f", path, stdin=broken)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", "Not valid JSON"),
        ("[" * 100_000, "Not valid JSON"),
        ("[1]", "one JSON object"),
        ('{"text": "x"}', "its fields are: 'text'"),
        ('{"content": 5, "embedding": null}', "Invalid content: expected text (str), found int"),
        ('{"content": "x", "embedding": [1]}', "dimension of an embedding: expected 2, found 1"),
        ('{"content": "x", "embedding": [NaN, 1]}', "NaN"),
        ('{"content": "x", "created_at": "today", "embedding": null}', "Invalid created_at: expected a time"),
        ('{"content": "x", "created_at": "2020-01-01", "embedding": null}', "aware datetime"),
        ('{"kind": "thing"}', "Invalid kind"),
        ('{"kind": "store", "format": 99}', "format 99"),
        ('{"content": "x", "namespace": "a/b"}', "Invalid namespace: expected a list"),
        ('{"content": "x"}', "names no embedder"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_an_invalid_line_stops_an_import_with_its_number_and_the_stored_count(path, line, message):
    good = "".join(json.dumps({"content": f"{i}", "embedding": [i, 1]}) + "\n" for i in range(500))
    extra = json.dumps({"content": "good", "embedding": [1, 1]}) + "\n"
    result = fails("import", "-", "-f", path, stdin=good + "\n" + extra + line + "\n" + extra)
    assert message in result
    assert result.startswith("memstore: error: stdin, line 503: ")
    assert result.count("line 503") == 1
    assert "500 records before it are stored" in result
    assert lines("stats", "--json", "-f", path)[0]["memories"] == 500
    assert ok("check", "-f", path) == "clean\n"


@pytest.mark.parametrize(
    ("bad", "message", "line"),
    [
        ({"kind": "assembly", "id": "b", "members": ["absent"]}, "no memory 'absent'", 5),
        ({"kind": "assembly", "id": "a"}, "Assembly 'a' exists", 5),
        ({"kind": "assembly", "id": "b", "bogus": 1}, "bogus", 5),
    ],
    ids=lambda value: str(value)[:30],
)
def test_the_line_of_an_invalid_assembly_is_reported(path, bad, message, line):
    items = [{"content": "x", "id": "x", "embedding": [1, 2]}, {"kind": "assembly", "id": "a", "members": ["x"]}]
    ok("import", "-", "-f", path, stdin="".join(json.dumps(item) + "\n" for item in items))
    good = [{"kind": "assembly", "id": f"good {i}", "members": ["x"]} for i in range(5)]
    result = fails("import", "-", "-f", path, stdin="".join(json.dumps(i) + "\n" for i in [*good[:4], bad, good[4]]))
    assert message in result
    assert result.startswith(f"memstore: error: stdin, line {line}: ")
    assert "0 records before it are stored" in result
    assert lines("stats", "--json", "-f", path)[0]["assemblies"] == 1
    assert ok("check", "-f", path) == "clean\n"


def test_an_error_without_an_invalid_record_is_reported_once_and_not_retried(small, tmp_path, monkeypatch):
    async def refuse(*_, **__):
        raise memstore.StorageError("the disk is full")

    exported = tmp_path / "all.jsonl"
    ok("export", exported, "-f", small)
    monkeypatch.setattr(memstore.Memories, "upsert_many", refuse)
    monkeypatch.setattr(import_export._Importer, "invalid_item", None)
    result = fails("import", exported, "--upsert", "-f", small)
    assert f"{exported}, line 5: the disk is full. 0 records before it are stored" in result


def many_lines(count):
    """An export of *count* records and more, by line: all with an expiry, so that nothing can be remembered of each."""
    yield {"kind": "store", "format": 1, "dimension": 2, "metric": "cosine", "embedder": None}
    when = "2990-01-01T00:00:00.000001+00:00"
    for i in range(count):
        yield {
            "kind": "memory", "id": f"m{i:06}", "namespace": [], "content": "x" * 100, "embedding": [1.0, float(i)],
            "tags": ["a", "b"], "metadata": {"i": i}, "importance": 0.5, "created_at": when, "updated_at": when,
            "expires_at": when, "accessed_at": None, "access_count": i, "pinned": i % 2 == 0,
        }  # fmt: skip
    for i in range(300):
        yield {
            "kind": "assembly", "id": f"g{i:03}", "namespace": [], "name": "", "description": "", "tags": [],
            "topics": [], "metadata": {}, "created_at": when, "updated_at": when,
            "activation_level": 0.0, "activated_at": None, "activation_count": 0,
            "members": [f"m{j:06}" for j in range(i, i + 200)],
        }  # fmt: skip


@pytest.fixture
def peaks(monkeypatch):
    """The most memory that Python's objects took, from the 1,000th record to the 4,000th, and from there on."""
    maxima, calls = [], 0

    def count(really):
        def wrapped(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls in (1_000, 4_000):
                if calls == 4_000:
                    maxima.append(tracemalloc.get_traced_memory()[1])
                tracemalloc.reset_peak()
            return really(*arguments, **options)

        return wrapped

    monkeypatch.setattr(sources, "parse_item", count(sources.parse_item))
    monkeypatch.setattr(import_export, "json_line", count(import_export.json_line))
    tracemalloc.start()
    yield lambda: (maxima[0], tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["import", "export"])
def test_import_and_export_need_constant_memory_and_lose_no_byte(way, path, tmp_path, request, monkeypatch):
    """20,000 memories; as an export tells of them, so that what comes out is what went in."""
    source, out = tmp_path / "source.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json_line(line) for line in many_lines(20_000)), encoding="utf-8")
    monkeypatch.setattr(import_export, "MEMBERS", 1_000)
    few = "".join(json_line(line) for line in many_lines(2))  # what is imported at the first use is not counted
    ok("import", "-", "-f", tmp_path / "few.db", stdin=few.split('{"kind": "assembly"')[0])
    measured = None
    for step, arguments in (("import", [source]), ("export", [out])):
        if step == way:
            measured = request.getfixturevalue("peaks")
        ok(step, *arguments, "-f", path)
        if step == way:
            early, late = measured()
            break
    assert late < 1.25 * early, (early, late)
    if way == "export":
        assert out.read_bytes() == source.read_bytes()


def test_an_invalid_first_line_creates_no_file(path):
    fails("import", "-", "-f", path, stdin="nonsense\n")
    fails("import", "-", "-f", path, stdin="")
    fails("import", path.parent / "absent.jsonl", "-f", path)
    assert os.listdir(path.parent) == []


def test_markdown_and_text_are_imported_as_passages_with_their_headings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("notes.md").write_text(
        "# Tea\n\nGreen tea.\n\n## Water\n\n```sh\nboil  # not a heading\n\nwait\n```\n", "utf-8"
    )
    Path("plain.txt").write_text("\ufeffOne paragraph.\n\nAnother.\n", "utf-8")
    output = ok("import", "notes.md", "plain.txt", "-t", "imported", "-f", "s.db")
    assert "imported 3 memories" in output
    result = {memory["id"]: memory for memory in lines("list", "--json", "-f", "s.db")}
    assert result["notes.md#1"]["content"] == "Tea\n\nGreen tea."
    assert result["notes.md#2"]["content"] == "Tea › Water\n\n```sh\nboil  # not a heading\n\nwait\n```"
    assert result["notes.md#2"]["metadata"] == {"source": "notes.md", "part": 2, "headings": ["Tea", "Water"]}
    assert result["plain.txt#1"]["content"] == "One paragraph.\n\nAnother."
    assert all(memory["tags"] == ["imported"] for memory in result.values())
    assert "exists" in fails("import", "notes.md", "-f", "s.db")
    ok("import", "notes.md", "--upsert", "-f", "s.db")
    assert lines("search", "boiling water", "--json", "-f", "s.db")[0]["memory"]["id"] == "notes.md#2"
    Path("latin.txt").write_bytes("Übung".encode("latin-1"))
    assert "latin.txt is not valid UTF-8" in fails("import", "latin.txt", "-f", "s.db")
    ok("import", "-", "--format", "text", "-f", "s.db", stdin="from a pipe")
    assert lines("show", "stdin#1", "--json", "-f", "s.db")[0]["content"] == "from a pipe"


# --- the search graph ---


def test_optimize_prints_why_searches_stay_exact(small):
    assert ok("optimize", "-f", small).startswith("searches are exact: fewer than ")
    (result,) = lines("optimize", "--json", "-f", small)
    assert (result["index"], result["graph_nodes"], result["snapshot_bytes"]) == ("exact", 0, 0)


def test_optimize_builds_the_graph_and_stores_it(tmp_path):
    path = tmp_path / "large.db"

    async def fill():
        rows = np.random.default_rng(1).standard_normal((300, 8)).tolist()
        async with memstore.open(path, dimension=8, index="graph") as store:
            await store.memories.add_many([{"content": str(i), "embedding": row} for i, row in enumerate(rows)])

    asyncio.run(fill())
    result = ok("optimize", "-f", path)
    assert result.startswith("the graph has 300 vectors and takes ")
    assert "recall of the nearest ten: " in result
    assert "search graph" in ok("stats", "-f", path)
    assert lines("stats", "--json", "-f", path)[0]["snapshot_bytes"] > 300 * 100
