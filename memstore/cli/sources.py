"""The files that `import` reads: JSON Lines, Markdown and text, parsed item by item."""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import BinaryIO

from memstore import InvalidError
from memstore.cli import chunking
from memstore.cli.chunking import Passage
from memstore.cli.jsonl import Item, parse_item
from memstore.cli.options import refuse

STDIN = "-"
MAX_BYTES = 512 * 1024 * 1024
"""The longest line: more than the JSON of the longest text and a vector."""


class Format(StrEnum):
    """The format of a file to import."""

    JSONL = "jsonl"
    MARKDOWN = "markdown"
    TEXT = "text"


_SUFFIXES = {
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".md": Format.MARKDOWN,
    ".markdown": Format.MARKDOWN,
    ".txt": Format.TEXT,
    ".text": Format.TEXT,
}
_CHUNKERS: dict[Format, Callable[[str], Iterator[Passage]]] = {
    Format.MARKDOWN: chunking.of_markdown,
    Format.TEXT: chunking.of_text,
}


class Source:
    """The items of some files, in order; each is read when the iteration reaches it.

    Attributes:
        total: size of the files in bytes; None if one is stdin.
        done: bytes read.
        place: the file and line that was read last.
    """

    def __init__(self, names: list[str], format: Format | None) -> None:
        self._names = [(name, format or _format_of(name)) for name in names]
        paths = [Path(name) for name in names if name != STDIN]
        for path in paths:
            if not path.is_file():
                raise InvalidError(f"No file {str(path)!r} to import.")
        self.total = None if len(paths) < len(names) else sum(path.stat().st_size for path in paths)
        self.done = 0
        self.place = "the start"

    def __iter__(self) -> Iterator[Item]:
        for name, format in self._names:
            parse = self._lines if format is Format.JSONL else self._passages
            with _open(name) as file:
                yield from parse(file, name, format)

    def _lines(self, file: BinaryIO, name: str, format: Format) -> Iterator[Item]:  # noqa: ARG002 - as _passages
        number, is_complete = 0, True
        while line := _read(name, partial(file.readline, MAX_BYTES + 1)):
            if len(line) > MAX_BYTES:
                raise InvalidError(f"{_display_name(name)} has a line over {MAX_BYTES:,} bytes. Split it.")
            self.done += len(line)
            number += 1
            if not line.strip():
                continue
            self.place = place = f"{_display_name(name)}, line {number:,}"
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InvalidError(f"{place}: Not valid JSON: {error}.") from error
            item = parse_item(value, place)
            if item.kind == "end":
                is_complete = True
                continue
            is_complete = is_complete and item.kind != "store"
            yield item
        if not is_complete:
            raise InvalidError(
                f"{_display_name(name)}: The export is incomplete: it has no end line, so it was interrupted. Export "
                "again, or delete its first line to import the records that it has."
            )

    def _passages(self, file: BinaryIO, name: str, format: Format) -> Iterator[Item]:
        data = _read(name, file.read)
        title = _display_name(name)
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InvalidError(f"{title} is not valid UTF-8: {error}.") from error
        passages = list(_CHUNKERS[format](text))
        for number, passage in enumerate(passages, 1):
            self.done += len(data) // len(passages)
            self.place = place = f"{title}, part {number:,}"
            yield Item(kind="memory", fields=_fields(passage, title, number), place=place)


def _fields(passage: Passage, source: str, number: int) -> dict[str, object]:
    """A passage as a memory. Its id has the name of the file, so that a second import of it is noticed."""
    title = " › ".join(passage.headings)
    return {
        "id": f"{source}#{number}",
        "content": f"{title}\n\n{passage.text}" if title else passage.text,
        "metadata": {"source": source, "part": number, "headings": list(passage.headings)},
    }


def _format_of(name: str) -> Format:
    if name == STDIN:
        return Format.JSONL
    format = _SUFFIXES.get(Path(name).suffix.lower())
    if format is None:
        raise refuse("--format", f"Cannot infer the format of {name!r}; pass --format jsonl, markdown or text.")
    return format


def _display_name(name: str) -> str:
    return "stdin" if name == STDIN else Path(name).as_posix()


@contextmanager
def _open(name: str) -> Iterator[BinaryIO]:
    if name == STDIN:
        yield sys.stdin.buffer
    else:
        with Path(name).open("rb") as file:
            yield file


def _read(name: str, read: Callable[[], bytes]) -> bytes:
    """The result of *read*, which Ctrl-C interrupts if it reads from stdin.

    asyncio turns Ctrl-C into a cancellation, which would wait until a read from a terminal ends.
    """
    if name != STDIN:
        return read()
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return read()
    finally:
        signal.signal(signal.SIGINT, handler)
