"""Searches: one after the other, beside vectors outside the graph, under filters, and a hundred in one call."""

from statistics import median
from typing import Any

from benchmarks.bench import Bench, milliseconds
from benchmarks.ground_truth import GroundTruth
from benchmarks.worker import Skipped, Worker
from benchmarks.workset import CONTENT, FILTERS

_BY_HAND = ("faiss", "faiss-tuned")
_PEERS = ("chroma", "lancedb", "sqlite-vec", "qdrant", "langgraph")
_TURN_SEARCHES = 100
_WARM_SEARCHES = 10
_TURNS = 2
"""Turns of a round of unfiltered searches."""

_BUDGET = 0.75
"""Seconds after which the turn of a slow system ends; half of it under a filter."""

_EFFORTS = (64, 96, 128, 192, 256, 384, 512)
_EFFORT_RECALL = 0.99
_UNINDEXED_SHARE = 0.05
"""memstore merges vectors into the graph in the background from this share of its nodes on, or from 1,000."""


def search(bench: Bench) -> None:
    """Ten hits with content, tags and metadata."""
    names = ("memstore", "memstore-no-history", "memstore-exact", "memstore-float16", "raw", *_BY_HAND, "usearch")
    with bench.opened("search", bench.select(*names, *_PEERS)) as workers:
        efforts = {}
        for name, worker in list(workers.items()):
            try:
                worker.call("set_answers", rows=bench.truth.answers().rows.tolist())
                efforts[name] = _set_effort(bench, worker)
                _check_hits(bench, worker)
            except Skipped as reason:
                bench.record("search", name, skipped=str(reason))
                del workers[name]
        for name, turns in _search_in_turns(bench, "search", workers, bench.truth, _TURNS).items():
            facts, plan = workers[name].call("facts"), workers[name].call("state")["result"].get("plan")
            figures = _figures(bench.truth, "", turns)
            bench.record("search", name, **figures, facts=facts, plan=plan, effort=efforts[name])


def _set_effort(bench: Bench, worker: Worker) -> int | None:
    """Set the least effort that reaches the required recall, so that systems compare at equal recall."""
    for effort in _EFFORTS:
        if not worker.call("set_effort", effort=effort)["result"]:
            return None
        answer = worker.call("search", queries=bench.truth.queries(""), budget=3)
        if bench.truth.mean_recall("", answer["queries"], answer["answers"]) >= _EFFORT_RECALL:
            break
    return effort


def _check_hits(bench: Bench, worker: Worker) -> None:
    """Check that hits carry exactly what was stored: a system that leaves data out does less work."""
    for query in (0, 1):
        for row, content, tags, metadata in worker.call("probe", query=query)["hits"]:
            item = next(bench.workset.items(row, row + 1))
            if (content, tags, metadata) != (item.content, sorted(item.tags), item.metadata) or len(content) > CONTENT:
                raise Skipped(f"returned other data than was stored: row {row}: {content!r} {tags} {metadata}")


def _search_in_turns(
    bench: Bench, phase: str, workers: dict[str, Worker], truth: GroundTruth, turns: int, filter: str = ""
) -> dict[str, list[dict[str, Any]]]:
    queries = truth.queries(filter)
    budget = _BUDGET / 2 if filter else _BUDGET

    def turn(name: str, worker: Worker, number: int) -> dict[str, Any]:  # noqa: ARG001
        numbers = [queries[(number * _TURN_SEARCHES + i) % len(queries)] for i in range(_TURN_SEARCHES)]
        return worker.call("search", queries=numbers, filter=filter, budget=budget, warm=_WARM_SEARCHES)

    return bench.take_turns(phase, workers, turn, case=filter, rounds=bench.rounds * turns)


def _figures(truth: GroundTruth, filter: str, turns: list[dict[str, Any]]) -> dict[str, Any]:
    queries = [query for turn in turns for query in turn["queries"]]
    answers = [rows for turn in turns for rows in turn["answers"]]
    return {
        **milliseconds([seconds for turn in turns for seconds in turn["seconds"]]),
        "recall": truth.mean_recall(filter, queries, answers),
        "short": sum(len(rows) < truth.expected_hits(filter) for rows in answers),
        "rounds": [milliseconds(turn["seconds"]) for turn in turns],
    }


def unindexed(bench: Bench) -> None:
    """The same graph twice: complete, and with almost as many vectors outside it as the store leaves there."""
    name = "memstore-graph"
    if name not in bench.systems:
        return
    first = bench.workset.rows
    count = min(bench.workset.extra_rows, max(1_000, int(_UNINDEXED_SHARE * first))) - 1
    truths = {"complete": bench.truth, "unindexed": GroundTruth(bench.workset, first + count)}
    try:
        with (
            bench.store_copy(name) as folder,
            bench.store_copy(name) as second_folder,
            bench.worker(name) as complete,
            bench.worker(name) as partial,
        ):
            complete.call("open", folder=str(folder))
            partial.call("open", folder=str(second_folder))
            partial.call("search", queries=[0])
            partial.call("prepare", start=first, stop=first + count)
            partial.call("bulk")
            workers = {"complete": complete, "unindexed": partial}

            def turn(case: str, worker: Worker, number: int) -> dict[str, Any]:  # noqa: ARG001
                queries = truths["complete"].queries("")
                numbers = [queries[(number * _TURN_SEARCHES + i) % len(queries)] for i in range(_TURN_SEARCHES)]
                return worker.call("search", queries=numbers, warm=_WARM_SEARCHES)

            results = bench.take_turns("unindexed", workers, turn, rounds=bench.rounds * _TURNS)
            states = {case: worker.call("state")["result"] for case, worker in workers.items()}
    except Skipped as reason:
        bench.record("unindexed", name, skipped=str(reason))
        return
    for case, turns in results.items():
        counts = {key: states[case][key] for key in ("graph_nodes", "unindexed")}
        method = states[case]["plan"]["method"]
        bench.record("unindexed", name, case, **_figures(truths[case], "", turns), **counts, method=method)


def filters(bench: Bench) -> None:
    """Ten hits under a tag or a metadata bound, at several shares of the rows."""
    names = ("memstore", "memstore-indexed", "memstore-float16", *_BY_HAND, *_PEERS)
    with bench.opened("filters", bench.select(*names)) as workers:
        for filter in FILTERS:
            matches = bench.truth.answers(filter).matches
            for name, turns in _search_in_turns(bench, "filters", workers, bench.truth, 1, filter).items():
                bench.record("filters", name, filter, matches=matches, **_figures(bench.truth, filter, turns))


def many(bench: Bench) -> None:
    """A hundred searches in one call, and one by one."""
    queries = bench.truth.queries("")[:100]
    with bench.opened("many", bench.select("memstore", "memstore-exact")) as workers:

        def turn(name: str, worker: Worker, number: int) -> dict[str, Any]:  # noqa: ARG001
            return worker.call("search_many", queries=queries)

        for worker in workers.values():
            worker.call("search", queries=[0])
        results = bench.take_turns("many", workers, turn)
    for name, rounds in results.items():
        bench.record(
            "many",
            name,
            queries=len(queries),
            together_ms=median(result["together"] for result in rounds) * 1e3,
            single_ms=median(result["single"] for result in rounds) * 1e3,
            speedup=median(result["single"] / result["together"] for result in rounds),
            recall=bench.truth.mean_recall("", queries, rounds[-1]["answers"]),
        )
