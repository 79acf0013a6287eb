"""The map page in a browser: what a person sees on it, and what clicks, drags and keys do.

The tests need Playwright (the extra `browser`) and Chromium. One page of one browser serves the whole module, on
the module's event loop, which the connection to the browser belongs to.
"""

import functools
import os
import re
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

import memstore
from memstore.visualize import write_map
from memstore.visualize.page import Group, MapData, Point, render_page
from tests.visualize.hostile_text import SCRIPT_TEXT

playwright_api = pytest.importorskip(
    "playwright.async_api", reason="Playwright is not installed: pip install 'memstore[browser]'"
)

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
START = datetime(2024, 1, 1, tzinfo=UTC)
WAIT = 30_000
"""Milliseconds until a condition on the page counts as failed."""

expect = playwright_api.expect
expect.set_options(timeout=WAIT)
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"),
]


class MapPage:
    """A page of the browser, with its console errors and its requests."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.mouse = page.mouse
        self.keyboard = page.keyboard
        self.locator = page.locator
        self.evaluate = page.evaluate
        self.errors: list[str] = []
        self.requests: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._record_message)
        page.on("request", lambda request: self.requests.append(request.url))

    def _record_message(self, message: Any) -> None:
        if message.type in {"error", "warning", "assert"}:
            self.errors.append(message.text)

    async def reset(self, color_scheme: str) -> None:
        await self.page.goto("about:blank")
        await self.page.emulate_media(color_scheme=color_scheme)
        await self.mouse.move(0, 0)
        self.errors.clear()
        self.requests.clear()

    async def load(self, path: Path) -> None:
        """Load a file, and wait until the page is ready."""
        await self.page.goto(path.resolve().as_uri())
        await expect(self.locator("html")).to_have_attribute("data-ready", "true")
        await self.next_frame()

    async def next_frame(self) -> None:
        """Wait for two frames: the first runs what earlier input scheduled, the second follows its drawing."""
        await self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done())))")

    async def move(self, x: float, y: float) -> None:
        await self.mouse.move(x, y)
        await self.next_frame()

    async def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        await self.mouse.move(*start)
        await self.mouse.down()
        await self.mouse.move(*end)
        await self.mouse.up()
        await self.next_frame()

    async def press(self, key: str) -> None:
        await self.keyboard.press(key)
        await self.next_frame()

    async def search(self, words: str) -> None:
        """Type into the search box, which `/` focuses."""
        await self.press("/")
        await self.keyboard.type(words)

    async def expect_text(self, selector: str, text: str | re.Pattern[str]) -> None:
        """Wait until the element is visible and has this text; Playwright's own check also reads hidden elements."""
        await expect(self.locator(selector)).to_have_text(text)
        await expect(self.locator(selector)).to_be_visible()

    async def visible_text(self, selector: str) -> str:
        await expect(self.locator(selector)).to_be_visible()
        return await self.locator(selector).inner_text()

    async def centre(self) -> tuple[float, float]:
        """The middle of the part of the map that no panel covers: `n` and `p` move a memory there."""
        x, y = await self.evaluate(
            "[(314 + innerWidth - 12) / 2,"
            " (48 + innerHeight - (document.getElementById('timeline').hidden ? 12 : 80)) / 2]"
        )
        return x, y

    async def coloured_pixels(self, contrast: int = 80) -> int:
        """How many pixels of the points' canvas have colour channels that differ by more than *contrast*."""
        return await self.evaluate(
            "contrast => { const c = document.getElementById('points'); const p = c.getContext('2d')"
            ".getImageData(0, 0, c.width, c.height).data; let k = 0; for (let i = 0; i < p.length; i += 4)"
            " k += Math.max(p[i], p[i + 1], p[i + 2]) - Math.min(p[i], p[i + 1], p[i + 2]) > contrast; return k; }",
            contrast,
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser_page() -> AsyncIterator[MapPage]:
    """A page of a headless Chromium without a network. One page serves all tests: a new one takes 0.2 s."""
    async with playwright_api.async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            chromium_sandbox=not (hasattr(os, "geteuid") and os.geteuid() == 0),  # Chromium has no sandbox for root
            args=["--disable-gpu", "--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND"],
        )
        yield MapPage(await chromium.new_page(viewport={"width": 1280, "height": 800}))
        await chromium.close()


@pytest_asyncio.fixture(loop_scope="module")
async def map_page(request: pytest.FixtureRequest, browser_page: MapPage) -> MapPage:
    """The page without a map; a test may set its colour scheme as the fixture's parameter."""
    await browser_page.reset(color_scheme=getattr(request, "param", "dark"))
    return browser_page


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The map of 40 memories in two distant groups, and of one memory in no group, halfway between them."""
    folder = tmp_path_factory.mktemp("shop")
    records: list[dict[str, Any]] = [
        {
            "content": f"{name} of day {day}",
            "id": f"{name}:{day}",
            "embedding": [x + day / 20, day % 5, 0],
            "tags": {name, "odd" if day % 2 else "even"},
            "created_at": START + timedelta(days=day),
        }
        for day in range(20)
        for name, x in (("tea", 10), ("rain", -10))
    ]
    records.append(
        {"content": SCRIPT_TEXT, "id": "alone", "embedding": [0, 2, 0], "created_at": START + timedelta(days=20)}
    )
    async with memstore.open(folder / "agent.db", dimension=3, metric="l2") as store:
        await store.memories.add_many(records)
        for name in ("tea", "rain"):
            await store.assemblies.add(f"g:{name}", name=f"All {name}", members=[f"{name}:{day}" for day in range(20)])
        await write_map(store, folder / "map.html")
    return folder / "map.html"


@pytest_asyncio.fixture(loop_scope="module")
async def shop(map_page: MapPage, shop_file: Path) -> MapPage:
    await map_page.load(shop_file)
    return map_page


async def test_the_page_loads_without_errors_and_requests_nothing_else(shop: MapPage) -> None:
    await shop.press("n")
    await shop.locator("#theme").click()
    await shop.locator("#outlines").click()
    await shop.next_frame()
    assert shop.errors == []
    assert [url.rpartition("/")[2] for url in shop.requests] == ["map.html"]
    await shop.expect_text("#title", "agent.db")
    assert "41 memories" in await shop.visible_text("#facts")
    assert await shop.coloured_pixels() > 40 * 20


async def test_hovering_shows_the_start_of_a_memory_and_clicking_shows_its_details(shop: MapPage) -> None:
    await expect(shop.locator("#tooltip")).to_be_hidden()
    await shop.press("n")  # selects the oldest memory and moves it to the centre
    await shop.press("Escape")
    x, y = await shop.centre()
    await shop.move(x, y)
    tip = await shop.visible_text("#tooltip")
    assert re.match(r"(tea|rain) of day 0\n2024-01-01 00:00 · All (tea|rain) · #", tip)
    await expect(shop.locator("#details")).to_be_hidden()
    await shop.mouse.click(x, y)
    card = await shop.visible_text("#details")
    assert re.search(r"(tea|rain) of day 0", card)
    assert re.search(r"id\s+(tea|rain):0", card)
    await shop.move(700, 60)
    await expect(shop.locator("#tooltip")).to_be_hidden()


async def test_dragging_moves_the_map_and_the_wheel_zooms_around_the_pointer(shop: MapPage) -> None:
    await shop.press("n")
    await shop.press("Escape")
    x, y = await shop.centre()
    await shop.mouse.move(x, y)
    await shop.mouse.wheel(0, -800)
    await shop.next_frame()
    await shop.move(x + 1, y)
    await expect(shop.locator("#tooltip")).to_be_visible()  # zooming did not move the memory under the pointer
    await shop.drag((x + 1, y), (x + 151, y + 50))
    await expect(shop.locator("#details")).to_be_hidden()  # a drag is not a click
    await shop.move(x + 151, y + 51)
    assert "of day 0" in await shop.visible_text("#tooltip")


@pytest.mark.parametrize(
    ("words", "count"), [("tea", 20), ("day 19", 2), ("#odd", 20), ("#tea #even", 10), ("#te day", 20), ("x#y", 0)]
)
async def test_the_search_box_matches_texts_and_tags(shop: MapPage, words: str, count: int) -> None:
    pixels = await shop.coloured_pixels()
    await shop.search(words)
    await shop.expect_text("#status", re.compile(f"^{count} of 41 "))
    await expect(shop.locator("#results > *")).to_have_count(count)
    await shop.next_frame()
    assert await shop.coloured_pixels() < pixels
    # The other memories are faint, not removed: the channels of the background differ by 8.
    assert await shop.coloured_pixels(contrast=8) > 40 * 9
    await shop.press("Escape")
    await expect(shop.locator("#status")).to_have_text("")
    await shop.next_frame()
    assert await shop.coloured_pixels() == pixels


async def test_the_time_slider_keeps_the_memories_between_its_handles(shop: MapPage) -> None:
    box = await shop.locator("#rangeStart").bounding_box()
    left, right, y = box["x"] + 8, box["x"] + box["width"] - 8, box["y"] + box["height"] - 8
    await shop.drag((left, y), (left + (right - left) * 0.525, y))
    await shop.expect_text("#startLabel", "2024-01-11")
    await shop.expect_text("#status", "19 of 41 memories match")  # days 11 to 19 twice, and day 20
    await shop.drag((right, y), (left + (right - left) * 0.775, y))
    await shop.expect_text("#status", "10 of 41 memories match")  # days 11 to 15, twice


async def test_clicking_an_assembly_shows_its_members_only(shop: MapPage) -> None:
    assert (await shop.visible_text("#groups")).split("\n") == ["All rain", "20", "All tea", "20"]
    await shop.expect_text("#ungrouped", "1 memory is in no assembly.")
    await shop.locator("#groups li:nth-child(2) button").click()
    await shop.expect_text("#status", "20 of 41 memories match")
    rows = (await shop.visible_text("#results")).split("\n")
    assert all("tea" in row for row in rows if row)
    await shop.locator("#groups li:nth-child(1) button").click()
    await shop.expect_text("#status", "40 of 41 memories match")


async def test_keys_select_the_memories_in_order_of_time(shop: MapPage) -> None:
    await shop.search("#tea")
    await shop.expect_text("#status", re.compile("^20 "))
    await shop.locator("#overlay").focus()
    ids = []
    for key in "nnnp":
        await shop.press(key)
        ids.append(re.search(r"tea:\d+", await shop.visible_text("#details"))[0])  # type: ignore[index]
    assert ids == ["tea:0", "tea:1", "tea:2", "tea:1"]


async def test_a_text_with_a_script_in_it_is_displayed_and_not_executed(shop: MapPage) -> None:
    await shop.search("struck")
    await expect(shop.locator("#results > *")).to_have_count(1)
    await shop.locator("#results button").click()
    assert "</script><script>window.struck = 1</script><img src=x" in await shop.visible_text("#details")
    assert await shop.evaluate("typeof window.struck") == "undefined"
    assert await shop.locator("img, #details script").count() == 0
    # The page's policy would not execute a script that somehow got into the document.
    await shop.evaluate(
        "(s => { s.textContent = 'window.struck = 1'; document.body.append(s); })(document.createElement('script'))"
    )
    assert await shop.evaluate("typeof window.struck") == "undefined"
    await shop.next_frame()
    assert any("Content Security Policy" in error for error in shop.errors)


def map_data(count: int, **fields: Any) -> MapData:
    """A map of *count* points, in twelve groups where there are two or more."""
    rng = np.random.default_rng(count)
    labels = rng.integers(0, 12, count)
    points = [
        Point(
            id=f"m{i}",
            namespace=(),
            text=f"memory number {i} of many, with some words in it that can be searched",
            tags=(f"t{labels[i]}",),
            created=START.timestamp() + i * 60,
            importance=0.5,
        )
        for i in range(count)
    ]
    groups = [
        Group(id=f"g{k}", name=f"Group {k}", tags=(), size=len(members), members=members.tolist())
        for k in range(12 if count > 1 else 0)
        if len(members := np.flatnonzero(labels == k))
    ]
    centres = rng.standard_normal((12, 2)) * 3
    defaults: dict[str, Any] = {
        "title": "a store",
        "metric": "cosine",
        "memories": count,
        "without_embedding": 0,
        "variance": 0.5,
        "text_limit": 160,
        "points": points,
        "positions": (centres[labels] + rng.standard_normal((count, 2))).astype(np.float32),
        "groups": groups,
    }
    return MapData(**{**defaults, **fields})


@functools.cache
def page_of(count: int) -> bytes:
    return render_page(map_data(count))


@pytest.mark.parametrize("map_page", ["dark", "light"], indirect=True)
@pytest.mark.parametrize("count", [0, 1, 700, 100_000])
async def test_a_page_of_any_size_loads_and_responds(map_page: MapPage, tmp_path: Path, count: int) -> None:
    page = page_of(count)
    (tmp_path / "map.html").write_bytes(page)
    assert len(page) < 45_000 + 60 * count  # bytes
    await map_page.load(tmp_path / "map.html")
    assert map_page.errors == []
    assert len(map_page.requests) == 1
    if not count:
        await map_page.expect_text("#message", "This store is empty.")
        return
    await expect(map_page.locator("#message")).to_be_hidden()
    await map_page.press("n")
    await map_page.press("Escape")
    await map_page.move(*await map_page.centre())
    assert "memory number" in await map_page.visible_text("#tooltip")
    await map_page.search(f"number {count - 1} ")
    await expect(map_page.locator("#results > *")).to_have_count(1)
    assert map_page.errors == []


async def test_a_page_with_corrupt_data_shows_an_error(map_page: MapPage, tmp_path: Path) -> None:
    page = render_page(map_data(3))
    offset = page.index(b'octet-stream">') + 200
    (tmp_path / "map.html").write_bytes(page[:offset] + b"AAAA" + page[offset + 4 :])
    await map_page.page.goto((tmp_path / "map.html").as_uri())
    await map_page.expect_text("#message", re.compile("^Cannot draw this page"))
    assert await map_page.evaluate("document.documentElement.dataset.ready") is None
    assert len(map_page.errors) == 1


async def test_the_page_counts_the_memories_that_it_does_not_show(map_page: MapPage, tmp_path: Path) -> None:
    (tmp_path / "map.html").write_bytes(render_page(map_data(5, memories=1_000, without_embedding=1)))
    await map_page.load(tmp_path / "map.html")
    await map_page.expect_text(
        "#facts", "1,000 memories · 1 without a vector, not on the map · a sample of 5 on the map"
    )
    (tmp_path / "map.html").write_bytes(render_page(map_data(0, memories=3, without_embedding=3)))
    await map_page.load(tmp_path / "map.html")
    await map_page.expect_text("#message", re.compile("^No memory in this store has a vector"))
