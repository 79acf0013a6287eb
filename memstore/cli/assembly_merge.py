"""The commands that make assemblies of memories, and one of several."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.text import Text

from memstore import Merge
from memstore.cli.assemblies import app
from memstore.cli.jsonl import as_json
from memstore.cli.options import AsJson, File, InNamespace, Limit, Tagged, Where, namespace_of, where_of
from memstore.cli.output import clean, number, progress, say, say_json, show_table, snippet, table
from memstore.cli.stores import changing, looking
from memstore.models import LineageEntry

Id = Annotated[str, typer.Argument(help="The assembly's id, or that of one that was merged.", show_default=False)]
Actor = Annotated[str | None, typer.Option("--actor", help="Who asks for it; kept with the merge.")]
Reason = Annotated[str | None, typer.Option("--reason", help="Why; kept with the merge.")]
Threshold = Annotated[
    float, typer.Option("--threshold", "-s", help="The least score between the two.", show_default=False)
]


@app.command()
def merge(
    ids: Annotated[list[str], typer.Argument(help="Ids of assemblies of one namespace.", show_default=False)],
    file: File,
    into: Annotated[
        str | None, typer.Option("--into", help="The id of the one: one of them, another, or a new one.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Its name; the first that one of them has if left out.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", "-s", help="Only if the least score between two is at least this.")
    ] = None,
    actor: Actor = None,
    reason: Reason = None,
    namespace: InNamespace = "",
    json: AsJson = False,
) -> None:
    """Make one assembly of several; the others are set aside, and unmerge brings them back.

    --json prints the merge.
    """

    async def run() -> Merge:
        async with changing(file) as store:
            place = store.namespace(*namespace_of(namespace)).assemblies
            return await place.merge(ids, into=into, name=name, threshold=threshold, actor=actor, reason=reason)

    made = asyncio.run(run())
    if json:
        say_json(as_json(made))
        return
    alike = "" if made.similarity is None else f", alike at {made.similarity:.3f}"
    say(f"merge {made.id}: {number(len(made.sources), 'assembly', 'assemblies')} went into {made.target}{alike}")


@app.command()
def unmerge(
    file: File,
    id: Annotated[
        str | None,
        typer.Argument(help="The id of an assembly: the last merge into it that stands is undone.", show_default=False),
    ] = None,
    merge: Annotated[int | None, typer.Option("--merge", min=1, help="The number of a merge, instead.")] = None,
    actor: Actor = None,
    reason: Reason = None,
    namespace: InNamespace = "",
    json: AsJson = False,
) -> None:
    """Undo a merge: what went by it is back as it was, and what only it brought is taken out again.

    --json prints the merge.
    """
    which = merge if id is None else id
    if which is None or (id is not None and merge is not None):
        raise typer.BadParameter("give the id of an assembly, or --merge, one of them")

    async def run() -> Merge:
        async with changing(file) as store:
            place = store.namespace(*namespace_of(namespace)).assemblies
            return await place.unmerge(which, actor=actor, reason=reason)

    undone = asyncio.run(run())
    if json:
        say_json(as_json(undone))
    else:
        say(f"merge {undone.id} is undone: {', '.join(undone.sources)} came back out of {undone.target}")


@app.command()
def candidates(
    file: File,
    threshold: Threshold,
    limit: Limit = 20,
    namespace: InNamespace = "",
    json: AsJson = False,
) -> None:
    """Find pairs of assemblies that could be merged, best first.

    --json prints a line each: {"a": id, "b": id, "similarity": …}.
    """

    async def run() -> None:
        async with looking(file) as store:
            place = store.namespace(*namespace_of(namespace)).assemblies
            with progress() as bar:
                found = await place.merge_candidates(
                    threshold, limit=limit, on_progress=_told(bar, "comparing assemblies")
                )
        if json:
            for pair in found:
                say_json(as_json(pair))
            return
        made = table(">score", "assembly", "and")
        for pair in found:
            made.add_row(Text(f"{pair.similarity:.3f}", style="bold"), Text(clean(pair.a)), Text(clean(pair.b)))
        if found:
            show_table(made)
        say(number(len(found), "pair"), style="dim")

    asyncio.run(run())


@app.command()
def form(
    file: File,
    threshold: Threshold,
    min_size: Annotated[int, typer.Option("--min-size", min=2, max=1_000, help="Members at least.")] = 3,
    max_size: Annotated[int, typer.Option("--max-size", min=2, max=1_000, help="Members at most.")] = 50,
    create: Annotated[bool, typer.Option("--create", help="Make them; without it nothing is written.")] = False,
    tag: Tagged = None,
    where: Where = None,
    namespace: InNamespace = "",
    json: AsJson = False,
) -> None:
    """Group the memories that are in no assembly by nearness; with --create, make assemblies of the groups.

    --json prints a line a group: leader, members, similarity and name; with --create one line: the ids of the new
    assemblies, and how many groups went stale meanwhile. {"unassigned": {id: reason}} is the last line.
    """
    filter = where_of(where)

    async def run() -> None:
        async with (changing if create else looking)(file) as store:
            place = store.namespace(*namespace_of(namespace)).assemblies
            with progress() as bar:
                found = await place.suggest(
                    threshold,
                    min_size=min_size,
                    max_size=max_size,
                    tags=tag or (),
                    where=filter,
                    on_progress=_told(bar, "looking for neighbours"),
                )
            formed = await place.create_from(found) if create else None
        if json:
            if formed is None:
                for group in found.groups:
                    line = asdict(group)
                    say_json({key: line[key] for key in ("leader", "members", "similarity", "name")})
            else:
                say_json({"assemblies": list(formed.assemblies), "stale": len(formed.stale)})
            say_json({"unassigned": found.unassigned})
            return
        made = table(">members", ">score", "group around")
        for group in found.groups:
            about = Text(snippet(group.name) or "(empty)")
            about.append("\n" + clean(group.leader), style="dim")
            made.add_row(f"{len(group.members):,}", f"{group.similarity:.3f}", about)
        if found.groups:
            show_table(made)
        say(f"{number(len(found.groups), 'group')}; {_left(found.unassigned.values())}", style="dim")
        if formed is None:
            say("nothing was written: --create makes them assemblies", style="dim")
        else:
            say(f"{number(len(formed.assemblies), 'assembly', 'assemblies')} made", style="dim")

    asyncio.run(run())


def lineage(id: Id, file: File, namespace: InNamespace = "", json: AsJson = False) -> None:
    """Show which assemblies an assembly came of, and what became of it.

    --json prints the lineage: ancestors and descendants, each with its depth and the merge.
    """

    async def run() -> None:
        async with looking(file) as store:
            found = await store.namespace(*namespace_of(namespace)).assemblies.lineage(id)
        if json:
            kin = {name: [_kin(each) for each in getattr(found, name)] for name in ("ancestors", "descendants")}
            say_json({"id": found.id, "namespace": list(found.namespace), "exists": found.exists, **kin})
            return
        say(f"{found.id}{'' if found.exists else ' (gone)'}")
        for title, some in (("came of", found.ancestors), ("went into", found.descendants)):
            if some:
                made = table(title, "by merge", "when (UTC)", ">alike", "asked by")
                for each in some:
                    made.add_row(*_row(each))
                show_table(made)
        if not (found.ancestors or found.descendants):
            say("no merge that stands tells of it", style="dim")

    asyncio.run(run())


def _row(kin: LineageEntry) -> tuple[str | Text, ...]:
    merge = kin.merge
    name = Text("  " * (kin.depth - 1) + clean(kin.id))
    if not kin.exists:
        name.append(" (gone)", style="dim")
    asked = " - ".join(clean(word) for word in (merge.actor, merge.reason) if word)
    alike = "" if merge.similarity is None else f"{merge.similarity:.3f}"
    return name, f"#{merge.id}", f"{merge.at:%Y-%m-%d %H:%M}", alike, asked


def _kin(kin: LineageEntry) -> dict[str, Any]:
    return {"id": kin.id, "depth": kin.depth, "exists": kin.exists, "merge": as_json(kin.merge)}


def _left(reasons: Iterable[str]) -> str:
    words = {"no_vector": "without a vector", "no_neighbour": "with no neighbour", "too_few": "with too few"}
    every = list(reasons)
    counts = [f"{every.count(reason):,} {text}" for reason, text in words.items() if reason in every]
    return f"left alone: {', '.join(counts)}" if counts else "nothing is left alone"


def _told(bar: Any, what: str) -> Callable[[int, int], None]:
    """What shows on *bar* how far a verb is."""
    task = bar.add_task(what, total=None)
    return lambda done, total: bar.update(task, completed=done, total=total)
