"""The benchmarks run on a few hundred memories and make a page. Nothing is asserted about speed."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

import memstore
from benchmarks import corpus, event_loop, peers, report
from benchmarks.adapters import SYSTEMS
from benchmarks.bench import Bench
from benchmarks.charts import dot_chart
from benchmarks.corpus import WorksetSpec, make_workset
from benchmarks.ground_truth import GroundTruth
from benchmarks.page_cache import evict, resident_share
from benchmarks.phases import PHASES
from benchmarks.results import FORMAT, Results, read
from benchmarks.targets import target_table
from benchmarks.worker import ROOT, Skipped, Worker
from benchmarks.workset import FILTERS, LIMIT, Workset

ROWS = 300
SPEC = WorksetSpec(rows=ROWS, queries=50, dimension=16)
STORED_RESULTS = Path(__file__).parent / "data" / "benchmark-results.json"


@pytest.fixture(scope="module")
def workset(tmp_path_factory: pytest.TempPathFactory) -> Workset:
    return make_workset(SPEC, tmp_path_factory.mktemp("workset"))


@pytest.fixture(scope="module")
def bench(workset: Workset, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    systems = ["memstore", "memstore-graph", "raw", "faiss"]
    work = tmp_path_factory.mktemp("work")
    return Bench(workset=workset, work=work, systems=systems, rounds=1, time_limit=60, seconds=0.2)


def stored_runs() -> list[dict]:
    return read([STORED_RESULTS])


def test_workset_has_the_promised_rows_and_is_deterministic(workset: Workset, tmp_path: Path) -> None:
    items = list(workset.items(0, workset.rows + workset.extra_rows))
    assert [item.row for item in items] == list(range(ROWS + 1_000))
    assert all(len(item.content) == 200 and len(set(item.tags)) == 3 for item in items)
    assert all(item.metadata["row"] == item.row for item in items)
    assert len({item.content for item in items}) == len(items)
    second = make_workset(SPEC, tmp_path)
    for name in ("items.jsonl", "vectors.f32", "queries.npy"):
        assert (tmp_path / name).read_bytes() == (workset.folder / name).read_bytes()
    assert [i.content for i in second.items(7, 9)] == [i.content for i in items[7:9]]


@pytest.mark.parametrize("filter", ["", *FILTERS])
def test_exact_answers_equal_those_of_a_plain_loop(workset: Workset, filter: str) -> None:
    truth = GroundTruth(workset)
    rule = FILTERS.get(filter)
    items = list(workset.items(0, workset.rows))
    if rule is None:
        matching = items
    elif rule.tag:
        matching = [item for item in items if rule.tag in item.tags]
    else:
        matching = [item for item in items if item.metadata[rule.field] < rule.below]
    assert truth.answers(filter).matches == len(matching)
    if rule is not None:
        assert abs(len(matching) - rule.share * ROWS) <= 1
    for position, query in enumerate(truth.queries(filter)[:3]):
        best = sorted(matching, key=lambda item: -float(item.vector @ workset.queries[query]))[:LIMIT]
        rows = [item.row for item in best]
        assert truth.answers(filter).rows[position].tolist() == rows
        assert truth.recall(filter, query, rows) == 1
        if len(rows) > 1:
            assert truth.recall(filter, query, rows[1:]) == pytest.approx(1 - 1 / len(rows))


def test_invalid_answer_is_an_error_and_not_a_miss(workset: Workset) -> None:
    truth = GroundTruth(workset)
    no_match = next(item.row for item in workset.items(0, ROWS) if "one-in-10" not in item.tags)
    for filter, rows in (("", [1, 1]), ("", [ROWS]), ("tag 10 %", [no_match])):
        with pytest.raises(RuntimeError, match="Invalid answer"):
            truth.recall(filter, 0, rows)


def test_matching_rows_of_an_adverse_filter_are_far_from_the_query(workset: Workset) -> None:
    truth = GroundTruth(workset)
    vectors = workset.vectors(0, ROWS)
    for name in (name for name, rule in FILTERS.items() if rule.adverse):
        mask = truth.mask(name)
        for query in truth.queries(name)[:5]:
            scores = vectors @ workset.queries[query]
            assert scores[mask].mean() < scores[~mask].mean() - 0.1


@pytest.mark.parametrize("phase", PHASES)
def test_every_phase_measures_its_figures(bench: Bench, phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_loop, "LOADS", ("combined",))
    count = len(bench.records)
    PHASES[phase](bench)
    records = bench.records[count:]
    assert {record["phase"] for record in records} == {phase}
    failures = ("failed", "exited", "stopped", "returned")
    assert not [record for record in records if str(record.get("skipped", "")).startswith(failures)]
    measured = [record for record in records if "skipped" not in record]
    assert measured[0]["system"] == ("memstore-graph" if phase == "unindexed" else "memstore")
    for record in measured:
        assert record.get("recall") in (None, 1) or record["recall"] >= 0.9
        assert record.get("short", 0) == 0


async def test_first_system_is_the_default_configuration_and_variants_change_one_option(
    workset: Workset, tmp_path: Path
) -> None:
    assert next(iter(SYSTEMS)) == "memstore"
    states = {}
    for name, spec in SYSTEMS.items():
        if name.startswith("memstore"):
            assert len(spec.options) == (name != "memstore")
            (tmp_path / name).mkdir()
            system = spec.load()(workset, spec.options)
            await system.open(tmp_path / name)
            await system.bulk(system.prepare(list(workset.items(0, 20))))
            await system.settle()
            states[name] = await system.state()
            (memory,) = [memory async for memory in system.store.memories.list(limit=1)]
            changes = await system.store.memories.history(memory.id)
            assert len(changes) == (0 if name == "memstore-no-history" else 1)
            await system.close()
    assert states["memstore-float16"]["vector_type"] == "float16"
    assert states["memstore-graph"]["index"] == "graph"
    assert states["memstore-exact"]["index_reason"] != states["memstore"]["index_reason"]


def test_memory_added_alone_is_found_and_a_probe_returns_it(bench: Bench) -> None:
    truth = GroundTruth(bench.workset, ROWS + 20)
    for name in ("memstore", "faiss"):
        with bench.store_copy(name) as folder, bench.worker(name) as worker:
            worker.call("open", folder=str(folder))
            worker.call("add", start=ROWS, stop=ROWS + 20)
            answer = worker.call("search", queries=list(range(30)))
            for query, rows in zip(answer["queries"], answer["answers"], strict=True):
                assert truth.recall("", query, rows) == 1
            for row, content, tags, metadata in worker.call("probe", query=0)["hits"]:
                item = next(bench.workset.items(row, row + 1))
                assert (content, tags, metadata) == (item.content, sorted(item.tags), item.metadata)


async def test_raw_baseline_writes_an_intact_store(bench: Bench) -> None:
    bench.write_template()
    with bench.store_copy("raw") as folder:
        with bench.worker("raw") as worker:
            worker.call("open", folder=str(folder))
            worker.call("add", start=ROWS, stop=ROWS + 5)
            for start in (0, 5):
                worker.call("change", verb="upsert", start=start, stop=start + 5)
                worker.call("change", verb="delete", start=start + 10, stop=start + 15)
            worker.call("close")
        async with memstore.open(folder / "memories.db") as store:
            assert await store.check() == []
            assert await store.memories.count() == ROWS + 5 - 10
            copies = [memory async for memory in store.memories.list(where={"metadata.row": ROWS - 1})]
            assert len(copies) == 2  # the upsert replaced row 0 by a copy of the last row
            assert copies[0].embedding.tobytes() == copies[1].embedding.tobytes()


def test_command_writes_a_file_from_which_the_page_is_made(tmp_path: Path) -> None:
    results, page = tmp_path / "results.json", tmp_path / "performance.md"
    options = "--rows 200 --queries 20 --dimension 8 --rounds 1 --systems memstore chroma --phases many"
    for command in (
        ["benchmarks", *options.split(), "--work", str(tmp_path / "work"), "--json", str(results)],
        ["benchmarks.report", str(results), "--page", str(page)],
    ):
        subprocess.run(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env=os.environ | {"MEMSTORE_BENCHMARK_PEERS": str(tmp_path)},
            check=True,
            capture_output=True,
        )
    (run,) = read([results])
    assert [record["phase"] for record in run["records"]] == ["many"]
    assert run["missing"] == ["chroma"]
    assert str(tmp_path) not in results.read_text(encoding="utf-8")
    assert "Not installed: Chroma." in page.read_text(encoding="utf-8")


def test_failing_or_missing_system_is_named_and_the_others_continue(
    workset: Workset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMSTORE_BENCHMARK_PEERS", str(tmp_path))
    with pytest.raises(Skipped, match=r"benchmarks\.peers install chroma"):
        Worker("chroma", workset.folder)
    with Worker("memstore", workset.folder) as worker:
        with pytest.raises(Skipped, match="failed at open"):
            worker.call("open", folder=str(tmp_path / "nowhere"))
        with pytest.raises(Skipped, match="failed at search"):
            worker.call("search", queries=[0])
        assert worker.call("facts")["versions"]["numpy"]


def test_command_that_exceeds_the_time_limit_is_stopped(workset: Workset, tmp_path: Path) -> None:
    with Worker("memstore", workset.folder, time_limit=60) as worker:
        worker.call("facts")
        worker.time_limit = 0.01
        with pytest.raises(Skipped, match="took longer"):
            worker.call("event_loop", load="load", folder=str(tmp_path), seconds=30, frozen=True)


def test_evicted_file_is_not_in_the_page_cache(tmp_path: Path) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("the page cache can be inspected on Linux only")
    sample, file = tmp_path / "sample", tmp_path / "file"
    for path in (sample, file):
        path.write_bytes(b"x" * 3_000_000)
        path.read_bytes()
        assert resident_share(path) > 0.9
    with sample.open("rb") as handle:
        os.fsync(handle.fileno())
        os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if resident_share(sample) > 0.05:  # a file system in memory
        with pytest.raises(Skipped, match="stayed in the page cache"):
            evict(tmp_path)
        return
    evict(tmp_path)
    assert resident_share(file) < 0.05


def test_page_shows_every_phase_with_the_default_configuration_first(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    report.write(stored_runs(), page)
    text = page.read_text(encoding="utf-8")
    sections = set(re.findall(r"^## (.*)$", text, re.MULTILINE))
    assert {"Targets", "Bulk add", "One search", "Filters", "Event-loop delays", "Memory"} <= sections
    assert "Not measured." not in text
    for chart in re.findall(r"\]\((performance-\w+\.svg)\)", text):
        ElementTree.parse(tmp_path / chart)  # well-formed
    assert len(list(tmp_path.glob("*.svg"))) == 5
    for line in text.splitlines():
        assert "None" not in line
        assert "nan" not in line.lower().split()
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1, table
        names = [name.strip("*") for name in re.findall(r"\| (\**memstore[^|]*?) *\|", table)]
        if "memstore, history off" in names:
            assert names[0] in ("memstore", "memstore, add_many")


def test_page_of_a_busy_machine_has_a_warning(tmp_path: Path) -> None:
    runs = stored_runs()
    for load, warning in ((2.9, False), (3.1, True)):
        for phase in runs[-1]["phases"].values():
            phase["load_before"] = load
        report.write(runs, tmp_path / "performance.md")
        assert ("had other work" in (tmp_path / "performance.md").read_text(encoding="utf-8")) == warning


def test_targets_are_met_missed_or_not_measured() -> None:
    runs = stored_runs()

    def result() -> str:
        table = target_table(Results(runs, ROWS)).set_index("target")
        return table.loc["search, recall@10", "result"]

    assert result() == "met"
    for record in runs[-1]["records"]:
        if (record["phase"], record["system"]) == ("search", "memstore"):
            record["recall"] = 0.5
    assert result() == "**missed**"
    runs[-1]["records"] = []
    table = target_table(Results(runs, ROWS))
    assert set(table["result"]) == {""}
    assert set(table["default"]) == {"not measured"}


def test_later_run_replaces_figures_and_a_ratio_never_spans_two_runs() -> None:
    def run(**figures: float) -> dict:
        records = [
            {"phase": "search", "system": system, "case": "", "p50_ms": value, "rounds": [{"p50_ms": value}]}
            for system, value in figures.items()
        ]
        return {"facts": {"rows": 10}, "records": records}

    results = Results([run(memstore=2.0, usearch=1.0), run(memstore=9.0)], 10)
    assert results.figure(("search", "memstore", ""), "p50_ms") == 9.0
    ratio = results.ratio(("search", "memstore", ""), ("search", "usearch", ""), "p50_ms")
    assert ratio is not None
    assert ratio.value == 2.0


def test_labels_of_a_chart_stay_inside_and_do_not_overlap() -> None:
    labels = [spec.label for spec in SYSTEMS.values()]
    values = pd.DataFrame({"p50": [2.0**row for row in range(len(labels))], "p99": 1e5}, index=labels)
    figure = dot_chart(values, "title")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [tick.get_window_extent(canvas.get_renderer()) for tick in figure.axes[0].get_yticklabels()]
    assert len(boxes) == len(labels)
    for number, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])


def test_adapters_of_peers_import_no_memstore() -> None:
    for name, spec in SYSTEMS.items():
        if not spec.peer:
            continue
        pending, visited = [spec.adapter.partition(":")[0]], set()
        while pending:
            file = ROOT / "benchmarks" / "adapters" / f"{pending.pop()}.py"
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                modules = []
                if isinstance(node, ast.Import):
                    modules = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    modules = [node.module or ""]
                for module in modules:
                    assert module.split(".")[0] != "memstore", name
                    if module.startswith("benchmarks."):
                        assert module.split(".")[1] in ("adapters", "workset"), name
                        if module.count(".") == 2 and module not in visited:
                            visited.add(module)
                            pending.append(module.split(".")[2])


def test_every_peer_has_a_pinned_list_without_hosts() -> None:
    assert set(peers.NAMES) == {spec.peer for spec in SYSTEMS.values() if spec.peer}
    assert {file.stem for file in peers.REQUIREMENTS.glob("*.txt")} == set(peers.NAMES)
    for file in peers.REQUIREMENTS.glob("*.txt"):
        for line in file.read_text(encoding="utf-8").splitlines():
            assert line.startswith("#") or re.fullmatch(r"[\w.\[\]-]+==[\w.+]+", line), line


def test_stored_results_are_small_and_in_the_current_format() -> None:
    assert STORED_RESULTS.stat().st_size < 200_000
    assert json.loads(STORED_RESULTS.read_text(encoding="utf-8"))["format"] == FORMAT
    assert corpus.FORMAT > 0
