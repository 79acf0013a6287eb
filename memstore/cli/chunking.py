"""Texts cut into passages: paragraphs grouped to some hundred characters, under their headings, code kept whole."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

SIZE = 600
"""Characters a passage has about: enough to say one thing, few enough to say only one."""

LONGEST = 1_500
"""A paragraph longer than this is cut at the ends of its sentences."""

_UNDERLINE = re.compile(r"([*=\-~^#+])\1{2,}\s*")
_HASHES = re.compile(r"(#{1,6})\s+(.*?)\s*#*\s*")
_FENCE = re.compile(r"\s*(```+|~~~+)")
_SENTENCE = re.compile(r"(?<=[.!?。])\s+")
_PROSE = re.compile(r"\s+[A-Z][a-z’']*,? [a-z\"*(]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A part of a text.

    Attributes:
        headings: those it stands under, outermost first.
        text: its paragraphs, with an empty line between them.
    """

    headings: tuple[str, ...]
    text: str


def of_text(text: str) -> Iterator[Passage]:
    """The passages of a plain text, in order; it has no headings."""
    yield from _passages((), text.splitlines())


def of_markdown(text: str) -> Iterator[Passage]:
    """The passages of a Markdown text, in order. Headings are `# …`, or underlined with = or -."""
    for headings, lines in _sections(text.splitlines(), underlines="=-", hashes=True):
        yield from _passages(headings, lines)


def of_reference(text: str) -> Iterator[Passage]:
    """The passages of a text of Python's reference, in order: headings are underlined, code is indented."""
    for headings, lines in _sections(text.splitlines(), underlines="*=-~^", hashes=False):
        yield from _passages(headings, lines, indented_code=True)


def _sections(lines: list[str], *, underlines: str, hashes: bool) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Lines under the headings they stand under; the level of an underlined one is its character's."""
    outline: list[tuple[int, str]] = []
    body: list[str] = []
    fence = ""
    for line in lines:
        if fence or (hashes and _FENCE.match(line)):
            fence = _fence(line, fence)
            body.append(line)
            continue
        found = _HASHES.fullmatch(line) if hashes else None
        level, title = (len(found[1]), found[2]) if found else (0, "")
        # Three spaces before the line above make it code, and an empty one makes the underline a rule.
        underlined = _UNDERLINE.fullmatch(line) and line[0] in underlines and body and body[-1][:1].strip()
        if not found and underlined and (len(body) == 1 or not body[-2].strip()):
            level, title = underlines.index(line[0]) + 1, body.pop().strip()
        if not level:
            body.append(line)
            continue
        yield tuple(title for _, title in outline), body
        outline = [*(above for above in outline if above[0] < level), (level, title)]
        body = []
    yield tuple(title for _, title in outline), body


def _fence(line: str, open: str) -> str:
    """The fence that is open after *line*; empty where none is."""
    found = _FENCE.match(line)
    if not open:
        return found[1] if found else ""
    closes = found is not None and found[1].startswith(open) and not line.strip().strip(open[0])
    return "" if closes else open


def _passages(headings: tuple[str, ...], lines: Iterable[str], *, indented_code: bool = False) -> Iterator[Passage]:
    """Paragraphs grouped: a new passage begins where the next paragraph would be too much, and never at code."""
    group: list[str] = []
    for block, is_code in _blocks(lines, indented_code=indented_code):
        size = sum(map(len, group))
        if group and not is_code and size + len(block) > SIZE and size > SIZE // 5:
            introduces = block.startswith(" ") and not group[-1].startswith(" ") and len(group) > 1
            last = [group.pop()] if introduces else []  # "object.__init__(self)" belongs to what is indented below it
            yield Passage(headings=headings, text="\n\n".join(group))
            group = last
        group.append(block)
    if group:
        yield Passage(headings=headings, text="\n\n".join(group))


def _blocks(lines: Iterable[str], *, indented_code: bool) -> Iterator[tuple[str, bool]]:
    """Paragraphs and whole pieces of code, and which they are."""
    code: list[str] = []
    for paragraph, fenced in _paragraphs(lines):
        if indented_code and _is_code(paragraph):
            code.append(paragraph)
            continue
        if code:
            yield "\n\n".join(code), True
            code = []
        if fenced or len(paragraph) <= LONGEST:
            yield paragraph, fenced
        else:
            for part in _cut(paragraph):
                yield part, False
    if code:
        yield "\n\n".join(code), True


def _paragraphs(lines: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Lines up to an empty one; and what stands between fences, as one."""
    paragraph: list[str] = []
    fence = ""
    for line in lines:
        opened = fence or _fence(line, "")
        if opened and not fence and paragraph:
            yield "\n".join(paragraph), False
            paragraph = []
        if opened or line.strip():
            paragraph.append(line.rstrip())
        fence = _fence(line, fence)
        if paragraph and not fence and (opened or not line.strip()):
            yield "\n".join(paragraph), bool(opened)
            paragraph = []
    if paragraph:
        yield "\n".join(paragraph), bool(fence)


def _is_code(paragraph: str) -> bool:
    """Whether it is indented and does not read like the text of a description, which is indented too."""
    return all(line.startswith("   ") for line in paragraph.splitlines()) and not _PROSE.match(paragraph)


def _cut(paragraph: str) -> Iterator[str]:
    """A long paragraph in parts of whole sentences, or of words where a sentence is too long."""
    part = ""
    for sentence in _SENTENCE.split(paragraph):
        for piece in (
            [sentence] if len(sentence) <= LONGEST else re.findall(rf"\S.{{0,{SIZE}}}(?!\S)|\S+", sentence, re.DOTALL)
        ):
            if part and len(part) + len(piece) > SIZE:
                yield part
                part = ""
            part = f"{part} {piece}" if part else piece
    if part:
        yield part
