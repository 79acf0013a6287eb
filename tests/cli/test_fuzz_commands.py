"""Arbitrary arguments and arbitrary files to import end in an exit code and one line, never in a traceback.

A command that fails leaves an intact store.
"""

# ruff: noqa: E501 - tables of values read better across

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from memstore.cli.app import app
from tests.cli.commands import COMMANDS, lines, ok

SAMPLES = 4  # of the odd values, for each argument
MUTATIONS = 60  # files to import, each changed in one place or a few

STORE = "store.db"  # stands for the path of the fixture

LINES: dict[str, list[str]] = {
    "demo": ["made.db"],
    "doctor": [STORE],
    "completion": ["bash"],
    "add": [STORE, "tea", "--embedding", "[1, 2, 3]"],
    "search": [STORE, "--embedding", "[1, 2, 3]"],
    "list": [STORE],
    "show": [STORE, "tea"],
    "update": [STORE, "tea", "--importance", "0.5"],
    "pin": [STORE, "tea"],
    "unpin": [STORE, "tea"],
    "delete": [STORE, "tea"],
    "explain": [STORE, "tea", "--embedding", "[1, 2, 3]"],
    "forget": [STORE, "--importance-below", "0.9"],
    "trash": [STORE],
    "recover": [STORE, "tea"],
    "purge": [STORE, "--older-than", "1d"],
    "erase": [STORE, "tea", "--yes"],
    "history": [STORE, "tea"],
    "undo": [STORE, "1", "tea"],
    "import": [STORE, "lines.jsonl"],
    "export": [STORE],
    "import-folder": [STORE, "folder"],
    "map": [STORE, "made.html"],
    "backup": [STORE, "made.bak"],
    "verify": [STORE],
    "restore": [STORE, "copy.db", "--yes"],
    "stats": [STORE],
    "check": [STORE],
    "repair": [STORE],
    "compact": [STORE],
    "optimize": [STORE],
    "migrate": [STORE],
    "assemblies list": [STORE],
    "assemblies show": [STORE, "drinks"],
    "assemblies search": [STORE, "--embedding", "[1, 2, 3]"],
    "assemblies add": [STORE, "new"],
    "assemblies add-members": [STORE, "drinks", "walk"],
    "assemblies remove-members": [STORE, "drinks", "tea"],
    "assemblies delete": [STORE, "drinks"],
    "assemblies merge": [STORE, "drinks", "drinks"],
    "assemblies unmerge": [STORE, "drinks"],
    "assemblies merge-candidates": [STORE, "--threshold", "0.5"],
    "assemblies suggest": [STORE, "--threshold", "0.5"],
    "assemblies lineage": [STORE, "drinks"],
    "tags list": [STORE],
    "tags rename": [STORE, "drink", "beverage"],
    "tags delete": [STORE, "drink"],
}


ODD_VALUES = [
    "", " ", "-", "--", "-1", "0", "1", "0.5", "1e309", "nan", "inf", "9" * 20, "9" * 5_000, "x" * 300, "x" * 70_000,
    "\udcff", "\ud800", "\u2028\x1b[2J", "🙂", "../../x", "/", "/dev/null", "lines.jsonl", "copy.db", "null", "true", '"x"',
    "[]", "{}", "[" * 3_000, "[" * 900 + "]" * 900, '{"a":' * 900 + "1" + "}" * 900, "[NaN]", "[1e999, 1, 1]", f"[{'9' * 400}, 1, 1]",
    '["\\ud800"]', '["a", "\\u0000"]', "[0, 0, 0]", '{"a": NaN}', '{"\\ud800": 1}', '{"$or": []}', '{"id": {"$in": [[]]}}',
    '{"metadata.a": {"$gt": {}}}', '{"created_at": {"$gt": ["2020-01-01", 5]}}', '{"created_at": "9999-12-31T23:59:59-10:00"}',
    '{"nothing": 1}', "'; DROP TABLE memory; --", "a/b/c", "/".join("a" * 200), "-created_at", "pk", "cosine", "wordllama",
]  # fmt: skip


def test_every_command_has_a_valid_line() -> None:
    assert set(LINES) == {" ".join(path) for path in COMMANDS}


@pytest.fixture
def folder_of_inputs(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder deep enough for `../..`, with a store's copy and lines in it."""
    folder = tmp_path / "a" / "b" / "c"
    folder.mkdir(parents=True)
    shutil.copy(small, folder / "copy.db")
    (folder / "lines.jsonl").write_text('{"content": "x", "embedding": [1, 2, 3]}\n', encoding="utf-8")
    (folder / "folder" / "memories").mkdir(parents=True)
    (folder / "folder" / "memories" / "x.json").write_text('{"id": "x", "content": "x", "embedding": [1, 2, 3]}')
    monkeypatch.chdir(folder)
    return folder


def odd_lines(name: str, samples: int, store: Path) -> Iterator[list[str]]:
    """The line of a command with each of its arguments odd, in several ways."""
    command = COMMANDS[tuple(name.split())]
    rng = random.Random(name)
    usual = [str(store) if word == STORE else word for word in LINES[name]]
    arguments = [parameter for parameter in command.params if isinstance(parameter, typer.core.TyperArgument)]
    for parameter in command.params:
        for value in rng.sample(ODD_VALUES, samples):
            if parameter in arguments:
                flags = [word for word in usual if word == "--yes"]
                values = [value if p is parameter else word for p, word in zip(arguments, usual, strict=False)]
                yield [
                    *name.split(),
                    *flags,
                    "--",
                    *(values if parameter in arguments[: len(values)] else [*values, value]),
                ]
            elif not getattr(parameter, "is_flag", False):
                yield [*name.split(), *usual, f"{parameter.opts[0]}={value}"]


def run_command(arguments: list[str], stdin: str | None = None) -> tuple[int, str]:
    """The exit code of a command and its stderr; it ends without an error of Python."""
    done = CliRunner().invoke(app, arguments, input=stdin, env={"COLUMNS": "80"})
    context = f"{[word[:80] for word in arguments]}: {done.output[:500]}"
    assert done.exception is None or isinstance(done.exception, SystemExit), (context, repr(done.exception))
    assert "Traceback" not in done.output, context
    assert done.exit_code in (0, 1, 2, 3), context
    assert bool(done.stderr) == (done.exit_code in (1, 2)), context
    if done.stderr:
        assert done.stderr.startswith("memstore: error: "), context
        assert done.stderr.count("\n") == {1: 1, 2: 3}[done.exit_code], context
    return done.exit_code, done.stderr


@pytest.mark.parametrize("name", LINES)
def test_an_odd_argument_ends_in_an_exit_code_and_a_message(folder_of_inputs: Path, small: Path, name: str) -> None:
    sound = small.read_bytes()
    codes = []
    for arguments in odd_lines(name, 1 if name == "demo" else SAMPLES, small):  # the demo takes seconds
        small.write_bytes(sound)
        codes.append(run_command(arguments)[0])
        for output in folder_of_inputs.glob("made.*"):
            output.unlink()
    assert ok(small, "check") == "clean\n"
    assert not codes or set(codes) & {1, 2}


GOOD = b'{"content": "x", "id": "a", "embedding": [1, 2, 3]}\n'
NEXT = b'{"content": "y", "id": "b", "embedding": [1, 2, 3]}\n'
STORED = {
    "a mark of the order of bytes": (b"\xef\xbb\xbf" + GOOD + NEXT, 2),
    "line ends of Windows": ((GOOD + NEXT).replace(b"\n", b"\r\n"), 2),
    "no line end": ((GOOD + NEXT).rstrip(), 2),
    "empty lines": (b"\n \n" + GOOD + b"\n\t\r\n" + NEXT + b"\n\n", 2),
    "a key given twice, the last of which counts": (GOOD.replace(b'"content"', b'"content": 5, "content"'), 1),
    "a line of 8 MB": (GOOD.replace(b'"x"', b'"%s"' % (b"x" * 8_000_000)), 1),
    "what some programs take for the end of a line": (GOOD.replace(b"x", "\u2028\x85\x1c".encode()[:5]), 1),
}
REFUSED = {
    "cut off": (GOOD + NEXT[:30], "line 2: Not valid JSON"),
    "no UTF-8": (GOOD + NEXT.replace(b"y", b"\xff\xfe"), "line 2: Not valid JSON"),
    "UTF-16": ((GOOD + NEXT).decode().encode("utf-16"), "line 1: Not valid JSON"),
    "line ends of old": ((GOOD + NEXT).replace(b"\n", b"\r"), "line 1: Not valid JSON"),
    "compressed": (b"\x1f\x8b\x08\x00" + bytes(range(256)), "line 1: Not valid JSON"),
    "U+0000": (b"\0" * 5_000, "line 1: Not valid JSON"),
    "nothing": (b"", "Nothing to import"),
    "nothing but line ends": (b"\n\r\n\n", "Nothing to import"),
    "a list around them": (b"[" + GOOD.strip() + b"," + NEXT.strip() + b"]", "line 1: Expected one JSON object"),
    "an integer of 5,000 digits": (GOOD.replace(b"2", b"2" * 5_000), "line 1: "),
    "a number of 400 digits": (GOOD.replace(b"2", b"2" * 400), "line 1: "),
    "an infinite one": (GOOD.replace(b"2", b"1e999"), "line 1: "),
    "half of a surrogate pair": (GOOD.replace(b'"x"', b'"\\ud800"'), "line 1: Invalid content: it contains half of a surrogate"),
    "half of one as bytes": (GOOD.replace(b'"x"', b'"\xed\xa0\x80"'), "line 1: "),
    "a name of 5,000 letters": (GOOD.replace(b"content", b"c" * 5_000), "line 1: A memory needs the field"),
    "an id given twice": (GOOD + GOOD, "line 2: "),
    "a field nobody knows": (GOOD.replace(b'"content"', b'"nothing": 1, "content"'), "line 1: "),
    **{
        f"{field} is {value.decode():.20}": (GOOD.replace(b'"content"', b'"%s": %s, "content"' % (field.encode(), value)), "line 1: ")
        for field, values in {
            "kind": [b"5", b"null", b"[" * 900 + b"]" * 900, b'{"a": 1}', b'"store"', b'"assembly"'],
            "namespace": [b"5", b'"a"', b"[5]", b"[" * 900 + b"]" * 900, b'["\\ud800"]'],
            "tags": [b"5", b'"a"', b"[5]", b"[[]]", b'[""]', b'{"a": 1}'],
            "metadata": [b"5", b"[]", b'{"a": NaN}', b'{"a": "\\u0000"}', b'{"a": ' + b"[" * 900 + b"]" * 900 + b"}"],
            "created_at": [b"5", b'""', b'"0001-01-01T00:00:00+23:59"', b'"2020-02-30T00:00:00Z"', b"[]"],
            "importance": [b"2", b'"1"', b"NaN", b"true"],
            "access_count": [b"-1", b"1.5", b"99999999999999999999"],
        }.items()
        for value in values
    },
    **{
        f"members are {value.decode():.20}": (GOOD + b'{"kind": "assembly", "id": "g", "members": %s}\n' % value, "line 2: ")
        for value in (b"5", b'"a"', b"[5]", b"[[]]", b"[{}]", b'["absent"]', b'["\\ud800"]', b'{"a": 1}')
    },
}  # fmt: skip


@pytest.mark.parametrize("case", STORED)
@pytest.mark.parametrize("tagged", [(), ("--tag", "more")], ids=["", "tagged"])
def test_valid_json_lines_are_imported(path: Path, tmp_path: Path, case: str, tagged: tuple[str, ...]) -> None:
    data, count = STORED[case]
    (tmp_path / "in.jsonl").write_bytes(data)
    assert run_command(["import", str(path), str(tmp_path / "in.jsonl"), *tagged]) == (0, "")
    assert lines(path, "stats --json")[0]["memories"] == count


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("tagged", [(), ("--tag", "more")], ids=["", "tagged"])
def test_invalid_input_is_reported_by_its_line(small: Path, tmp_path: Path, case: str, tagged: tuple[str, ...]) -> None:
    data, expected = REFUSED[case]
    (tmp_path / "in.jsonl").write_bytes(data)
    code, message = run_command(["import", str(small), str(tmp_path / "in.jsonl"), *tagged])
    assert code == 1
    assert expected in message
    assert len(message) < 1_500
    stored = lines(small, "stats --json")[0]["memories"] - 4
    assert stored == case.startswith("members")  # chunks of memories are stored whole
    assert expected.startswith(("line 1", "Nothing")) or f"{stored} record" in message
    assert ok(small, "check") == "clean\n"


def mutate(data: bytes, rng: random.Random) -> bytes:
    """An export with something else in one to three of its places."""
    for _ in range(rng.choice([1, 1, 2, 3])):
        at = rng.randrange(len(data))
        size = rng.choice([1, 1, 2, 5, 40, 400])
        other = rng.choice(
            [
                b"",
                rng.randbytes(size),
                data[at : at + size] * 2,
                rng.choice(ODD_VALUES).encode("utf-8", "surrogatepass"),
                b"\n",
            ]
        )
        data = data[:at] + other + data[at + rng.choice([0, size]) :]
    return data if rng.random() < 0.9 else data[: rng.randrange(len(data))]


def test_a_changed_export_is_imported_or_reported_by_its_line(rich: Path, tmp_path: Path) -> None:
    exported, changed, target = tmp_path / "all.jsonl", tmp_path / "changed.jsonl", tmp_path / "to.db"
    ok(rich, "export", exported)
    data = exported.read_bytes()
    codes: list[Any] = []
    for seed in range(MUTATIONS):
        changed.write_bytes(mutate(data, random.Random(seed)))
        codes.append(run_command(["import", str(target), str(changed), "--upsert"])[0])
    assert set(codes) == {0, 1}
    assert ok(target, "check") == "clean\n"
