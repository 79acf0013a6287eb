"""The commands import and export."""

import json
import os
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path

import pytest

import memstore
from memstore.cli import import_export, sources
from memstore.cli.text import json_line
from memstore.testing import HashEmbedder
from tests.cli.commands import fails, lines, ok, process, script


async def everything(store):
    memories = {(m.namespace, m.id): m async for m in store.memories.list(recursive=True)}
    assemblies = {(a.namespace, a.id): a async for a in store.assemblies.list(recursive=True)}
    members = {
        key: {member async for member in store.namespace(*key[0]).assemblies.members(key[1])} for key in assemblies
    }
    derived = {"revision"}  # how often the members changed: not a field one can give
    fields = [name for name in memstore.Assembly.__dataclass_fields__ if name not in derived]
    plain = {
        key: [
            a.composite.tobytes() if name == "composite" and a.composite is not None else getattr(a, name)
            for name in fields
        ]
        for key, a in assemblies.items()
    }
    return memories, plain, members, (store.dimension, store.metric)


def test_export_and_import_preserve_every_field(rich, tmp_path):
    exported, copy = tmp_path / "all.jsonl", tmp_path / "copy.db"
    assert ok(rich, "export", exported) == f"exported 9 memories and 7 assemblies to {exported}\n"
    assert "imported 9 memories and 7 assemblies" in ok(copy, "import", exported)
    before, after = script(everything, rich), script(everything, copy)
    assert after == before
    assert len(before[0]) == 9
    assert ok(copy, "export") == exported.read_text("utf-8")
    assert ok(copy, "check") == "clean\n"


def test_export_pipes_into_import_between_processes(rich, tmp_path):
    exported = process(rich, "export")
    assert exported.stderr == ""
    done = process(tmp_path / "copy.db", "import -", stdin=exported.stdout)
    assert done.returncode == 0, done.stderr
    assert script(everything, tmp_path / "copy.db") == script(everything, rich)


def test_import_of_an_export_without_its_end_fails_and_keeps_what_came_before(rich, tmp_path):
    text = ok(rich, "export")
    rows = text.splitlines(keepends=True)
    assert json.loads(rows[-1]) == {"kind": "end", "memories": 9, "assemblies": 7}
    message = fails(tmp_path / "copy.db", "import -", stdin="".join(rows[:-1]))
    assert "The export is incomplete: it has no end line" in message


def test_import_with_upsert_replaces_changed_records(rich, tmp_path):
    exported = tmp_path / "all.jsonl"
    ok(rich, "export", exported)
    before = script(everything, rich)

    async def change(store):
        await store.memories.update("second", content="changed", embedding=[9, 9, 9, 9], tags={"new"})
        await store.assemblies.update("group", topics=["other"])
        await store.assemblies.remove_members("group", ["second"])

    script(change, rich)
    assert "pass --upsert to replace it" in fails(rich, "import", exported)
    ok(rich, "import", exported, "--upsert")
    assert script(everything, rich) == before


def test_import_keeps_the_name_of_an_embedder_that_cannot_be_loaded(hashed, tmp_path):
    copy = tmp_path / "copy.db"
    ok(copy, "import -", stdin=ok(hashed, "export"))
    assert lines(copy, "stats --json")[0]["embedder"] == "hash-8-0"
    memory = script(lambda s: s.memories.get("tea"), copy, embedder=HashEmbedder(8))
    assert memory == script(lambda s: s.memories.get("tea"), hashed)


def test_export_of_a_namespace_includes_those_below_and_import_can_move_them(rich, tmp_path):
    result = lines(rich, "export -n a")
    assert {tuple(line["namespace"]) for line in result[1:-1]} == {("a", "b")}
    ok(tmp_path / "copy.db", "import - -n x/y", stdin=ok(rich, "export -n a"))
    assert {key[0] for key in script(everything, tmp_path / "copy.db")[0]} == {("x", "y", "a", "b")}


def test_export_overwrites_no_file(small):
    content = small.read_bytes()
    assert "does not overwrite files" in fails(small, "export", small)
    assert small.read_bytes() == content
    assert "No such file" in fails(small, "export", small.parent / "nowhere" / "x.jsonl")


def test_members_that_expired_after_the_export_are_skipped(path):
    past, future = datetime(2020, 1, 1, tzinfo=UTC).isoformat(), datetime(2990, 1, 1, tzinfo=UTC).isoformat()
    result = [
        {"content": "old", "id": "old", "expires_at": past, "embedding": [1, 2]},
        {"content": "new", "id": "new", "expires_at": future, "embedding": [2, 1]},
        {"kind": "assembly", "id": "both", "members": ["old", "new"]},
    ]
    output = ok(path, "import -", stdin="".join(json.dumps(line) + "\n" for line in result))
    assert "imported 1 memory and 1 assembly" in output
    assert "skipped 1 expired memory" in output
    assert lines(path, "assemblies show both --json")[0]["members"] == ["new"]
    broken = json.dumps({"kind": "assembly", "id": "other", "members": ["nobody"]})
    assert "no memory 'nobody'" in fails(path, "import -", stdin=broken)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", "Not valid JSON"),
        ("[" * 100_000, "Not valid JSON"),
        ("[1]", "one JSON object"),
        ('{"text": "x"}', "its fields are: 'text'"),
        ('{"content": 5, "embedding": null}', "Invalid content: expected text, found a number"),
        ('{"content": "x", "embedding": [1]}', "dimension of an embedding: expected 2, found 1"),
        ('{"content": "x", "embedding": [NaN, 1]}', "NaN"),
        ('{"content": "x", "created_at": "today", "embedding": null}', "Invalid created_at: expected a time"),
        ('{"content": "x", "created_at": "2020-01-01", "embedding": null}', "a time with its zone"),
        ('{"kind": "thing"}', "Invalid kind"),
        ('{"kind": "store", "format": 99}', "format 99"),
        ('{"content": "x", "namespace": "a/b"}', "Invalid namespace: expected a list"),
        ('{"content": "x"}', "names no embedder"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_an_invalid_line_stops_an_import_with_its_number_and_the_stored_count(path, line, message):
    good = "".join(json.dumps({"content": f"{i}", "embedding": [i, 1]}) + "\n" for i in range(500))
    extra = json.dumps({"content": "good", "embedding": [1, 1]}) + "\n"
    result = fails(path, "import -", stdin=good + "\n" + extra + line + "\n" + extra)
    assert message in result
    assert result.startswith("memstore: error: stdin, line 503: ")
    assert result.count("line 503") == 1
    assert "500 records before it are stored" in result
    assert lines(path, "stats --json")[0]["memories"] == 500
    assert ok(path, "check") == "clean\n"


@pytest.mark.parametrize(
    ("bad", "message", "line"),
    [
        ({"kind": "assembly", "id": "b", "members": ["absent"]}, "no memory 'absent'", 5),
        ({"kind": "assembly", "id": "a"}, "Assembly 'a' exists", 5),
        ({"kind": "assembly", "id": "b", "bogus": 1}, "bogus", 5),
    ],
    ids=lambda value: str(value)[:30],
)
def test_the_line_of_an_invalid_assembly_is_reported(path, bad, message, line):
    items = [{"content": "x", "id": "x", "embedding": [1, 2]}, {"kind": "assembly", "id": "a", "members": ["x"]}]
    ok(path, "import -", stdin="".join(json.dumps(item) + "\n" for item in items))
    good = [{"kind": "assembly", "id": f"good {i}", "members": ["x"]} for i in range(5)]
    result = fails(path, "import -", stdin="".join(json.dumps(i) + "\n" for i in [*good[:4], bad, good[4]]))
    assert message in result
    assert result.startswith(f"memstore: error: stdin, line {line}: ")
    assert "0 records before it are stored" in result
    assert lines(path, "stats --json")[0]["assemblies"] == 1
    assert ok(path, "check") == "clean\n"


def test_an_error_without_an_invalid_record_is_reported_once_and_not_retried(small, tmp_path, monkeypatch):
    async def refuse(*_, **__):
        raise memstore.StorageError("the disk is full")

    exported = tmp_path / "all.jsonl"
    ok(small, "export", exported)
    monkeypatch.setattr(memstore.Memories, "upsert_many", refuse)
    monkeypatch.setattr(import_export._Importer, "invalid_item", None)
    result = fails(small, "import", exported, "--upsert")
    assert f"{exported}, line 5: the disk is full. 0 records before it are stored" in result


def many_lines(count):
    """An export of *count* records and more, by line: all with an expiry, so that nothing can be remembered of each."""
    yield {"kind": "store", "format": 1, "dimension": 2, "metric": "cosine", "embedder": None}
    when = "2990-01-01T00:00:00.000001+00:00"
    for i in range(count):
        yield {
            "kind": "memory", "id": f"m{i:06}", "namespace": [], "content": "x" * 100, "embedding": [1.0, float(i)],
            "tags": ["a", "b"], "metadata": {"i": i}, "importance": 0.5, "created_at": when, "updated_at": when,
            "expires_at": when, "accessed_at": None, "access_count": i, "pinned": i % 2 == 0,
        }  # fmt: skip
    for i in range(300):
        yield {
            "kind": "assembly", "id": f"g{i:03}", "namespace": [], "name": "", "description": "", "tags": [],
            "topics": [], "metadata": {}, "created_at": when, "updated_at": when,
            "activation_level": 0.0, "activated_at": None, "activation_count": 0,
            "members": [f"m{j:06}" for j in range(i, i + 200)],
        }  # fmt: skip
    yield {"kind": "end", "memories": count, "assemblies": 300}


@pytest.fixture
def peaks(monkeypatch):
    """The most memory that Python's objects took, from the 1,000th record to the 4,000th, and from there on."""
    maxima, calls = [], 0

    def count(really):
        def wrapped(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls in (1_000, 4_000):
                if calls == 4_000:
                    maxima.append(tracemalloc.get_traced_memory()[1])
                tracemalloc.reset_peak()
            return really(*arguments, **options)

        return wrapped

    monkeypatch.setattr(sources, "parse_item", count(sources.parse_item))
    monkeypatch.setattr(import_export, "json_line", count(import_export.json_line))
    tracemalloc.start()
    yield lambda: (maxima[0], tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["import", "export"])
def test_import_and_export_need_constant_memory_and_lose_no_byte(way, path, tmp_path, request, monkeypatch):
    """20,000 memories; as an export tells of them, so that what comes out is what went in."""
    source, out = tmp_path / "source.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json_line(line) for line in many_lines(20_000)), encoding="utf-8")
    monkeypatch.setattr(import_export, "MEMBERS", 1_000)
    few = "".join(json_line(line) for line in many_lines(2))  # what is imported at the first use is not counted
    ok(tmp_path / "few.db", "import -", stdin=few.split('{"kind": "assembly"')[0])
    measured = None
    for step, arguments in (("import", [source]), ("export", [out])):
        if step == way:
            measured = request.getfixturevalue("peaks")
        ok(path, step, *arguments)
        if step == way:
            early, late = measured()
            break
    assert late < 1.25 * early, (early, late)
    if way == "export":
        assert out.read_bytes() == source.read_bytes()


def test_an_invalid_first_line_creates_no_file(path):
    fails(path, "import -", stdin="nonsense\n")
    fails(path, "import -", stdin="")
    fails(path, "import", path.parent / "absent.jsonl")
    assert os.listdir(path.parent) == []


def test_markdown_and_text_are_imported_as_passages_with_their_headings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("notes.md").write_text(
        "# Tea\n\nGreen tea.\n\n## Water\n\n```sh\nboil  # not a heading\n\nwait\n```\n", "utf-8"
    )
    Path("plain.txt").write_text("\ufeffOne paragraph.\n\nAnother.\n", "utf-8")
    output = ok("s.db", "import notes.md plain.txt -t imported")
    assert "imported 3 memories" in output
    result = {memory["id"]: memory for memory in lines("s.db", "list --json")}
    assert result["notes.md#1"]["content"] == "Tea\n\nGreen tea."
    assert result["notes.md#2"]["content"] == "Tea › Water\n\n```sh\nboil  # not a heading\n\nwait\n```"
    assert result["notes.md#2"]["metadata"] == {"source": "notes.md", "part": 2, "headings": ["Tea", "Water"]}
    assert result["plain.txt#1"]["content"] == "One paragraph.\n\nAnother."
    assert all(memory["tags"] == ["imported"] for memory in result.values())
    assert "exists" in fails("s.db", "import notes.md")
    ok("s.db", "import notes.md --upsert")
    assert lines("s.db", "search 'boiling water' --json")[0]["memory"]["id"] == "notes.md#2"
    Path("latin.txt").write_bytes("Übung".encode("latin-1"))
    assert "latin.txt is not valid UTF-8" in fails("s.db", "import latin.txt")
    ok("s.db", "import - --format text", stdin="from a pipe")
    assert lines("s.db", "show", "stdin#1", "--json")[0]["content"] == "from a pipe"
