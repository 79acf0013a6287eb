"""The benchmarks run, on a few hundred memories, and make a page: nothing is said of how fast anything is."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import data, peers, plots, report, targets
from benchmarks.adapters import SYSTEMS
from benchmarks.bench import Bench
from benchmarks.data import Judge, Wanted, workset
from benchmarks.phases import PHASES, stalls
from benchmarks.phases.opening import evict, resident
from benchmarks.plots import Picture, Row
from benchmarks.results import Results, read
from benchmarks.worker import Skipped, Worker
from benchmarks.workset import FILTERS, LIMIT, Workset

ROOT = Path(__file__).parents[2]
ROWS = 300
STORED = Path(__file__).parent / "data" / "benchmark-results.json"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workset:
    return workset(Wanted(rows=ROWS, queries=50, dimension=16), tmp_path_factory.mktemp("workset"))


@pytest.fixture(scope="module")
def bench(made: Workset, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    systems = ["memstore", "memstore-graph", "raw", "faiss"]
    return Bench(made=made, work=tmp_path_factory.mktemp("work"), systems=systems, rounds=1, patience=60, seconds=0.2)


def test_every_row_has_what_was_promised_and_any_run_makes_the_same(made: Workset, tmp_path: Path) -> None:
    items = list(made.items(0, made.rows + made.extra))
    assert [item.row for item in items] == list(range(ROWS + 1_000))
    assert all(len(item.content) == 200 and len(set(item.tags)) == 3 for item in items)
    assert all(item.metadata["row"] == item.row for item in items)
    assert len({item.content for item in items}) == len(items)
    again = workset(Wanted(rows=ROWS, queries=50, dimension=16), tmp_path)
    for name in ("items.jsonl", "vectors.f32", "queries.npy"):
        assert (tmp_path / name).read_bytes() == (made.folder / name).read_bytes()
    assert [i.content for i in again.items(7, 9)] == [i.content for i in items[7:9]]


@pytest.mark.parametrize("filter", ["", *FILTERS])
def test_the_exact_answers_are_those_of_a_plain_loop(made: Workset, filter: str) -> None:
    judge = Judge(made)
    rule = FILTERS.get(filter)
    items = list(made.items(0, made.rows))
    if rule is None:
        allowed = items
    elif rule.tag:
        allowed = [item for item in items if rule.tag in item.tags]
    else:
        allowed = [item for item in items if item.metadata[rule.field] < rule.recursive]
    assert judge.truth(filter).allowed == len(allowed)
    if rule is not None:
        assert abs(len(allowed) - rule.share * ROWS) <= 1
    for at, query in enumerate(judge.queries(filter)[:3]):
        best = sorted(allowed, key=lambda item: -float(item.vector @ made.queries[query]))[:LIMIT]
        rows = [item.row for item in best]
        assert judge.truth(filter).rows[at].tolist() == rows
        assert judge.recall(filter, query, rows) == 1
        if len(rows) > 1:
            assert judge.recall(filter, query, rows[1:]) == pytest.approx(1 - 1 / len(rows))


def test_an_answer_that_cannot_be_is_an_error_and_not_a_miss(made: Workset) -> None:
    judge = Judge(made)
    forbidden = next(item.row for item in made.items(0, ROWS) if "one-in-10" not in item.tags)
    for filter, found in (("", [1, 1]), ("", [ROWS]), ("tag 10 %", [forbidden])):
        with pytest.raises(RuntimeError, match="cannot be"):
            judge.recall(filter, 0, found)


def test_what_a_filter_against_the_query_allows_lies_far_from_it(made: Workset) -> None:
    judge = Judge(made)
    vectors = made.vectors(0, ROWS)
    for name in (name for name, rule in FILTERS.items() if rule.against):
        allowed = judge.allowed(name)
        for query in judge.queries(name)[:5]:
            sims = vectors @ made.queries[query]
            assert sims[allowed].mean() < sims[~allowed].mean() - 0.1


@pytest.mark.parametrize("phase", PHASES)
def test_every_phase_measures_what_it_is_there_for(bench: Bench, phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalls, "LOADS", ("together",))
    before = len(bench.records)
    PHASES[phase](bench)
    records = bench.records[before:]
    assert {record["phase"] for record in records} == {phase}
    assert not [r for r in records if str(r.get("skipped", "")).startswith(("failed", "ended", "stopped", "gave"))]
    done = [record for record in records if "skipped" not in record]
    assert any(record["system"].startswith("memstore") for record in done)
    for record in done:
        assert record.get("recall") in (None, 1) or record["recall"] >= 0.9
        assert record.get("short", 0) == 0


def test_a_memory_added_one_by_one_is_found_and_a_probe_gives_it_back(bench: Bench) -> None:
    for name in ("memstore", "faiss"):
        with bench.copied(name) as folder, bench.worker(name) as worker:
            worker.ask("open", folder=str(folder))
            worker.ask("add", start=ROWS, stop=ROWS + 20)
            answer = worker.ask("search", queries=list(range(30)))
            judge = Judge(bench.made, ROWS + 20)
            assert all(
                judge.recall("", q, found) == 1 for q, found in zip(answer["queries"], answer["found"], strict=True)
            )
            for row, content, tags, metadata in worker.ask("probe", query=0)["hits"]:
                item = next(bench.made.items(row, row + 1))
                assert (content, tags, metadata) == (item.content, sorted(item.tags), item.metadata)


async def test_what_the_raw_baseline_wrote_is_a_whole_store(bench: Bench) -> None:
    import memstore

    bench.template()
    with bench.copied("raw") as folder:
        with bench.worker("raw") as worker:
            worker.ask("open", folder=str(folder))
            worker.ask("add", start=ROWS, stop=ROWS + 5)
            worker.ask("change", verb="upsert", start=0, stop=10, batch=5, budget=9)
            worker.ask("change", verb="delete", start=10, stop=20, batch=5, budget=9)
            worker.ask("close")
        async with memstore.open(folder / "memories.db") as store:
            assert await store.check() == []
            assert await store.memories.count() == ROWS + 5 - 10
            moved = [memory async for memory in store.memories.list(where={"metadata.row": ROWS - 1})]
            assert len(moved) == 2  # row 0 has become a copy of the last one
            assert moved[0].embedding.tobytes() == moved[1].embedding.tobytes()


def test_the_one_command_leaves_a_file_of_which_the_page_can_be_made(tmp_path: Path) -> None:
    left, page = tmp_path / "results.json", tmp_path / "performance.md"
    asked = "--rows 200 --queries 20 --dimension 8 --synthetic --rounds 1 --systems memstore chroma --phases many"
    for command in (
        ["benchmarks", *asked.split(), "--work", str(tmp_path / "work"), "--json", str(left)],
        ["benchmarks.report", str(left), "--page", str(page)],
    ):
        subprocess.run(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env=os.environ | {"MEMSTORE_BENCHMARK_PEERS": str(tmp_path)},
            check=True,
            capture_output=True,
        )
    (run,) = read([left])
    assert [record["phase"] for record in run["records"]] == ["many"]
    assert run["skipped"]["chroma"] == "not installed"
    assert str(tmp_path) not in left.read_text(encoding="utf-8")
    assert "Skipped, because not installed:" in page.read_text(encoding="utf-8")


def test_a_system_that_fails_or_is_not_there_is_named_and_the_rest_goes_on(
    made: Workset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEMSTORE_BENCHMARK_PEERS", str(tmp_path))
    with pytest.raises(Skipped, match=r"benchmarks\.peers install chroma"):
        Worker("chroma", made.folder)
    with Worker("memstore", made.folder) as worker:
        with pytest.raises(Skipped, match="failed at open"):
            worker.ask("open", folder=str(tmp_path / "nowhere"))
        with pytest.raises(Skipped, match="failed at search"):
            worker.ask("search", queries=[0])
        assert worker.ask("facts")["versions"]["numpy"]
    capsys.readouterr()


def test_a_command_that_takes_too_long_is_stopped(made: Workset, tmp_path: Path) -> None:
    with Worker("memstore", made.folder, patience=60) as worker:
        worker.ask("facts")
        worker.patience = 0.01
        with pytest.raises(Skipped, match="took longer"):
            worker.ask("gaps", load="load", folder=str(tmp_path), seconds=30, frozen=True)


def test_what_is_evicted_is_out_of_the_page_cache(tmp_path: Path) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux says what is in the page cache")
    by_hand, file = tmp_path / "by-hand", tmp_path / "some"
    for each in (by_hand, file):
        each.write_bytes(b"x" * 3_000_000)
        each.read_bytes()
        assert resident(each) > 0.9
    with by_hand.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if resident(by_hand) > 0.05:  # a file system that is memory
        with pytest.raises(Skipped, match="stayed in the page cache"):
            evict(tmp_path)
        return
    evict(tmp_path)
    assert resident(file) < 0.05


def test_the_page_is_made_of_what_runs_left(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    report.write(read([STORED]), page)
    text = page.read_text(encoding="utf-8")
    shown = set(re.findall(r"^## (.*)$", text, re.MULTILINE))
    assert {"Targets", "Bulk add", "One search", "Under a filter", "Event-loop gaps", "Memory"} <= shown
    for picture in re.findall(r"\]\((performance-\w+\.svg)\)", text):
        ElementTree.parse(tmp_path / picture)  # well-formed
    assert len(list(tmp_path.glob("*.svg"))) == 5
    for line in text.splitlines():
        assert "None" not in line
        assert "nan" not in line.lower().split()
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1, table


def test_a_page_of_a_busy_machine_says_so(tmp_path: Path) -> None:
    runs = read([STORED])
    for load, said in ((2.9, False), (3.1, True)):
        for about in runs[-1]["phases"].values():
            about["load_before"] = load
        report.write(runs, tmp_path / "performance.md")
        assert ("had other work" in (tmp_path / "performance.md").read_text(encoding="utf-8")) == said


def test_targets_say_reached_missed_and_not_measured() -> None:
    runs = read([STORED])
    lines = {line.what: line for line in targets.lines(Results(runs, runs[-1]["facts"]["rows"]))}
    search = next(line for what, line in lines.items() if what.startswith("search, recall"))
    assert search.met
    for record in runs[-1]["records"]:
        if (record["phase"], record["system"]) == ("search", "memstore"):
            record["recall"] = 0.5
    again = {line.what: line for line in targets.lines(Results(runs, runs[-1]["facts"]["rows"]))}
    assert again[search.what].met is False
    empty = Results([runs[-1] | {"records": []}], runs[-1]["facts"]["rows"])
    assert {line.met for line in targets.lines(empty)} == {None}


def test_a_later_run_replaces_what_it_measured_and_a_ratio_never_spans_two_runs() -> None:
    facts = {"rows": 10}

    def run(*records: tuple[str, float]) -> dict:
        made = [
            {"phase": "search", "system": s, "case": "", "p50_ms": v, "rounds": [{"p50_ms": v}]} for s, v in records
        ]
        return {"facts": facts, "records": made}

    results = Results([run(("memstore", 2.0), ("usearch", 1.0)), run(("memstore", 9.0))], 10)
    assert results.get("search", "memstore")["p50_ms"] == 9.0
    ratio = results.pair(("search", "memstore", ""), ("search", "usearch", ""), "p50_ms")
    assert ratio is not None
    assert ratio.value == 2.0


def test_no_label_of_a_picture_leaves_it_or_meets_another() -> None:
    rows = tuple(
        Row(label=named.label, values=(2.0**i,), note="12.34 ms, recall 0.999")
        for i, named in enumerate(SYSTEMS.values())
    )
    drawn = ElementTree.fromstring(plots.svg(Picture(title="t", unit="u", rows=rows)))
    for text in drawn.iter("{http://www.w3.org/2000/svg}text"):
        width = 7 * len(text.text or "")
        x = float(text.get("x", 0))
        left = x - width if text.get("text-anchor") == "end" else x - width / 2 if text.get("text-anchor") else x
        assert left >= 0, text.text
        assert left + width <= plots.WIDTH, text.text


def test_adapters_of_peers_import_no_memstore() -> None:
    for name, named in SYSTEMS.items():
        if not named.peer:
            continue
        waiting, seen = [named.place.partition(":")[0]], set()
        while waiting:
            file = ROOT / "benchmarks" / "adapters" / f"{waiting.pop()}.py"
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                modules = (
                    [alias.name for alias in node.names]
                    if isinstance(node, ast.Import)
                    else [node.module or ""]
                    if isinstance(node, ast.ImportFrom)
                    else []
                )
                for module in modules:
                    assert module.split(".")[0] != "memstore", name
                    if module.startswith("benchmarks."):
                        assert module.split(".")[1] in ("adapters", "workset"), name
                        if module.count(".") == 2 and module not in seen:
                            seen.add(module)
                            waiting.append(module.split(".")[2])


def test_every_peer_has_a_pinned_list_and_no_list_names_a_host() -> None:
    assert set(peers.NAMES) == {named.peer for named in SYSTEMS.values() if named.peer}
    assert {file.stem for file in peers.REQUIREMENTS.glob("*.txt")} == set(peers.NAMES)
    for file in peers.REQUIREMENTS.glob("*.txt"):
        for line in file.read_text(encoding="utf-8").splitlines():
            assert line.startswith("#") or re.fullmatch(r"[\w.\[\]-]+==[\w.+]+", line), line


def test_the_stored_results_are_small_and_of_this_format() -> None:
    assert STORED.stat().st_size < 200_000
    assert json.loads(STORED.read_text(encoding="utf-8"))["format"] == 1
    assert data.FORMAT > 0
