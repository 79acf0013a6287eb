"""The second half of the demo: boost, reads as of a time, undo and forgetting, each with its time."""

import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, TypeVar

from rich.text import Text

from memstore import AssemblyBoost, ForgetPolicy, Hit, Hits, Store, as_actor
from memstore.cli.output import passage_text, print_line, print_table, score_text, table
from memstore.cli.text import quantity
from memstore.escaping import escape_text

BOOST_QUESTION = "What does importing a module do?"
NAMESPACE = "notes"
_RANKS = 20
_NOTES: list[dict[str, Any]] = [
    {"id": "meetup", "content": "The Python meetup is on Monday at seven", "importance": 0.8},
    {"id": "kettle", "content": "The kettle is on", "importance": 0.1},
    {"id": "rain", "content": "It may rain in the afternoon", "importance": 0.2},
]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of the tour: what was called, what came out, and how long it took."""

    call: str
    result: str
    seconds: float


async def tour(store: Store, *, quiet: bool) -> dict[str, Any]:
    """Run all steps on *store*, and print them unless *quiet*. Its notes replace those of an earlier run."""
    plain = await store.memories.search(BOOST_QUESTION, limit=_RANKS)
    ranks = {hit.memory.id: rank for rank, hit in enumerate(plain, 1)}
    boosted, seconds = await _timed(store.memories.search(BOOST_QUESTION, limit=3, boost=AssemblyBoost()))
    steps = await _steps(store)
    if not quiet:
        _print_boost(boosted, ranks, seconds)
        _print_steps(steps)
    return {
        "boost": {
            "question": BOOST_QUESTION,
            "hits": [
                {
                    "id": hit.memory.id,
                    "boost": hit.boost,
                    "assembly": hit.assembly,
                    "rank_without": ranks.get(hit.memory.id),
                }
                for hit in boosted
            ],
            "seconds": seconds,
        },
        "steps": [{"call": step.call, "result": step.result, "seconds": step.seconds} for step in steps],
    }


async def _steps(store: Store) -> list[Step]:
    scope = store.namespace(NAMESPACE)
    notes, steps = scope.memories, []

    def record(call: str, result: str, seconds: float) -> None:
        steps.append(Step(call=call, result=result, seconds=round(seconds, 6)))

    await scope.clear()
    _, seconds = await _timed(notes.add_many(_NOTES))
    record("add three notes", _NOTES[0]["content"], seconds)
    added = (await notes.history("meetup", limit=1))[0]
    with as_actor("calendar", reason="the room was taken"):
        changed, seconds = await _timed(notes.update("meetup", content="The Python meetup is on Tuesday at seven"))
    record("update one, as calendar", changed.content, seconds)
    former, seconds = await _timed(notes.get("meetup", as_of=added.at))
    record("read it as of before", former.content, seconds)
    change = (await notes.history("meetup", limit=1))[0]
    _, seconds = await _timed(store.undo(change))
    record(f"undo change {change.number}", (await notes.get("meetup")).content, seconds)
    plan, seconds = await _timed(notes.plan_forget(ForgetPolicy(importance_below=0.3)))
    names = ", ".join(candidate.id for candidate in plan.candidates)
    record("plan to forget", f"{names}: importance below 0.3; meetup stays", seconds)
    count, seconds = await _timed(notes.forget(plan))
    record("forget", f"{quantity(count, 'note')} in the trash, not found by any search", seconds)
    recovered, seconds = await _timed(notes.recover(["rain"]))
    record("recover one", recovered[0].content, seconds)
    return steps


async def _timed(work: Awaitable[T]) -> tuple[T, float]:
    started = time.perf_counter()
    result = await work
    return result, time.perf_counter() - started


def time_text(seconds: float) -> str:
    """A short time in milliseconds."""
    return f"{seconds * 1_000:.1f} ms"


def _print_boost(hits: Hits[Hit], ranks: dict[str, int], seconds: float) -> None:
    print_line("")
    print_line(f"{BOOST_QUESTION} With boost, {time_text(seconds)}", style="bold")
    grid = table(">score", ">boost", "passage", "raised by", ">rank without")
    for hit in hits:
        topic = Text(escape_text(hit.assembly or "nothing"), style="dim")
        rank = str(ranks.get(hit.memory.id, f"over {_RANKS}"))
        grid.add_row(score_text(hit.score), f"{hit.boost:.3f}", passage_text(hit.memory), topic, rank)
    print_table(grid)


def _print_steps(steps: list[Step]) -> None:
    print_line("")
    print_line(f"History and forgetting, in the namespace {NAMESPACE}", style="bold")
    grid = table("step", "result", ">time")
    for step in steps:
        grid.add_row(
            Text(escape_text(step.call), style="cyan"), Text(escape_text(step.result)), time_text(step.seconds)
        )
    print_table(grid)
