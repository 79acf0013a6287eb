"""The entry of the command line: help, version, arguments and exit codes."""

import json
import os
import shutil
import subprocess
import sys

import pytest

import memstore
from memstore.cli.exit_codes import EXIT_CODES
from memstore.cli.table import ASSEMBLIES, TAGS
from memstore.cli.table import COMMANDS as TABLE
from tests.cli.commands import COMMANDS, PROGRAM, environment, fails, ok, process


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_the_command_names_it_in_one_line(missing):
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
    for names in loaded[:3]:
        assert {"numpy", "sqlalchemy", "asyncio", "memstore.api", "memstore.models"}.isdisjoint(names)
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
        ["--nonsense"],
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


@pytest.mark.parametrize("group", [[], ["assemblies"], ["tags"]], ids=str)
def test_a_group_without_a_command_prints_its_help(group):
    done = subprocess.run([*PROGRAM, *group], env=environment(), capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.count("Usage: memstore") == 1


def test_python_runs_the_package_as_a_module():
    for module in ("memstore", "memstore.cli", "memstore.cli.main"):
        done = subprocess.run(
            [sys.executable, "-m", module, "--version"], env=environment(), capture_output=True, text=True, timeout=240
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, f"memstore {memstore.__version__}\n", "")


def test_the_option_and_the_variable_name_the_store_instead_of_the_first_argument(small, tmp_path, monkeypatch):
    other = tmp_path / "other.db"
    ok(other, "add elsewhere --id there -e '[1, 2, 3]'")
    assert "green tea" in ok(None, "list --file", small)
    assert "green tea" in ok(None, "show tea -f", small)
    assert ok(None, "tags rename drink beverage -f", small) == "renamed drink to beverage on 2 records\n"
    monkeypatch.setenv("MEMSTORE_FILE", str(small))
    assert "green tea" in ok(None, "list")
    assert "green tea" in ok(None, "show tea")
    assert "elsewhere" in ok(other, "list")
    assert "elsewhere" in ok(other, "show there")
    assert "elsewhere" in ok(None, "show there -f", other)
    assert "2 members" in ok(None, "assemblies add-members drinks tea")
    assert "elsewhere" in ok(other, "search -e '[1, 2, 3]'")
    assert "green tea" in ok(None, "search -e '[1, 0, 0]'")


def test_a_command_never_deletes_from_the_store_of_the_variable_if_another_is_named(small, tmp_path, monkeypatch):
    monkeypatch.setenv("MEMSTORE_FILE", str(small))
    other, unusual = tmp_path / "other.db", tmp_path / "unusual"
    for store in (other, unusual):
        ok(None, "add elsewhere --id tea -e '[1, 2, 3]' -f", store)
        assert ok(store, "delete tea") == "deleted 1 memory\n"
    assert "No store" in fails(tmp_path / "mistyped.db", "delete tea")
    assert "green tea" in ok(None, "show tea")
    assert ok(None, "delete tea absent") == "deleted 1 memory\n"
    assert "no memory 'tea'" in fails(small, "show tea")


def test_a_store_whose_name_begins_with_a_hyphen_is_not_an_option(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ok(None, "add tea --file=-x.db -e '[1, 2]'")
    assert os.listdir(tmp_path) == ["-x.db"]
    assert "tea" in ok(None, "list --file=-x.db")
    assert "tea" in ok(None, "list -- -x.db")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_every_command_and_option(shell, tmp_path):
    script = ok(None, "completion", shell)
    for path, command in COMMANDS.items():
        assert path[-1] in script
        for parameter in command.params:
            for name in (*parameter.opts, *parameter.secondary_opts):
                bare = name.lstrip("-")
                assert not name.startswith("--") or name in script or f"-l {bare} " in script, (path, name)
    if shutil.which(shell):
        (tmp_path / "script").write_text(script)
        done = subprocess.run([shell, "-n", tmp_path / "script"], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("memstore se", "search"),
        ("memstore assemblies li", "list lineage"),
        ("memstore search x.db --rec", "--recursive"),
        ("memstore assemblies list x.db --names", "--namespace"),
        ("memstore add x.db --embedder ", "wordllama none"),
        ("memstore completion ", "bash zsh fish"),
        ("memstore add x.db --id ", ""),
    ],
)
def test_bash_completes_commands_options_and_values(words, expected, tmp_path):
    (tmp_path / "script").write_text(ok(None, "completion bash"))
    program = (
        'source "$1"; COMP_WORDS=("${@:2}"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _memstore; echo "${COMPREPLY[@]}"'
    )
    line = ["bash", "-c", program, "bash", tmp_path / "script", *words.split(" ")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (expected + "\n", "")
