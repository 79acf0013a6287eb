"""A store drawn as a page: what is in it, what is not, and what a person does with it in a browser."""

import asyncio
import base64
import gzip
import json
import re
import struct
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from typer.testing import CliRunner

import memstore
from memstore import InvalidError, MissingFileError, Store
from memstore.cli.app import app
from memstore.testing import temporary_store
from memstore.visualize import drawing, write_map
from memstore.visualize.page import Group, Picture, Point, page
from memstore.visualize.projection import plane
from tests.support.browser import CHROMIUM, Page, PageError, browser

START = datetime(2024, 1, 1, tzinfo=UTC)
HOSTILE = "</script><script>window.struck = 1</script><img src=x onerror='window.struck = 1'>\u2028<!--\x01%%data%%"


class _Elements(HTMLParser):
    """The elements of a page, as a browser would find them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def unpacked(path: Path) -> dict[str, Any]:
    """The data of a page, read as the script in it reads them."""
    found = re.search(rb'<script id="data"[^>]*>([A-Za-z0-9+/=]*)</script>', path.read_bytes())
    assert found is not None
    data = gzip.decompress(base64.b64decode(found[1]))
    (size,) = struct.unpack_from("<I", data)
    head: dict[str, Any] = json.loads(data[4 : 4 + size])
    start = -(-(4 + size) // 8) * 8
    for name, kind, offset, length in head["arrays"]:
        assert (start + offset) % 8 == 0
        head[name] = np.frombuffer(data, f"<{kind}", length, start + offset)
    return head


def lists(ends: npt.NDArray[Any], values: npt.NDArray[Any]) -> list[list[int]]:
    return [part.tolist() for part in np.split(values, ends)[: len(ends)]]


async def add(store: Store, count: int, **fields: Any) -> None:
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


# ---- the projection


@pytest.mark.parametrize("shape", [(400, 30), (30, 400), (2, 5), (5, 2), (40, 1), (3, 3)])
def test_the_plane_is_that_of_the_principal_components(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    data = (rng.standard_normal(shape) * np.geomspace(10, 0.1, shape[1]) + 3).astype(np.float32)
    centred = data.astype(np.float64) - data.mean(axis=0, dtype=np.float64)
    _, values, directions = np.linalg.svd(centred, full_matrices=False)
    points, share = plane(data.copy())
    scale = np.abs(data).max()
    for k in range(min(2, *shape) - (min(shape) == 2)):  # of two vectors, the second component is nothing
        np.testing.assert_allclose(np.abs(points[:, k] * scale), np.abs(centred @ directions[k]), rtol=1e-3, atol=2e-3)
    assert share == pytest.approx((values[:2] ** 2).sum() / (values**2).sum(), abs=1e-4)


def test_the_signs_are_fixed_by_the_vectors_alone() -> None:
    data = np.random.default_rng(1).standard_normal((50, 6)).astype(np.float32)
    points, _ = plane(data.copy())
    again, _ = plane(data[::-1].copy())
    np.testing.assert_allclose(points, again[::-1], atol=1e-3)
    turned, _ = plane(-data)
    assert not np.allclose(points, turned, atol=1e-3) or np.allclose(points, 0)


@pytest.mark.parametrize(
    "data",
    [np.zeros((0, 4)), np.ones((1, 4)), np.full((9, 4), 7.0), np.zeros((9, 4))],
    ids=["none", "one", "same", "0"],
)
def test_vectors_that_do_not_differ_lie_in_one_place(data: npt.NDArray[Any]) -> None:
    points, share = plane(data.astype(np.float32))
    assert points.shape == (len(data), 2)
    assert not points.any()
    assert share == 1.0


@pytest.mark.parametrize("size", [1e-30, 1e37])
def test_the_size_of_the_vectors_is_no_trouble(size: float) -> None:
    data = np.random.default_rng(2).standard_normal((60, 5)).astype(np.float32)
    points, share = plane(data * np.float32(size))
    usual, usual_share = plane(data)
    np.testing.assert_allclose(points, usual, atol=1e-4)
    assert share == pytest.approx(usual_share, abs=1e-4)


# ---- the page


async def test_the_page_holds_what_the_store_holds(tmp_path: Path) -> None:
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
        drawn = await write_map(store, tmp_path / "map.html", text=20)
        data = unpacked(tmp_path / "map.html")
    assert (drawn.memories, drawn.points, drawn.without_embedding, drawn.assemblies) == (4, 3, 1, 3)
    assert drawn.size == (tmp_path / "map.html").stat().st_size
    assert data["texts"] == ["tea in the morning", "x" * 20 + "…", "below"]
    assert data["ids"] == ["a", "b", "a"]
    assert [data["spaces"][k] for k in data["space"]] == ["", "", "n/m"]
    assert [[data["tags"][k] for k in tags] for tags in lists(data["tagEnd"], data["tag"])] == [["s", "t"], [], []]
    assert data["created"][0] == START.timestamp()
    assert data["importance"].tolist() == [0.5, 0.25, 0.5]
    names = [(group["name"], group["size"], group["tags"]) for group in data["groups"]]
    assert names == [("Group", 3, ["u", "v"]), ("g", 1, []), ("h", 1, [])]
    assert lists(data["memberEnd"], data["member"]) == [[0, 1], [2], [0]]
    assert data["title"] == "store.db"
    assert data["variance"] == pytest.approx(1.0)  # three points are in a plane
    where = np.stack([data["x"], data["y"]], axis=1)
    distances = np.linalg.norm(where[:, None] - where[None], axis=2)
    np.testing.assert_allclose(distances[~np.eye(3, dtype=bool)], np.sqrt(2), atol=1e-5)  # as in the space


@pytest.mark.parametrize(("metric", "together"), [("cosine", True), ("l2", False)])
async def test_under_cosine_length_is_nothing(tmp_path: Path, metric: Any, together: bool) -> None:
    async with temporary_store(dimension=2, metric=metric) as store:
        for id, vector in (("a", [1, 0]), ("b", [9, 0]), ("c", [0, 1])):
            await store.memories.add(id, id=id, embedding=vector)
        await write_map(store, tmp_path / "map.html")
    data = unpacked(tmp_path / "map.html")
    assert bool(np.hypot(data["x"][0] - data["x"][1], data["y"][0] - data["y"][1]) < 1e-5) is together


async def test_only_the_namespace_asked_for_is_drawn(tmp_path: Path) -> None:
    async with temporary_store(dimension=3) as store:
        await add(store, 2)
        await store.namespace("n").memories.add("in", id="in", embedding=[1, 0, 0])
        assert (await write_map(store, tmp_path / "map.html", namespace=("n",), title="mine")).points == 1
    assert unpacked(tmp_path / "map.html")["ids"] == ["in"]
    assert unpacked(tmp_path / "map.html")["title"] == "mine"


async def test_the_same_store_gives_the_same_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with temporary_store(dimension=4) as store:
        await add(store, 30, tags={"a", "b", "c"})
        await write_map(store, tmp_path / "one.html")
        later = time.time() + 1_000
        monkeypatch.setattr(time, "time", lambda: later)
        await write_map(store, tmp_path / "two.html")
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


async def test_a_sample_is_the_same_each_time_and_part_of_any_larger_one(tmp_path: Path) -> None:
    async with temporary_store(dimension=4) as store:
        await add(store, 60)
        seen: list[tuple[int, int]] = []
        drawn = [
            (await write_map(store, tmp_path / f"{k}.html", limit=k, on_progress=lambda *at: seen.append(at)))
            for k in (7, 20, 60)
        ]
        vectors = {m.id: m.embedding async for m in store.memories.list()}
    few, some, every = (unpacked(tmp_path / f"{k}.html") for k in (7, 20, 60))
    assert [d.points for d in drawn] == [7, 20, 60]
    assert set(few["ids"]) < set(some["ids"]) < set(every["ids"])
    assert some["ids"] == sorted(some["ids"], key=lambda one: int(one[1:]))  # in order of creation
    assert few["ids"] != every["ids"][:7]
    assert seen[-1] == (60, 60)
    async with temporary_store(dimension=4) as other:  # in another order
        for id, vector in reversed(vectors.items()):
            await other.memories.add("other", id=id, embedding=vector)
        await write_map(other, tmp_path / "other.html", limit=7)
    assert set(unpacked(tmp_path / "other.html")["ids"]) == set(few["ids"])
    # Each point has its own vector's place, although places in memory were given from one to another.
    again = np.stack([vectors[id] for id in some["ids"]]).astype(np.float32)
    again /= np.linalg.norm(again, axis=1, keepdims=True)
    np.testing.assert_allclose(np.stack([some["x"], some["y"]], axis=1), plane(again)[0], atol=1e-5)


async def test_nothing_in_a_record_becomes_part_of_the_page(tmp_path: Path) -> None:
    async with temporary_store(dimension=3) as store:
        await store.memories.add(HOSTILE, id=HOSTILE, embedding=[1, 0, 0], tags={HOSTILE})
        await store.namespace(HOSTILE).memories.add("x", embedding=[0, 1, 0])
        await store.assemblies.add("g", name=HOSTILE, members=[HOSTILE], topics=["</style>"])
        await write_map(store, tmp_path / "map.html", title=HOSTILE)
        await write_map(store, tmp_path / "plain.html", title="plain")
    text = (tmp_path / "map.html").read_text(encoding="utf-8")
    hostile, plain = _Elements(text), _Elements((tmp_path / "plain.html").read_text(encoding="utf-8"))
    assert hostile.found == plain.found
    assert "struck" not in "".join(hostile.texts).replace(HOSTILE, "")
    assert unpacked(tmp_path / "map.html")["texts"][0].startswith("</script><script>")


async def test_the_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    async with temporary_store(dimension=3) as store:
        await add(store, 2)
        await write_map(store, tmp_path / "map.html")
    text = (tmp_path / "map.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|//\w|@import|url\(", re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))
    found = _Elements(text).found
    assert not {"src", "href", "action", "style", "onclick"} & {name for _, attributes in found for name in attributes}
    (policy,) = [a["content"] for _, a in found if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert re.fullmatch(r"default-src 'none'; script-src 'sha256-\S+'; style-src 'sha256-\S+'", policy)


async def test_only_a_page_is_replaced_and_only_by_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with temporary_store(dimension=3) as store:
        (tmp_path / "notes.html").write_text("<!DOCTYPE html>\nmine")
        for place in (tmp_path / "notes.html", tmp_path):
            with pytest.raises(InvalidError, match="another path"):
                await write_map(store, place)
        assert (tmp_path / "notes.html").read_text() == "<!DOCTYPE html>\nmine"
        with pytest.raises(MissingFileError, match="nowhere"):
            await write_map(store, tmp_path / "nowhere" / "map.html")
        with pytest.raises(InvalidError):
            await write_map(store, tmp_path / "half\ud800.html")
        await write_map(store, tmp_path / "map.html")
        before = (tmp_path / "map.html").read_bytes()
        await add(store, 3)

        def full(self: Path, target: Path) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(drawing.Path, "replace", full)
            with pytest.raises(OSError, match="No space"):
                await write_map(store, tmp_path / "map.html")
        assert (tmp_path / "map.html").read_bytes() == before
        assert sorted(p.name for p in tmp_path.iterdir()) == ["map.html", "notes.html"]
        await write_map(store, tmp_path / "map.html")
        assert len(unpacked(tmp_path / "map.html")["ids"]) == 3


@pytest.mark.parametrize(("name", "value"), [("limit", 0), ("limit", 1_000_001), ("text", -1), ("text", 10_001)])
async def test_limits_are_checked(tmp_path: Path, name: str, value: int) -> None:
    async with temporary_store(dimension=3) as store:
        with pytest.raises(InvalidError, match=name):
            await write_map(store, tmp_path / "map.html", **{name: value})


def test_the_command_draws_and_says_what_it_drew(tmp_path: Path) -> None:
    file = tmp_path / "agent.db"

    async def make() -> None:
        async with memstore.open(file, dimension=3) as store:
            await add(store, 5)
            await store.memories.add("no vector")
            await store.assemblies.add("g", members=["m1"])

    asyncio.run(make())
    runner = CliRunner()
    done = runner.invoke(app, ["map", str(tmp_path / "map.html"), "--file", str(file), "--limit", "2"])
    assert done.exit_code == 0, done.output
    assert "drew 2 memories and 1 assembly" in done.stdout
    assert "1 memory has no vector" in done.stdout
    assert "a sample of 6" in done.stdout
    told = runner.invoke(app, ["map", str(tmp_path / "map.html"), "--file", str(file), "--json"])
    assert json.loads(told.stdout).keys() == {
        "memories",
        "points",
        "without_embedding",
        "assemblies",
        "variance",
        "size",
    }
    refused = runner.invoke(app, ["map", str(file), "--file", str(file)])
    assert refused.exit_code == 1
    assert "is not replaced" in refused.stderr


# ---- in a browser

in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")


@pytest.fixture(scope="module")
def opened() -> Iterator[Page]:
    with browser() as page:
        yield page


@pytest.fixture
def shop(opened: Page, tmp_path: Path) -> Page:
    """A page of 40 memories in two groups that lie apart, and one in none, in the middle of them."""

    async def make() -> None:
        async with memstore.open(tmp_path / "agent.db", dimension=3, metric="l2") as store:
            for k in range(20):
                for name, x in (("tea", 10), ("rain", -10)):
                    await store.memories.add(
                        f"{name} of day {k}",
                        id=f"{name}:{k}",
                        embedding=[x + k / 20, k % 5, 0],
                        tags={name, "odd" if k % 2 else "even"},
                        created_at=START + timedelta(days=k),
                    )
            await store.memories.add(HOSTILE, id="alone", embedding=[0, 2, 0], created_at=START + timedelta(days=20))
            await store.assemblies.add("g:tea", name="All tea", members=[f"tea:{k}" for k in range(20)])
            await store.assemblies.add("g:rain", name="All rain", members=[f"rain:{k}" for k in range(20)])
            await write_map(store, tmp_path / "map.html")

    asyncio.run(make())
    opened.open(tmp_path / "map.html")
    return opened


def text(page: Page, id: str) -> str:
    """What a person reads there: nothing, where it is hidden."""
    return str(page.value(f"(e => e.checkVisibility() ? e.innerText : '')(document.getElementById('{id}'))"))


def middle(page: Page, selector: str) -> tuple[float, float]:
    box = page.value(
        f"(r => [r.left + r.width / 2, r.top + r.height / 2])(document.querySelector({json.dumps(selector)})"
        ".getBoundingClientRect())"
    )
    return box[0], box[1]


def heart(page: Page) -> tuple[float, float]:
    """The middle of what panels leave free, where a memory is brought that is asked for."""
    x, y = page.value(
        "[(314 + innerWidth - 12) / 2, (48 + innerHeight - (document.getElementById('times').hidden ? 12 : 80)) / 2]"
    )
    return x, y


def coloured(page: Page, least: int = 80) -> int:
    """How many pixels of the points' canvas have a strong colour: their lightest and darkest part differ by *least*."""
    return int(
        page.value(
            "(() => { const c = document.getElementById('points'); const p = c.getContext('2d')"
            ".getImageData(0, 0, c.width, c.height).data; let k = 0; for (let i = 0; i < p.length; i += 4)"
            f" k += Math.max(p[i], p[i + 1], p[i + 2]) - Math.min(p[i], p[i + 1], p[i + 2]) > {least}; return k; }})()"
        )
    )


@in_a_browser
def test_the_page_opens_without_an_error_and_asks_for_nothing(shop: Page) -> None:
    shop.press("n")
    shop.click(*middle(shop, "#theme"))
    shop.click(*middle(shop, "#outlines"))
    assert shop.errors == []
    assert [url.rpartition("/")[2] for url in shop.requests] == ["map.html"]
    assert text(shop, "title") == "agent.db"
    assert "41 memories" in text(shop, "facts")
    assert coloured(shop) > 40 * 20


@in_a_browser
def test_hovering_over_a_point_shows_its_text_and_clicking_all_of_it(shop: Page) -> None:
    assert shop.value("document.getElementById('tip').hidden")
    shop.press("n")  # the oldest, brought to the middle
    shop.press("Escape")
    x, y = heart(shop)
    shop.pointer("mouseMoved", x, y)
    assert re.match(r"(tea|rain) of day 0\n2024-01-01 00:00 · All (tea|rain) · #", text(shop, "tip"))
    assert shop.value("document.getElementById('card').hidden")
    shop.click(x, y)
    card = text(shop, "card")
    assert re.search(r"(tea|rain) of day 0", card)
    assert re.search(r"id\s+(tea|rain):0", card)
    shop.pointer("mouseMoved", 700, 60)
    assert shop.value("document.getElementById('tip').hidden")


@in_a_browser
def test_dragging_moves_the_map_and_the_wheel_zooms_about_the_pointer(shop: Page) -> None:
    shop.press("n")
    shop.press("Escape")
    x, y = heart(shop)
    shop.pointer("mouseWheel", x, y, deltaX=0, deltaY=-800)
    shop.pointer("mouseMoved", x + 1, y)
    assert not shop.value("document.getElementById('tip').hidden")  # it is where it was
    shop.pointer("mousePressed", x + 1, y, button="left", clickCount=1)
    shop.pointer("mouseMoved", x + 151, y + 50, button="left", buttons=1)
    shop.pointer("mouseReleased", x + 151, y + 50, button="left", clickCount=1)
    assert shop.value("document.getElementById('card').hidden")  # a drag is no click
    shop.pointer("mouseMoved", x + 151, y + 51)
    assert "of day 0" in text(shop, "tip")


@in_a_browser
@pytest.mark.parametrize(
    ("words", "matching"), [("tea", 20), ("day 19", 2), ("#odd", 20), ("#tea #even", 10), ("#te day", 20), ("x#y", 0)]
)
def test_the_search_box_finds_texts_and_tags(shop: Page, words: str, matching: int) -> None:
    before = coloured(shop)
    shop.press("/")
    shop.type(words)
    shop.until(f"document.getElementById('status').innerText.startsWith('{matching} of 41 ')")
    assert shop.value("document.getElementById('found').children.length") == matching
    shop.drawn()
    assert coloured(shop) < before
    assert coloured(shop, 8) > 40 * 9  # the rest is faint, not gone: the ground's own parts differ by 8
    shop.press("Escape")
    shop.until("document.getElementById('status').innerText === ''")
    shop.drawn()
    assert coloured(shop) == before


@in_a_browser
def test_the_slider_leaves_what_lies_between_its_handles(shop: Page) -> None:
    box = shop.value("(r => [r.left, r.right, r.bottom])(document.getElementById('low').getBoundingClientRect())")
    left, right, y = box[0] + 8, box[1] - 8, box[2] - 8
    shop.pointer("mouseMoved", left, y)
    shop.pointer("mousePressed", left, y, button="left", clickCount=1)
    shop.pointer("mouseMoved", left + (right - left) * 0.525, y, button="left", buttons=1)
    shop.pointer("mouseReleased", left + (right - left) * 0.525, y, button="left", clickCount=1)
    assert text(shop, "from") == "2024-01-11"
    assert text(shop, "status") == "19 of 41 memories match"  # days 11 to 19 twice, and day 20
    shop.pointer("mousePressed", right, y, button="left", clickCount=1)
    shop.pointer("mouseMoved", left + (right - left) * 0.775, y, button="left", buttons=1)
    shop.pointer("mouseReleased", left + (right - left) * 0.775, y, button="left", clickCount=1)
    assert text(shop, "status") == "10 of 41 memories match"  # days 11 to 15, twice


@in_a_browser
def test_a_press_on_an_assembly_leaves_its_members(shop: Page) -> None:
    assert text(shop, "groups").split("\n") == ["All rain", "20", "All tea", "20"]
    assert text(shop, "loose") == "1 memory is in none"
    shop.click(*middle(shop, "#groups li:nth-child(2) button"))
    assert text(shop, "status") == "20 of 41 memories match"
    assert all("tea" in row for row in text(shop, "found").split("\n") if row)
    shop.click(*middle(shop, "#groups li:nth-child(1) button"))
    assert text(shop, "status") == "40 of 41 memories match"


@in_a_browser
def test_the_keyboard_steps_through_the_memories_in_order_of_time(shop: Page) -> None:
    shop.press("/")
    shop.type("#tea")
    shop.until("document.getElementById('status').innerText.startsWith('20 ')")
    shop.value("document.getElementById('over').focus()")
    seen = []
    for key in "nnnp":
        shop.press(key)
        seen.append(re.search(r"tea:\d+", text(shop, "card"))[0])  # type: ignore[index]
    assert seen == ["tea:0", "tea:1", "tea:2", "tea:1"]


@in_a_browser
def test_a_text_that_looks_like_a_script_is_shown_and_not_run(shop: Page) -> None:
    shop.press("/")
    shop.type("struck")
    shop.until("document.getElementById('found').children.length === 1")
    shop.click(*middle(shop, "#found button"))
    assert "</script><script>window.struck = 1</script><img src=x" in text(shop, "card")
    assert shop.value("typeof window.struck") == "undefined"
    assert shop.value("document.querySelectorAll('img, #card script').length") == 0
    # And if one ever came in, the page's policy would not run it.
    shop.value(
        "(s => { s.textContent = 'window.struck = 1'; document.body.append(s); })(document.createElement('script'))"
    )
    assert shop.value("typeof window.struck") == "undefined"
    assert any("Content Security Policy" in error for error in shop.errors)


def drawn_of(count: int, **fields: Any) -> Picture:
    """A picture of so many points."""
    rng = np.random.default_rng(count)
    which = rng.integers(0, 12, count)
    points = [
        Point(
            id=f"m{i}",
            namespace=(),
            text=f"memory number {i} of many, with some words in it that can be searched",
            tags=(f"t{which[i]}",),
            created=START.timestamp() + i * 60,
            importance=0.5,
        )
        for i in range(count)
    ]
    groups = [
        Group(id=f"g{k}", name=f"Group {k}", tags=(), size=len(of), members=of.tolist())
        for k in range(12 if count > 1 else 0)
        if len(of := np.flatnonzero(which == k))
    ]
    centres = rng.standard_normal((12, 2)) * 3
    made: dict[str, Any] = {
        "title": "a store",
        "metric": "cosine",
        "memories": count,
        "without_embedding": 0,
        "variance": 0.5,
        "text": 160,
        "points": points,
        "places": (centres[which] + rng.standard_normal((count, 2))).astype(np.float32),
        "groups": groups,
    }
    return Picture(**{**made, **fields})


@in_a_browser
@pytest.mark.parametrize("light", [False, True], ids=["dark", "light"])
@pytest.mark.parametrize("count", [0, 1, 700, 100_000])
def test_a_page_of_any_size_opens_and_can_be_used(opened: Page, tmp_path: Path, count: int, light: bool) -> None:
    data = page(drawn_of(count))
    (tmp_path / "map.html").write_bytes(data)
    assert len(data) < 45_000 + 60 * count  # bytes
    opened.open(tmp_path / "map.html", light=light)
    assert opened.errors == []
    assert len(opened.requests) == 1
    if not count:
        assert text(opened, "empty") == "This store is empty."
        return
    assert opened.value("document.getElementById('empty').hidden")
    opened.press("n")
    opened.press("Escape")
    opened.pointer("mouseMoved", *heart(opened))
    assert "memory number" in text(opened, "tip")
    opened.press("/")
    opened.type(f"number {count - 1} ")
    opened.until("document.getElementById('found').children.length === 1")
    assert opened.errors == []


@in_a_browser
def test_a_page_that_cannot_be_drawn_says_so(opened: Page, tmp_path: Path) -> None:
    whole = page(drawn_of(3))
    at = whole.index(b'octet-stream">') + 200
    (tmp_path / "map.html").write_bytes(whole[:at] + b"AAAA" + whole[at + 4 :])
    with pytest.raises(PageError, match="never came true"):
        opened.open(tmp_path / "map.html", frames=60)
    assert text(opened, "empty").startswith("This page could not be drawn")


@in_a_browser
def test_the_page_says_what_it_does_not_show(opened: Page, tmp_path: Path) -> None:
    (tmp_path / "map.html").write_bytes(page(drawn_of(5, memories=1_000, without_embedding=1)))
    opened.open(tmp_path / "map.html")
    assert text(opened, "facts") == (
        "1,000 memories · 1 without a vector is not on the map · a sample of 5 is drawn, the same each time"
    )
    (tmp_path / "map.html").write_bytes(page(drawn_of(0, memories=3, without_embedding=3)))
    opened.open(tmp_path / "map.html")
    assert text(opened, "empty").startswith("No memory in this store has a vector")
