"""Stored texts in the output of commands."""

import pytest

from memstore.cli.namespaces import format_namespace
from memstore.cli.options import parse_namespace
from tests.cli.commands import fails, lines, ok


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
