"""Texts are safe to print: in errors, in log lines, and as JSON."""

import ast
import json
import logging
from pathlib import Path

import pytest

import memstore
from memstore.errors import MemstoreError, short_repr
from memstore.escaping import escape_json, escape_text, library_logger

UNSAFE = (
    *map(chr, [*range(32), *range(127, 160)]),
    *"\xad\u061c\u180e\u200b\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff",
    "\U000e0041",
    "\ud800",
)
SAFE = ("plain", "Ärger", "日本語", "می\u200cخواهم", "👩\u200d💻 ✔\ufe0f", "a\xa0b", "C:\\temp", "٣")


@pytest.mark.parametrize("character", UNSAFE, ids=ascii)
def test_an_unsafe_character_is_escaped_as_python_escapes_it(character: str) -> None:
    assert escape_text(f"a{character}b") == "a" + ascii(character)[1:-1] + "b"


@pytest.mark.parametrize("text", SAFE)
def test_text_of_every_script_stays_as_it_is(text: str) -> None:
    assert escape_text(text) == text


def test_a_joiner_beside_ascii_is_escaped_because_it_only_hides() -> None:
    assert escape_text("ad\u200dmin") == r"ad\u200dmin"


def test_characters_to_keep_stay() -> None:
    assert escape_text("a\tb\nc\rd", keep="\n\t") == "a\tb\nc\\rd"


@pytest.mark.parametrize("character", UNSAFE, ids=ascii)
def test_escaped_json_is_the_same_document(character: str) -> None:
    document = json.dumps({character: [f"x{character}y"]}, ensure_ascii=False)
    escaped = escape_json(document)
    assert json.loads(escaped) == json.loads(document)
    assert character not in escaped


def test_the_message_of_an_error_is_one_line_and_short_repr_too() -> None:
    class Forged:
        def __repr__(self) -> str:
            return "x\nall is well\x1b[2J"

    assert str(MemstoreError("no \x1b[2J record\nmemstore: all is well")) == r"no \x1b[2J record\nmemstore: all is well"
    assert short_repr(Forged()) == r"x\nall is well\x1b[2J"


def test_a_log_line_escapes_its_arguments_and_keeps_its_template(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "memstore"):
        library_logger().info("record %s, %.1f s, %d", "a\nWARNING forged\x9b31m", 1.25, 3)
        library_logger().info("record %(name)s", {"name": "\u202egpj"})
    assert [record.getMessage() for record in caplog.records] == [
        r"record a\nWARNING forged\x9b31m, 1.2 s, 3",
        r"record \u202egpj",
    ]
    assert caplog.records[0].msg == "record %s, %.1f s, %d"


class _Key(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def test_the_traceback_of_a_log_line_has_no_control_characters(caplog: pytest.LogCaptureFixture) -> None:
    try:
        {}[_Key("\x1b]0;title\x07")]
    except KeyError:
        library_logger().exception("failed")
    assert "\x1b" not in caplog.text
    assert r"\x1b]0;title\x07" in caplog.text


def test_every_module_takes_its_logger_from_the_escaping_module() -> None:
    package = Path(memstore.__file__).parent
    users = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "getLogger"
    }
    assert users == {"escaping.py", "embedders/wordllama.py"}
