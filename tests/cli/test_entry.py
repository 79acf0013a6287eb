"""The entry of the command line: help, version, arguments and exit codes."""

import json
import os
import subprocess
import sys

import pytest

import memstore
from memstore.cli.exit_codes import EXIT_CODES
from memstore.cli.table import ASSEMBLIES, TAGS
from memstore.cli.table import COMMANDS as TABLE
from tests.cli.commands import COMMANDS, environment, fails, ok, process


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
    done = process(None, "--version")
    assert done.returncode == 0
    assert done.stdout == f"memstore {memstore.__version__}\n"


def test_help_imports_no_command_and_a_command_only_its_own_module():
    code = "import sys; from memstore.cli.main import run\ntry:\n run()\nfinally: print(*sys.modules, file=sys.stderr)"
    loaded = []
    for arguments in (["--help"], ["assemblies", "--help"], ["--version"], ["stats", "--help"]):
        line = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=200, check=True)
        loaded.append({name.removeprefix("memstore.cli.") for name in done.stderr.split()})
    modules = {entry.module for table in (TABLE, ASSEMBLIES, TAGS) for entry in table.values()}
    assert [modules & names for names in loaded] == [set(), set(), set(), {"maintenance"}]
    for names in loaded:
        assert {"chunking", "semantic_text_splitter", "wordllama", "memstore.visualize"}.isdisjoint(names)
    assert "rich" not in loaded[2]


def test_the_list_of_commands_has_the_first_sentence_of_each_help():
    for prefix, table in (((), TABLE), (("assemblies",), ASSEMBLIES), (("tags",), TAGS)):
        for name, entry in table.items():
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
    output = ok(None, *path, "--help")
    assert command.help.split("\n")[0].split()[0] in output
    if "json" in {parameter.name for parameter in command.params}:
        assert "--json prints" in " ".join(command.help.split())


def test_the_help_names_the_exit_codes_and_the_variable():
    output = " ".join(ok(None, "--help").split())
    assert EXIT_CODES in output
    assert "MEMSTORE_FILE" in output
    assert " ".join(EXIT_CODES.split()[:6]) in " ".join(ok(None, "add --help").split())


def test_a_user_adds_searches_shows_and_deletes_in_processes_of_their_own(tmp_path):
    file = tmp_path / "agent.db"
    done = process(file, "add 'Ada prefers green tea' --id ada --tag taste")
    assert (done.returncode, done.stdout, done.stderr) == (0, "added ada\n", "")
    assert process(file, "add 'The train to Ghent leaves at noon'").returncode == 0
    done = process(None, "search 'what does she like to drink' --limit 1", MEMSTORE_FILE=str(file))
    assert done.returncode == 0
    assert "Ada prefers green tea" in done.stdout
    assert "Ghent" not in done.stdout
    assert "1 hit (2 memories compared)" in done.stdout
    assert "\x1b" not in done.stdout
    output = json.loads(process(file, "show ada --json").stdout)
    assert len(output["embedding"]) == 256
    assert process(file, "delete ada").stdout == "deleted 1 memory\n"
    done = process(file, "show ada")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "memstore: error: There is no memory 'ada'.\n"
    assert process(file, "check").stdout == "clean\n"


def test_the_file_may_come_from_the_environment(small, monkeypatch):
    monkeypatch.setenv("MEMSTORE_FILE", str(small))
    assert "3 memories" in ok(None, "list")
    assert "2 members" in ok(None, "assemblies add-members drinks tea")


@pytest.mark.parametrize(
    "arguments",
    [
        ["search"],
        ["search", "x.db"],
        ["nonsense"],
        ["list", "x.db", "extra"],
        ["list", "x.db", "--file", "y.db"],
        ["list", "x.db", "--where", "no json"],
        ["list", "x.db", "--where", "[1]"],
        ["list", "x.db", "--where", '{"created_at": {"$gt": "yesterday"}}'],
        ["list", "x.db", "--limit", "0"],
        ["list", "x.db", "--namespace", "[1]"],
        ["add", "x.db"],
        ["add", "x.db", "x", "--metadata", "[]"],
        ["add", "x.db", "x", "--embedding", '["a"]'],
        ["add", "x.db", "x", "--embedding", "[]"],
        ["add", "x.db", "x", "--importance", "2"],
        ["add", "x.db", "x", "--embedder", "openai"],
        ["update", "x.db", "id"],
        ["update", "x.db", "id", "--tag", "a", "--add-tag", "b"],
        ["history", "x.db"],
        ["history", "x.db", "id", "--keep", "1d"],
        ["forget", "x.db"],
        ["import", "x.db", "notes.xyz"],
        ["completion", "tcsh"],
    ],
    ids=" ".join,
)
def test_invalid_arguments_are_exit_code_2_and_create_no_file(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fails(None, *arguments, code=2)
    assert os.listdir(tmp_path) == []
