"""Splits texts into passages for import: parts of a few hundred characters, each with the headings above it.

`semantic-text-splitter` chooses the boundaries: sections, paragraphs, then sentences and words. The headings come
from the Markdown parser that rich also uses. A passage never crosses a heading.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from markdown_it import MarkdownIt
from semantic_text_splitter import MarkdownSplitter

SIZE = 600
"""Characters from which on a passage is complete."""

LONGEST = 1_500
"""Characters of a passage, at most. Paragraphs and code blocks up to this length stay whole."""

# For plain text too: TextSplitter trims the indentation of code at the start of a passage.
_SPLITTER = MarkdownSplitter((SIZE, LONGEST))
_UNDERLINED = re.compile(r"^(\S.*)\n([*=\-~^])\2{2,}[ ]*$", re.MULTILINE)
_LEVELS = "*=-~^"
_LINE_ENDS = re.compile("\r\n?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A part of a text.

    Attributes:
        headings: the headings above it, outermost first.
        text: the part itself, without its headings.
    """

    headings: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heading:
    """A heading: its level (1 is the outermost), its text, and the characters it occupies."""

    level: int
    title: str
    start: int
    end: int


def of_text(text: str) -> Iterator[Passage]:
    """The passages of a plain text, in order, without headings."""
    return _passages(_LINE_ENDS.sub("\n", text), ())


def of_markdown(text: str) -> Iterator[Passage]:
    """The passages of a Markdown text, in order."""
    text = _LINE_ENDS.sub("\n", text)  # as the parser does: it counts lines by them
    return _passages(text, _markdown_headings(text))


def of_reference(text: str) -> Iterator[Passage]:
    """The passages of a topic of Python's reference, in order: plain text whose headings are underlined."""
    return _passages(text, _underlined_headings(text))


def _passages(text: str, headings: Iterable[_Heading]) -> Iterator[Passage]:
    """Split the text between two headings; the passages carry the titles of the open sections."""
    outline: list[_Heading] = []
    start = 0
    for heading in headings:
        yield from _section(outline, text[start : heading.start])
        outline = [*(outer for outer in outline if outer.level < heading.level), heading]
        start = heading.end
    yield from _section(outline, text[start:])


def _section(outline: list[_Heading], text: str) -> Iterator[Passage]:
    titles = tuple(heading.title for heading in outline)
    return (Passage(headings=titles, text=chunk) for chunk in _SPLITTER.chunks(text))


def _markdown_headings(text: str) -> Iterator[_Heading]:
    """The headings of a Markdown text that are not inside a quotation or a list."""
    starts = [0, *(match.end() for match in re.finditer("\n", text)), len(text)]
    tokens = MarkdownIt("commonmark").parse(text)
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open" and opening.level == 0 and opening.map is not None:
            first, end = opening.map
            yield _Heading(level=int(opening.tag[1]), title=inline.content, start=starts[first], end=starts[end])


def _underlined_headings(text: str) -> Iterator[_Heading]:
    for match in _UNDERLINED.finditer(text):
        level = _LEVELS.index(match[2]) + 1
        yield _Heading(level=level, title=match[1].strip(), start=match.start(), end=match.end())
