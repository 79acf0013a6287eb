"""`write_map`: the contents of the page, the file that it writes, and what it refuses."""

import base64
import gzip
import json
import re
import struct
import time
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from memstore import InvalidError, MissingFileError, Store
from memstore.testing import temporary_store
from memstore.visualize import write_map, writer
from memstore.visualize.projection import project_to_plane
from tests.visualize.hostile_text import SCRIPT_TEXT

START = datetime(2024, 1, 1, tzinfo=UTC)


class PageParser(HTMLParser):
    """The elements and texts of a page, as an HTML parser reads them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def page_data(path: Path) -> dict[str, Any]:
    """The data in a page, decoded the way its script decodes them."""
    match = re.search(rb'<script id="data"[^>]*>([A-Za-z0-9+/=]*)</script>', path.read_bytes())
    assert match is not None
    data = gzip.decompress(base64.b64decode(match[1]))
    (size,) = struct.unpack_from("<I", data)
    header: dict[str, Any] = json.loads(data[4 : 4 + size])
    start = -(-(4 + size) // 8) * 8
    for name, type_code, offset, length in header["arrays"]:
        assert (start + offset) % 8 == 0
        header[name] = np.frombuffer(data, f"<{type_code}", length, start + offset)
    return header


def split_at(values: npt.NDArray[Any], ends: npt.NDArray[Any]) -> list[list[int]]:
    return [part.tolist() for part in np.split(values, ends)[: len(ends)]]


async def add_memories(store: Store, count: int, **fields: Any) -> None:
    rng = np.random.default_rng(count)
    await store.memories.add_many(
        [
            {
                "id": f"m{i}",
                "content": f"number {i}",
                "embedding": rng.standard_normal(store.dimension),
                "created_at": START + timedelta(days=i),
                **fields,
            }
            for i in range(count)
        ]
    )


async def test_the_page_contains_the_memories_and_assemblies_of_the_store(tmp_path: Path) -> None:
    async with temporary_store(dimension=3) as store:
        await store.memories.add(
            "  tea\n\nin the  morning ", id="a", embedding=[1, 0, 0], tags={"t", "s"}, created_at=START
        )
        await store.memories.add("x" * 50, id="b", embedding=[0, 1, 0], importance=0.25, created_at=START)
        await store.memories.add("no place", id="c")
        await store.namespace("n", "m").memories.add("below", id="a", embedding=[0, 0, 1])
        await store.assemblies.add("g", name="Group", members=["a", "b", "c"], tags={"u"}, topics=["v"])
        await store.assemblies.add("h", members=["a"])
        await store.namespace("n", "m").assemblies.add("g", members=["a"])
        report = await write_map(store, tmp_path / "map.html", text_limit=20)
        data = page_data(tmp_path / "map.html")
    assert (report.memories, report.points, report.without_embedding, report.assemblies) == (4, 3, 1, 3)
    assert report.size == (tmp_path / "map.html").stat().st_size
    assert data["texts"] == ["tea in the morning", "x" * 20 + "…", "below"]
    assert data["ids"] == ["a", "b", "a"]
    assert [data["namespaces"][k] for k in data["namespaceIndexes"]] == ["", "", "n/m"]
    assert [[data["tags"][k] for k in tags] for tags in split_at(data["tagIndexes"], data["tagEnds"])] == [
        ["s", "t"],
        [],
        [],
    ]
    assert data["created"][0] == START.timestamp()
    assert data["importance"].tolist() == [0.5, 0.25, 0.5]
    groups = [(group["name"], group["size"], group["tags"]) for group in data["groups"]]
    assert groups == [("Group", 3, ["u", "v"]), ("g", 1, []), ("h", 1, [])]
    assert split_at(data["memberIndexes"], data["memberEnds"]) == [[0, 1], [2], [0]]
    assert data["title"] == "store.db"
    assert data["variance"] == pytest.approx(1.0)  # three points are in one plane
    points = np.stack([data["x"], data["y"]], axis=1)
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.testing.assert_allclose(distances[~np.eye(3, dtype=bool)], np.sqrt(2), atol=1e-5)  # those of the vectors


@pytest.mark.parametrize(("metric", "equal"), [("cosine", True), ("l2", False)])
async def test_cosine_ignores_the_length_of_vectors(tmp_path: Path, metric: Any, equal: bool) -> None:
    async with temporary_store(dimension=2, metric=metric) as store:
        for id, vector in (("a", [1, 0]), ("b", [9, 0]), ("c", [0, 1])):
            await store.memories.add(id, id=id, embedding=vector)
        await write_map(store, tmp_path / "map.html")
    data = page_data(tmp_path / "map.html")
    assert bool(np.hypot(data["x"][0] - data["x"][1], data["y"][0] - data["y"][1]) < 1e-5) is equal


async def test_a_namespace_argument_limits_the_map_to_it(tmp_path: Path) -> None:
    async with temporary_store(dimension=3) as store:
        await add_memories(store, 2)
        await store.namespace("n").memories.add("in", id="in", embedding=[1, 0, 0])
        assert (await write_map(store, tmp_path / "map.html", namespace=("n",), title="mine")).points == 1
    assert page_data(tmp_path / "map.html")["ids"] == ["in"]
    assert page_data(tmp_path / "map.html")["title"] == "mine"


async def test_the_same_store_gives_the_same_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with temporary_store(dimension=4) as store:
        await add_memories(store, 30, tags={"a", "b", "c"})
        await write_map(store, tmp_path / "one.html")
        later = time.time() + 1_000
        monkeypatch.setattr(time, "time", lambda: later)
        await write_map(store, tmp_path / "two.html")
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


async def test_a_sample_is_repeatable_and_part_of_every_larger_sample(tmp_path: Path) -> None:
    async with temporary_store(dimension=4) as store:
        await add_memories(store, 60)
        progress: list[tuple[int, int]] = []
        reports = [
            (await write_map(store, tmp_path / f"{k}.html", limit=k, on_progress=lambda *at: progress.append(at)))
            for k in (7, 20, 60)
        ]
        vectors = {m.id: m.embedding async for m in store.memories.list()}
    small, medium, full = (page_data(tmp_path / f"{k}.html") for k in (7, 20, 60))
    assert [report.points for report in reports] == [7, 20, 60]
    assert set(small["ids"]) < set(medium["ids"]) < set(full["ids"])
    assert medium["ids"] == sorted(medium["ids"], key=lambda name: int(name[1:]))  # in order of creation
    assert small["ids"] != full["ids"][:7]
    assert progress[-1] == (60, 60)
    async with temporary_store(dimension=4) as other:  # the same records, created in another order
        for id, vector in reversed(vectors.items()):
            await other.memories.add("other", id=id, embedding=vector)
        await write_map(other, tmp_path / "other.html", limit=7)
    assert set(page_data(tmp_path / "other.html")["ids"]) == set(small["ids"])
    # Every point has the position of its own vector, although the sample reuses rows of its array of vectors.
    sample = np.stack([vectors[id] for id in medium["ids"]]).astype(np.float32)
    sample /= np.linalg.norm(sample, axis=1, keepdims=True)
    np.testing.assert_allclose(np.stack([medium["x"], medium["y"]], axis=1), project_to_plane(sample)[0], atol=1e-5)


async def test_texts_of_records_cannot_add_elements_to_the_page(tmp_path: Path) -> None:
    async with temporary_store(dimension=3) as store:
        await store.memories.add(SCRIPT_TEXT, id=SCRIPT_TEXT, embedding=[1, 0, 0], tags={SCRIPT_TEXT})
        await store.namespace(SCRIPT_TEXT).memories.add("x", embedding=[0, 1, 0])
        await store.assemblies.add("g", name=SCRIPT_TEXT, members=[SCRIPT_TEXT], topics=["</style>"])
        await write_map(store, tmp_path / "map.html", title=SCRIPT_TEXT)
        await write_map(store, tmp_path / "plain.html", title="plain")
    hostile, plain = (PageParser((tmp_path / name).read_text(encoding="utf-8")) for name in ("map.html", "plain.html"))
    assert hostile.elements == plain.elements
    assert "struck" not in "".join(hostile.texts).replace(SCRIPT_TEXT, "")
    assert page_data(tmp_path / "map.html")["texts"][0].startswith("</script><script>")


async def test_the_page_refers_to_no_other_resource(tmp_path: Path) -> None:
    async with temporary_store(dimension=3) as store:
        await add_memories(store, 2)
        await write_map(store, tmp_path / "map.html")
    html = (tmp_path / "map.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|//\w|@import|url\(", re.sub(r"^\s*//.*$", "", html, flags=re.MULTILINE))
    elements = PageParser(html).elements
    names = {name for _, attributes in elements for name in attributes}
    assert not {"src", "href", "action", "style", "onclick"} & names
    (policy,) = [a["content"] for _, a in elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert re.fullmatch(r"default-src 'none'; script-src 'sha256-\S+'; style-src 'sha256-\S+'", policy)


async def test_only_a_map_is_replaced_and_the_replacement_is_atomic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with temporary_store(dimension=3) as store:
        (tmp_path / "notes.html").write_text("<!DOCTYPE html>\nmine")
        for target in (tmp_path / "notes.html", tmp_path):
            with pytest.raises(InvalidError, match="another path"):
                await write_map(store, target)
        assert (tmp_path / "notes.html").read_text() == "<!DOCTYPE html>\nmine"
        with pytest.raises(MissingFileError, match="nowhere"):
            await write_map(store, tmp_path / "nowhere" / "map.html")
        with pytest.raises(InvalidError):
            await write_map(store, tmp_path / "half\ud800.html")
        await write_map(store, tmp_path / "map.html")
        before = (tmp_path / "map.html").read_bytes()
        await add_memories(store, 3)

        def fail_without_space(self: Path, target: Path) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(writer.Path, "replace", fail_without_space)
            with pytest.raises(OSError, match="No space"):
                await write_map(store, tmp_path / "map.html")
        assert (tmp_path / "map.html").read_bytes() == before
        assert sorted(path.name for path in tmp_path.iterdir()) == ["map.html", "notes.html"]
        await write_map(store, tmp_path / "map.html")
        assert len(page_data(tmp_path / "map.html")["ids"]) == 3


@pytest.mark.parametrize(
    ("name", "value"), [("limit", 0), ("limit", 1_000_001), ("text_limit", -1), ("text_limit", 10_001)]
)
async def test_limits_are_checked(tmp_path: Path, name: str, value: int) -> None:
    async with temporary_store(dimension=3) as store:
        with pytest.raises(InvalidError, match=name):
            await write_map(store, tmp_path / "map.html", **{name: value})
