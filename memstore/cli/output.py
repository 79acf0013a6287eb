"""What is printed: tables for people, JSON for machines, and progress on stderr where it is a terminal.

Colours and width are rich's: none and 80 columns (or COLUMNS) where the output is no terminal. Texts of records are
data: they are never read as markup, and their control characters are shown, not sent to the terminal.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from memstore import Assembly, AssemblyHit, Embedding, Hit, Hits, Memory
from memstore.cli.options import namespace_text
from memstore.models import Finding, Stats, VerifyReport

SNIPPET = 220
_LINE_ENDS = {code: f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029)}
_SHOWN = {code: f"\\x{code:02x}" for code in (*range(32), 127, *range(128, 160)) if chr(code) not in "\n\t"}


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        """Raise it again: the exit code is the app's to choose, not rich's."""
        raise  # noqa: PLE0704 - rich calls this while it handles the error


def console(*, stderr: bool = False) -> Console:
    """A console for stdout as it is now, or stderr."""
    return _Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def say(text: str, *, style: str | None = None) -> None:
    """One line for people."""
    console().print(Text(clean(text), style=style or ""), soft_wrap=True)


def say_json(value: object) -> None:
    """One line of JSON."""
    sys.stdout.write(json_line(value))


def json_line(value: object) -> str:
    """*value* as a line of JSON, as UTF-8 can be; what else some programs take for the end of a line is escaped."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).translate(_LINE_ENDS) + "\n"


def json_text(value: object) -> str:
    """JSON for people; nothing for an empty object."""
    return json.dumps(value, ensure_ascii=False) if value else ""


def space_text(found: Stats | VerifyReport) -> str:
    """What the vectors of a store are, in one line."""
    curved = "" if found.curvature is None else f", of curvature -{found.curvature:g}"
    return f"dimension {found.dimension}, compared by {found.metric}{curved}"


def vector_text(vector: Embedding | None) -> str:
    """A vector in one line: how many numbers, its length, and the first of them."""
    if vector is None:
        return "none"
    head = ", ".join(f"{x:.4g}" for x in vector[:4].tolist())
    return f"{vector.size} numbers of length {float(np.linalg.norm(vector)):.4g}: {head}{', …' * (vector.size > 4)}"


def clean(text: str) -> str:
    """*text* with its control characters spelled out."""
    return text.translate(_SHOWN)


def snippet(text: str, size: int = SNIPPET) -> str:
    """The beginning of *text* on one line."""
    line = clean(" ".join(text[: size * 4].split()))
    return line if len(line) <= size and len(text) <= size * 4 else line[: size - 1].rstrip() + "…"


def table(*columns: str) -> Table:
    """A table with a line under its head and no other."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        right = column.startswith(">")
        made.add_column(column.lstrip(">"), justify="right" if right else "left", no_wrap=right, overflow="fold")
    return made


def show_table(made: Table) -> None:
    """Print a table; without the spaces at the ends of its lines where the output is no terminal."""
    screen = console()
    if screen.is_terminal:
        screen.print(made)
        return
    with screen.capture() as drawn:
        screen.print(made)
    sys.stdout.write("".join(line.rstrip() + "\n" for line in drawn.get().splitlines()))


def show_fields(fields: Mapping[str, object]) -> None:
    """Print names with their values, one a line; what is None or empty is left out."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in fields.items():
        if value is not None and value != "":
            grid.add_row(name, value if isinstance(value, Text) else Text(clean(str(value))))
    show_table(grid)


def number(count: int, noun: str, plural: str | None = None) -> str:
    """A count with its noun."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def size_text(size: int) -> str:
    """Bytes for people."""
    value, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} B" if units[0] == "B" else f"{value:.1f} {units[0]}"


def show_memories(memories: Iterable[Memory]) -> int:
    """Print memories as a table; how many."""
    made = table("memory", "created (UTC)")
    for memory in memories:
        made.add_row(memory_text(memory), Text(f"{memory.created_at:%Y-%m-%d %H:%M}", style="dim"))
    if made.row_count:
        show_table(made)
    return made.row_count


def show_hits(hits: Hits[Hit]) -> None:
    """Print what a search of memories found."""
    boosted = any(hit.score_boost is not None for hit in hits)
    made = table(">score", *(">boost",) * boosted, "memory", *("by",) * boosted)
    for hit in hits:
        row = [_score(hit.score), memory_text(hit.memory)]
        if boosted:
            row = [row[0], Text(f"{hit.boost:.3f}"), row[1], Text(clean(hit.assembly or hit.reason), style="dim")]
        made.add_row(*row)
    _show_found(hits, made, "memory", "memories")


def show_assembly_hits(hits: Hits[AssemblyHit]) -> None:
    """Print what a search of assemblies found."""
    made = table(">score", "assembly", ">members")
    for hit in hits:
        made.add_row(_score(hit.score), assembly_text(hit.assembly), f"{hit.assembly.member_count:,}")
    _show_found(hits, made, "assembly", "assemblies")


def _show_found(hits: Hits[Any], made: Table, noun: str, plural: str) -> None:
    if made.row_count:
        show_table(made)
    compared = number(hits.plan.allowed, noun, plural)
    say(f"{number(len(hits), 'hit') if hits else 'nothing found'} ({compared} compared)", style="dim")


def _score(score: float) -> Text:
    return Text(f"{score:.3f}", style="bold")


def memory_text(memory: Memory) -> Text:
    """A memory in a cell: the beginning of its text, then id and tags."""
    return _with_details(snippet(memory.content) or "(empty)", memory, memory.tags)


def assembly_text(assembly: Assembly) -> Text:
    """An assembly in a cell: its name, then id, tags and topics."""
    title = snippet(assembly.name or assembly.description) or assembly.id
    return _with_details(title, assembly, [*assembly.tags, *assembly.topics])


def _with_details(title: str, record: Memory | Assembly, words: Iterable[str]) -> Text:
    text = Text(title)
    text.append("\n" + clean(record.id), style="dim")
    if isinstance(record, Memory) and record.pinned:
        text.append(" pinned", style="yellow")
    if record.namespace:
        text.append(" in " + clean(namespace_text(record.namespace)), style="dim")
    for word in sorted(set(words)):
        text.append(" #" + clean(word), style="cyan")
    return text


def show_findings(findings: Iterable[Finding]) -> None:
    """Print what a check found as a table."""
    made = table("finding", "of", "what is wrong")
    for finding in findings:
        where = f" in {namespace_text(finding.namespace)}" if finding.namespace else ""
        owner = f"{finding.noun} {finding.id}{where}".strip()
        made.add_row(Text(finding.kind, style="red"), Text(clean(owner)), Text(clean(finding.detail)))
    show_table(made)


def progress() -> Progress:
    """A progress bar on stderr that goes away; nothing where stderr is no terminal."""
    screen = console(stderr=True)
    screen.quiet = not screen.is_terminal  # a disabled bar of an older rich ends with an empty line
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=screen,
        transient=True,
        disable=not screen.is_terminal,
    )
