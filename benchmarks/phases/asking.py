"""Searches: one after the other, with a tail that is in no graph yet, under filters, and a hundred in one call."""

from statistics import median
from typing import Any

from benchmarks.bench import Bench, milliseconds
from benchmarks.data import Judge
from benchmarks.worker import Skipped, Worker
from benchmarks.workset import CONTENT, FILTERS

SEARCH, TAIL, FILTERED, MANY = "search", "tail", "filters", "many"
_ALL = (
    "memstore", "memstore-exact", "memstore-graph", "memstore-float16", "raw", "faiss", "faiss-tuned", "usearch",
    "chroma", "lancedb", "sqlite-vec", "qdrant", "langgraph",
)  # fmt: skip
_SLICE = 100
"""Searches of one turn."""

_WARM = 10
_TURNS = 4
_BUDGET = 0.75
"""Seconds after which a slow system's turn ends."""

_EFFORTS = (64, 96, 128, 192, 256, 384, 512)
_GOOD = 0.99
_TAIL = 9_999


def run(bench: Bench) -> None:
    """Ten hits with content, tags and metadata."""
    if "raw" in bench.systems:
        bench.template()
    truth = bench.judge.truth()
    with bench.opened(SEARCH, bench.among(*_ALL)) as workers:
        efforts = {}
        for name, worker in list(workers.items()):
            try:
                worker.ask("tell", rows=truth.rows.tolist())
                efforts[name] = _tuned(bench, worker)
                _check(bench, worker)
            except Skipped as why:
                bench.record(SEARCH, name, skipped=str(why))
                del workers[name]
        told = _in_turns(bench, SEARCH, workers, "", bench.judge)
        for name, turns in told.items():
            more = {"effort": efforts[name]} if efforts[name] else {}
            facts = workers[name].ask("facts")
            bench.record(
                SEARCH, name, **_figures(bench.judge, "", turns), facts=facts, state=workers[name].ask("state"), **more
            )


def _tuned(bench: Bench, worker: Worker) -> int | None:
    """The least effort at which the system finds enough, so that like is compared with like; None if it has none."""
    for effort in _EFFORTS:
        if not worker.ask("tune", effort=effort)["tuned"]:
            return None
        answer = worker.ask("search", queries=list(range(len(bench.made.queries))), budget=3)
        if _recall(bench.judge, "", answer) >= _GOOD:
            break
    return effort


def _check(bench: Bench, worker: Worker) -> None:
    """What comes back is what was stored, to the letter: a system that leaves something out does less."""
    for query in (0, 1):
        for row, content, tags, metadata in worker.ask("probe", query=query)["hits"]:
            item = next(bench.made.items(row, row + 1))
            if (content, tags, metadata) != (item.content, sorted(item.tags), item.metadata) or len(content) > CONTENT:
                raise Skipped(f"gave back something else than was stored: row {row}: {content!r} {tags} {metadata}")


def _in_turns(
    bench: Bench, phase: str, workers: dict[str, Worker], filter: str, judge: Judge
) -> dict[str, list[dict[str, Any]]]:
    asked = judge.queries(filter)

    def do(name: str, worker: Worker, number: int) -> dict[str, Any]:  # noqa: ARG001
        queries = [asked[(number * _SLICE + i) % len(asked)] for i in range(_SLICE)]
        budget = _BUDGET / 2 if filter else _BUDGET
        return worker.ask("search", queries=queries, filter=filter, budget=budget, warm=_WARM)

    turns = bench.rounds * (_TURNS if not filter else 2)
    return bench.turns(workers, do, lambda name, why: bench.record(phase, name, filter, skipped=why), rounds=turns)


def _figures(judge: Judge, filter: str, turns: list[dict[str, Any]]) -> dict[str, Any]:
    every = [seconds for turn in turns for seconds in turn["seconds"]]
    wanted = judge.wanted(filter)
    answers = [found for turn in turns for found in turn["found"]]
    return {
        **milliseconds(every),
        "recall": sum(_recall(judge, filter, turn) * len(turn["found"]) for turn in turns) / len(answers),
        "short": sum(len(found) < wanted for found in answers),
        "wanted": wanted,
        "rounds": [milliseconds(turn["seconds"]) for turn in turns],
        "seconds": every,
    }


def _recall(judge: Judge, filter: str, answer: dict[str, Any]) -> float:
    shares = [judge.recall(filter, q, found) for q, found in zip(answer["queries"], answer["found"], strict=True)]
    return sum(shares) / len(shares)


def tail(bench: Bench) -> None:
    """The same graph twice: all in it, and with some thousand vectors added that are not in it yet."""
    if "memstore-graph" not in bench.systems:
        return
    count = min(_TAIL, bench.made.extra)
    judges = {"folded": bench.judge, "tail": Judge(bench.made, bench.made.rows + count)}
    try:
        with (
            bench.copied("memstore-graph") as folder,
            bench.copied("memstore-graph") as other,
            bench.worker("memstore-graph") as folded,
            bench.worker("memstore-graph", held=True) as tailed,
        ):
            folded.ask("open", folder=str(folder))
            tailed.ask("open", folder=str(other))
            tailed.ask("search", queries=[0])
            tailed.ask("tail", start=bench.made.rows, stop=bench.made.rows + count)
            workers = {"folded": folded, "tail": tailed}
            told = _tail_turns(bench, workers)
            states = {name: worker.ask("state") for name, worker in workers.items()}
    except Skipped as why:
        bench.record(TAIL, "memstore-graph", skipped=str(why))
        return
    for name, turns in told.items():
        bench.record(TAIL, "memstore-graph", name, **_figures(judges[name], "", turns), state=states[name])


def _tail_turns(bench: Bench, workers: dict[str, Worker]) -> dict[str, list[dict[str, Any]]]:
    def do(name: str, worker: Worker, number: int) -> dict[str, Any]:  # noqa: ARG001
        queries = [(number * _SLICE + i) % len(bench.made.queries) for i in range(_SLICE)]
        return worker.ask("search", queries=queries, warm=_WARM)

    def failed(name: str, why: str) -> None:
        raise Skipped(f"{name}: {why}")

    return bench.turns(workers, do, failed, rounds=bench.rounds * 2)


def filters(bench: Bench) -> None:
    """Ten hits among those that a tag or a number allows, at several shares of the rows."""
    kinds = ("memstore-exact", "memstore-graph", "raw", "usearch")  # memstore's own choice is what counts here
    with bench.opened(FILTERED, bench.among(*(name for name in _ALL if name not in kinds))) as workers:
        for filter in FILTERS:
            told = _in_turns(bench, FILTERED, workers, filter, bench.judge)
            for name, turns in told.items():
                allowed = bench.judge.truth(filter).allowed
                state = workers[name].ask("state")
                figures = _figures(bench.judge, filter, turns)
                bench.record(FILTERED, name, filter, allowed=allowed, **figures, plan=state.get("plan"))


def many(bench: Bench) -> None:
    """A hundred searches by one call, against the same one by one."""
    with bench.opened(MANY, bench.among("memstore", "memstore-exact", "memstore-graph")) as workers:
        queries = list(range(min(100, len(bench.made.queries))))

        def do(name: str, worker: Worker, number: int) -> dict[str, Any]:  # noqa: ARG001
            return worker.ask("many", queries=queries)

        for worker in workers.values():
            worker.ask("search", queries=[0])
        told = bench.turns(workers, do, lambda name, why: bench.record(MANY, name, skipped=why))
    for name, rounds in told.items():
        found = {"queries": queries, "found": rounds[-1]["found"]}
        bench.record(
            MANY,
            name,
            queries=len(queries),
            together_ms=median(turn["together"] for turn in rounds) * 1e3,
            alone_ms=median(turn["alone"] for turn in rounds) * 1e3,
            times_faster=median(turn["alone"] / turn["together"] for turn in rounds),
            recall=_recall(bench.judge, "", found),
            rounds=[{"together": turn["together"], "alone": turn["alone"]} for turn in rounds],
        )
