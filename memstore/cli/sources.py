"""Files to import, as items: JSON Lines, Markdown and plain text, read as they are needed."""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from memstore import InvalidError
from memstore.cli import chunking
from memstore.cli.chunking import Passage
from memstore.cli.jsonl import Item, item_of
from memstore.cli.options import refuse

STDIN = "-"


class Format(StrEnum):
    """What a file to import is."""

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
_PASSAGES: dict[Format, Callable[[str], Iterator[Passage]]] = {
    Format.MARKDOWN: chunking.of_markdown,
    Format.TEXT: chunking.of_text,
}


class Reading:
    """The items of some files, in order, each read when it is asked for.

    Attributes:
        total: bytes to read; None where one is stdin.
        done: bytes read.
        place: where the last item was read, or could not be.
    """

    def __init__(self, sources: list[str], format: Format | None) -> None:
        self._sources = [(source, format or _format_of(source)) for source in sources]
        paths = [Path(source) for source in sources if source != STDIN]
        for path in paths:
            if not path.is_file():
                raise InvalidError(f"there is no file {str(path)!r} to import")
        self.total = None if len(paths) < len(sources) else sum(path.stat().st_size for path in paths)
        self.done = 0
        self.place = "the start"

    def __iter__(self) -> Iterator[Item]:
        for source, format in self._sources:
            read = self._lines if format is Format.JSONL else self._passages
            with _opened(source) as file:
                yield from read(file, source, format)

    def _lines(self, file: BinaryIO, source: str, format: Format) -> Iterator[Item]:  # noqa: ARG002 - as _passages
        number = 0
        while line := _read(source, file.readline):
            self.done += len(line)
            number += 1
            if not line.strip():
                continue
            self.place = place = f"{_name(source)}, line {number:,}"
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InvalidError(f"{place}: not a line of JSON: {error}") from error
            yield item_of(value, place)

    def _passages(self, file: BinaryIO, source: str, format: Format) -> Iterator[Item]:
        data = _read(source, file.read)
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InvalidError(f"{_name(source)} is not UTF-8: {error}") from error
        made = list(_PASSAGES[format](text))
        for number, passage in enumerate(made, 1):
            self.done += len(data) // len(made)
            self.place = place = f"{_name(source)}, part {number:,}"
            yield Item(kind="memory", fields=_fields(passage, _name(source), number), place=place)


def _fields(passage: Passage, source: str, number: int) -> dict[str, object]:
    """A passage as a memory. Its id says where it is from, so that the same file is not imported twice unnoticed."""
    title = " › ".join(passage.headings)
    return {
        "id": f"{source}#{number}",
        "content": f"{title}\n\n{passage.text}" if title else passage.text,
        "metadata": {"source": source, "part": number, "headings": list(passage.headings)},
    }


def _format_of(source: str) -> Format:
    if source == STDIN:
        return Format.JSONL
    found = _SUFFIXES.get(Path(source).suffix.lower())
    if found is None:
        raise refuse("--format", f"what {source!r} is, its name does not say: give --format jsonl, markdown or text")
    return found


def _name(source: str) -> str:
    return "stdin" if source == STDIN else Path(source).as_posix()


@contextmanager
def _opened(source: str) -> Iterator[BinaryIO]:
    if source == STDIN:
        yield sys.stdin.buffer
    else:
        with Path(source).open("rb") as file:
            yield file


def _read(source: str, read: Callable[[], bytes]) -> bytes:
    """What *read* gives; from stdin it can be stopped by Ctrl-C.

    asyncio turns Ctrl-C into a cancellation, which a read that waits for somebody's typing would sit out.
    """
    if source != STDIN:
        return read()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return read()
    finally:
        signal.signal(signal.SIGINT, before)
