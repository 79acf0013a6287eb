"""What commands print: tables and lines for people, JSON for programs, progress bars on stderr.

rich chooses colours and width: no colours and 80 columns (or COLUMNS) if the output is not a terminal. Texts of
records are data: they are never parsed as markup, and their control characters are escaped.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, Protocol

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from memstore import Assembly, AssemblyHit, Hit, Hits, Memory
from memstore.cli.namespaces import format_namespace
from memstore.cli.text import json_line, minute_text, quantity, snippet
from memstore.escaping import escape_text
from memstore.models import Finding


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        """Raise the error again: rich would exit with a code of its own."""
        raise  # noqa: PLE0704 - rich calls this while it handles the error


def console(*, stderr: bool = False) -> Console:
    """A console for the current stdout, or stderr."""
    return _Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def print_line(text: str, *, style: str | None = None) -> None:
    """Print one line for people."""
    console().print(Text(escape_text(text), style=style or ""), soft_wrap=True)


def print_text(text: str) -> None:
    """Print a stored text of any number of lines behind a margin, so that none looks like output of the command."""
    lines = text.split("\n")
    margin = "│ " if len(lines) > 1 else ""
    screen = console()
    for line in lines:
        screen.print(Text(margin + escape_text(line, keep="\t")), soft_wrap=True)


def print_note(text: str) -> None:
    """Print one line of less importance."""
    print_line(text, style="dim")


def print_json(value: object) -> None:
    """Print one line of JSON."""
    sys.stdout.write(json_line(value))


def print_result(value: object, text: str, *, json: bool) -> None:
    """Print *value* with `--json`, else *text*."""
    if json:
        print_json(value)
    else:
        print_line(text)


def table(*columns: str) -> Table:
    """An empty table with a line below its header. A column whose name starts with `>` is right-aligned."""
    grid = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        right = column.startswith(">")
        grid.add_column(column.lstrip(">"), justify="right" if right else "left", no_wrap=right, overflow="fold")
    return grid


def print_table(grid: Table) -> None:
    """Print a table that has rows; without trailing spaces if the output is not a terminal."""
    if not grid.row_count:
        return
    screen = console()
    if screen.is_terminal:
        screen.print(grid)
        return
    with screen.capture() as capture:
        screen.print(grid)
    sys.stdout.write("".join(line.rstrip() + "\n" for line in capture.get().splitlines()))


def print_fields(fields: Mapping[str, object]) -> None:
    """Print names with their values, one a line, without those that are None or empty."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in fields.items():
        if value is not None and value != "":
            grid.add_row(name, value if isinstance(value, Text) else Text(escape_text(str(value))))
    print_table(grid)


def print_page(count: int, total: int, noun: str) -> None:
    """Print how many records of a list there are, and how to see the rest."""
    print_note(f"{count:,} of {quantity(total, noun)}; pass --all for all" if count < total else quantity(total, noun))


def print_memories(memories: Iterable[Memory]) -> int:
    """Print memories as a table; returns their number."""
    grid = table("memory", "created (UTC)")
    for memory in memories:
        grid.add_row(memory_text(memory), Text(minute_text(memory.created_at), style="dim"))
    print_table(grid)
    return grid.row_count


def print_hits(hits: Hits[Hit]) -> None:
    """Print the hits of a search for memories."""
    boosted = any(hit.score_boost is not None for hit in hits)
    grid = table(">score", *(">boost",) * boosted, "memory", *("assembly",) * boosted)
    for hit in hits:
        cells = [score_text(hit.score), memory_text(hit.memory)]
        if boosted:
            source = Text(escape_text(hit.assembly or f"({hit.reason.replace('_', ' ')})"), style="dim")
            cells = [cells[0], Text(f"{hit.boost:.3f}"), cells[1], source]
        grid.add_row(*cells)
    print_table(grid)
    nearest = hits.plan.nearest_assembly
    if nearest is not None and not hits.activated:
        print_note(
            f"no assembly is near enough: the nearest, {escape_text(nearest.id)}, scores {nearest.score:.3f}; "
            f"{nearest.threshold:.3f} activates"
        )
    _print_hit_count(hits, "memory")


def print_assembly_hits(hits: Hits[AssemblyHit]) -> None:
    """Print the hits of a search for assemblies."""
    grid = table(">score", "assembly", ">members")
    for hit in hits:
        grid.add_row(score_text(hit.score), assembly_text(hit.assembly), f"{hit.assembly.member_count:,}")
    print_table(grid)
    _print_hit_count(hits, "assembly")


def _print_hit_count(hits: Hits[Any], noun: str) -> None:
    print_note(f"{quantity(len(hits), 'hit') if hits else 'no hits'} ({quantity(hits.plan.allowed, noun)} compared)")


def print_findings(findings: Iterable[Finding]) -> None:
    """Print the defects that a check found."""
    grid = table("finding", "record", "detail")
    for finding in findings:
        namespace = f" in {format_namespace(finding.namespace)}" if finding.namespace else ""
        owner = f"{finding.record_kind} {finding.id}{namespace}".strip()
        grid.add_row(Text(finding.kind, style="red"), Text(escape_text(owner)), Text(escape_text(finding.detail)))
    print_table(grid)


def score_text(score: float) -> Text:
    """A score in a cell."""
    return Text(f"{score:.3f}", style="bold")


def memory_text(memory: Memory) -> Text:
    """A memory in a cell: the beginning of its content, then id and tags."""
    return _cell(snippet(memory.content) or "(empty)", memory, memory.tags)


def passage_text(memory: Memory) -> Text:
    """A passage of a document in a cell: its headings and id, then the beginning of its content."""
    headings = memory.metadata.get("headings")
    title = " › ".join(map(str, headings)) if isinstance(headings, list) else memory.id
    text = Text(escape_text(title).replace('"', ""), style="cyan")
    text.append(f"  {escape_text(memory.id)}", style="dim")
    return text.append("\n" + snippet(memory.content, 150), style="default")


def assembly_text(assembly: Assembly) -> Text:
    """An assembly in a cell: its name, then id, tags and topics."""
    title = snippet(assembly.name or assembly.description) or escape_text(assembly.id)
    return _cell(title, assembly, [*assembly.tags, *assembly.topics])


def _cell(title: str, record: Memory | Assembly, labels: Iterable[str]) -> Text:
    text = Text(title)
    text.append("\n" + escape_text(record.id), style="dim")
    if isinstance(record, Memory) and record.pinned:
        text.append(" pinned", style="yellow")
    if record.namespace:
        text.append(" in " + escape_text(format_namespace(record.namespace)), style="dim")
    for label in sorted(set(labels)):
        text.append(" #" + escape_text(label), style="cyan")
    return text


class ProgressCallback(Protocol):
    """What `progress` yields, and what the verbs of memstore accept as `on_progress`."""

    def __call__(self, done: int, total: int | None = None, /) -> None:
        """Show that *done* of *total* is done."""


@contextmanager
def progress(description: str) -> Iterator[ProgressCallback]:
    """A progress bar on stderr for the duration of the block; nothing if stderr is not a terminal."""
    screen = console(stderr=True)
    screen.quiet = not screen.is_terminal  # older versions of rich print an empty line after a disabled bar
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=screen,
        transient=True,
        disable=not screen.is_terminal,
    )
    with bar:
        task = bar.add_task(description, total=None)

        def update(done: int, total: int | None = None, /) -> None:
            bar.update(task, completed=done, total=total)

        yield update
