"""Messages of the library in the words of commands."""

import re
from datetime import UTC, datetime

import pytest

import memstore
from memstore.cli.messages import in_words_of_commands, translate
from tests.support.messages import PACKAGE, messages

API_WORDS = re.compile(
    r"\b[a-z_]+=|\w\(\)|\bmemstore\.[a-z]|\bstore\.(?!db\b)[a-z]|read_only|delete_many|timedelta|datetime|frozenset|"
    r"\b(?:NoneType|None|True|False|str|dict|tuple|int)\b|\b[A-Z][a-z]+(?:[A-Z][a-z]+)+\b"
)
"""What only callers of the API know: arguments, calls, classes and types of Python."""
NAMES = re.compile(r"OpenMP|NumPy|SQLAlchemy|JSON|WordLlama|OMP|WAL|WordNet|LevelDB|CoreML|MacOS|GraphQL")
NO_COMMAND = re.compile(
    r"engine|graph_options|GraphOptions|vector_type|IndexOptions|indexed_metadata|event loop|async|await|transaction|"
    r"\btx\b|fork|embed\(\)|temporary_store|rerank|policy for|queries|items: |suggestions|Change that|snapshot|"
    r"`python|Invalid call|opened with read_only|nest_asyncio|trio|pickle|frame|kernel|view"
)
"""Messages about what no command can do: it has no option for it."""


def _library_errors() -> list[str]:
    parts = ("cli", "visualize", "testing.py", "embedders", "concurrency.py", "index")
    return sorted(
        {
            message.text
            for message in messages()
            if message.shown_by.endswith("Error")
            and message.path.relative_to(PACKAGE).parts[0] not in parts
            and not NO_COMMAND.search(message.text)
        }
    )


def test_no_message_of_a_command_has_a_word_of_the_api() -> None:
    remaining = {}
    for text in _library_errors():
        outside_quotations = re.sub(r"(?<!\w)'(?:[^'\\]|\\.)*'|`[^`]*`", "", translate(text))
        if words := API_WORDS.findall(NAMES.sub("", outside_quotations)):
            remaining[translate(text)] = words
    assert remaining == {}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (memstore.NotFoundError("memory", "x=None", ()), "There is no memory 'x=None'."),
        (memstore.NotFoundError("memory", "x", ("a", "b")), "There is no memory 'x' in namespace a/b."),
        (memstore.NotFoundError("memory", "x", ("a/b", "c")), 'There is no memory \'x\' in namespace ["a/b", "c"].'),
        (memstore.NotFoundError("memory", "x", (), trash=True), "There is no memory 'x' in the trash."),
        (
            memstore.DuplicateError("memory", "get() text (str)"),
            "Memory 'get() text (str)' exists: pass --upsert to replace it, or run `memstore update` to change it.",
        ),
        (
            memstore.InvalidError(f"found {datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)!r}"),
            "found 2020-01-02T03:04:05Z.",
        ),
        (memstore.InvalidError("pass metric='l2', or recursive=True"), "pass --metric l2, or --recursive."),
        (memstore.InvalidError("It's None: use memstore.restore_backup()"), "It's null: use `memstore restore`."),
    ],
    ids=lambda value: str(value)[:40],
)
def test_messages_are_translated_outside_quotations(error: memstore.MemstoreError, message: str) -> None:
    assert in_words_of_commands(error) == message
