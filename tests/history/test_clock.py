"""Clocks that are ahead or behind: order is that of the commits, times are data."""

import itertools
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import memstore
from memstore import ForgetPolicy
from memstore.repository.commit_times import Row, Span, Timeline
from tests.support.clock import Clock, clock
from tests.support.sql import execute

YEAR, DAY, MINUTE = timedelta(days=365), timedelta(days=1), timedelta(minutes=1)


@pytest.fixture
def moved_clock() -> Iterator[Clock]:
    with clock() as replacement:
        yield replacement


async def contents(store: memstore.Store, at: datetime | None) -> list[str]:
    return [memory.content async for memory in store.memories.list(as_of=at, order="id")]


@pytest.mark.parametrize("wrong", [10 * YEAR, -10 * YEAR, -56 * YEAR, timedelta(hours=1), -timedelta(hours=1)], ids=str)
@pytest.mark.parametrize("position", ["first", "middle", "last"])
async def test_one_write_under_a_wrong_clock_makes_no_read_of_another_time_wrong(
    path: Path, moved_clock: Clock, wrong: timedelta, position: str
) -> None:
    async with memstore.open(path, dimension=2, history="full") as store:
        states: list[tuple[datetime, list[str]]] = []
        for number in range(7):
            if number == {"first": 0, "middle": 3, "last": 6}[position]:
                with moved_clock.moved(wrong):
                    await store.memories.add(f"odd {number}", id="odd")
            else:
                await store.memories.upsert(f"even {number}", id=f"m{number % 2}")
            moved_clock.offset += 10 * MINUTE
            states.append((moved_clock.now(), await contents(store, None)))
            moved_clock.offset += 10 * MINUTE
        assert await contents(store, moved_clock.now()) == await contents(store, None)
        for index, (at, expected) in enumerate(states):
            if position == "last" and index == 5:
                expected = [text for text in expected if not text.startswith("odd")]
            listed = await contents(store, at)
            if abs(wrong) > DAY or position == "middle":
                assert [text for text in listed if text.startswith("even")] == [
                    text for text in expected if text.startswith("even")
                ], (index, listed)
        changes = await store.memories.history("m0")
        assert [change.number for change in changes] == sorted((change.number for change in changes), reverse=True)
    async with memstore.open(path, read_only=True) as store:
        assert await contents(store, moved_clock.now()) == await contents(store, None)


async def test_the_wall_time_of_a_change_is_kept_as_it_was(path: Path, moved_clock: Clock) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add("x", id="a")
        with moved_clock.moved(10 * YEAR):
            await store.memories.update("a", importance=0.1)
        await store.memories.update("a", importance=0.2)
        last, ahead, first = await store.memories.history("a")
        assert ahead.at - first.at > 9 * YEAR
        assert abs(last.at - first.at) < MINUTE
        for change, importance in ((last, 0.2), (first, 0.5)):
            assert (await store.memories.get("a", as_of=change.at)).importance == importance


@pytest.mark.parametrize("keep", [timedelta(days=30), timedelta(seconds=60)], ids=str)
async def test_a_write_under_a_clock_that_is_ahead_neither_deletes_history_nor_stops_its_retention(
    path: Path, moved_clock: Clock, keep: timedelta
) -> None:
    async with memstore.open(path, dimension=2, history=keep) as store:
        await store.memories.add("x", id="a")
        await store.memories.update("a", importance=0.1)
        with moved_clock.moved(10 * YEAR):
            await store.memories.update("a", importance=0.2)
        await store.memories.update("a", importance=0.3)
        assert len(await store.memories.history("a")) == 4
        moved_clock.offset += 2 * keep
        for importance in (0.4, 0.5, 0.6):
            await store.memories.update("a", importance=importance)
        assert [change.new["importance"] for change in await store.memories.history("a")] == [0.6, 0.5, 0.4]
        assert (await store.memories.get("a", as_of=moved_clock.now())).importance == 0.6


async def test_a_write_under_a_clock_that_is_behind_neither_deletes_history_nor_stops_its_retention(
    path: Path, moved_clock: Clock
) -> None:
    async with memstore.open(path, dimension=2, history=DAY) as store:
        await store.memories.add("x", id="a")
        before = moved_clock.now()
        moved_clock.offset += 10 * MINUTE
        with moved_clock.moved(-20 * YEAR):
            await store.memories.update("a", importance=0.1)
            assert (await store.memories.get("a", as_of=moved_clock.now())).importance == 0.1
        await store.memories.update("a", importance=0.2)
        assert len(await store.memories.history("a")) == 3
        assert (await store.memories.get("a", as_of=before)).importance == 0.5
        moved_clock.offset += 2 * DAY
        for importance in (0.3, 0.4):
            await store.memories.update("a", importance=importance)
        assert [change.new["importance"] for change in await store.memories.history("a")] == [0.4, 0.3]


async def test_a_file_that_was_created_under_a_clock_that_was_ahead_is_readable_as_of_now(
    path: Path, moved_clock: Clock
) -> None:
    with moved_clock.moved(10 * YEAR):
        async with memstore.open(path, dimension=2) as store:
            await store.memories.add("x", id="a")
    async with memstore.open(path) as store:
        assert (await store.memories.get("a", as_of=moved_clock.now())).content == "x"
        await store.memories.update("a", importance=0.1)
        assert (await store.memories.get("a", as_of=moved_clock.now())).importance == 0.1


async def test_small_steps_back_are_no_breaks(path: Path, moved_clock: Clock) -> None:
    async with memstore.open(path, dimension=2) as store:
        for number in range(20):
            moved_clock.offset = -timedelta(milliseconds=20 * number)
            await store.memories.add("x", id=str(number))
        (options,) = execute(path, "SELECT history_options FROM store_meta")[0]
        assert '"breaks":[]' in options
        times = [at for (at,) in execute(path, "SELECT at FROM journal ORDER BY pk")]
        assert times == sorted(times)


async def test_the_trash_is_purged_by_age_though_the_clock_was_ahead_when_it_was_filled(
    path: Path, moved_clock: Clock
) -> None:
    async def forget(id: str) -> None:
        await store.memories.add("x", id=id)
        await store.memories.forget(await store.memories.plan_forget(ForgetPolicy(where={"id": id})))

    async with memstore.open(path, dimension=2) as store:
        with moved_clock.moved(10 * YEAR):
            await forget("ahead")
        await forget("right")
        with moved_clock.moved(-10 * YEAR):
            await forget("behind")
        assert await store.memories.purge(older_than=DAY) == 0
        moved_clock.offset += 3 * DAY
        await forget("later")
        assert await store.memories.purge(older_than=2 * DAY) == 3
        assert [entry.record.id async for entry in store.memories.trash()] == ["later"]


async def test_one_write_under_a_clock_that_is_ahead_deletes_no_memory_with_a_time_to_live(
    path: Path, moved_clock: Clock
) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add("x", id="a", ttl=DAY, embedding=[1, 0])
        await store.assemblies.add("g", members=["a"])
        with moved_clock.moved(10 * YEAR):
            assert await store.memories.count() == 0  # by that clock, its time is over
            await store.memories.add("y", id="b")
        assert (await store.memories.get("a")).content == "x"
        assert [hit.memory.id for hit in await store.memories.search([1, 0])] == ["a"]
        assert (await store.assemblies.get("g")).member_count == 1
        moved_clock.offset += 10 * YEAR
        await store.memories.add("new", id="a")  # the id is free, though the row is still there
        await store.memories.add("z")
        assert (await store.memories.get("a")).content == "new"
        assert await store.check() == []


async def test_an_activation_under_a_clock_that_was_ahead_decays(path: Path, moved_clock: Clock) -> None:
    async with memstore.open(path, dimension=2, activation_half_life=3_600) as store:
        await store.assemblies.add("g")
        with moved_clock.moved(10 * YEAR):
            await store.assemblies.activate(["g"])
        assert (await store.assemblies.get("g")).activation < 1e-6
        await store.assemblies.activate(["g"])
        assert (await store.assemblies.get("g")).activation > 0.9


async def test_an_access_under_a_clock_that_was_ahead_is_corrected_by_the_next(path: Path, moved_clock: Clock) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add("x", id="a")
        for years in (10, -10, 0):
            with moved_clock.moved(years * YEAR):
                await store.memories.touch(["a"])
        memory = await store.memories.get("a")
        assert memory.access_count == 3
        assert memory.accessed_at is not None
        assert abs(memory.accessed_at - moved_clock.now()) < MINUTE
        policy = ForgetPolicy(unused_for=DAY)
        assert len(await store.memories.plan_forget(policy)) == 0


async def test_merges_are_undone_in_the_order_in_which_they_were_made(path: Path, moved_clock: Clock) -> None:
    async with memstore.open(path, dimension=2) as store:
        for id in "abc":
            await store.assemblies.add(id)
        with moved_clock.moved(10 * YEAR):
            first = await store.assemblies.merge(["a", "b"], into="a")
        second = await store.assemblies.merge(["a", "c"], into="a")
        with pytest.raises(memstore.ConflictError, match="came later"):
            await store.assemblies.unmerge(first.id)
        assert (await store.assemblies.unmerge("a")).id == second.id
        assert (await store.assemblies.unmerge("a")).id == first.id


# --- the search for a time --------------------------------------------------------------------------------------------


def first_after(times: Sequence[int], at: int, present: int) -> int:
    """`Timeline.first_after` of rows that are numbered from 10 in steps of 2."""
    rows = [Row(10 + 2 * i, time) for i, time in enumerate(times)]
    breaks = [row.number for before, row in itertools.pairwise(rows) if row.time < before.time]
    return Timeline(
        lambda number: next((row for row in rows if row.number >= number), None),
        lambda number: next((row for row in reversed(rows) if row.number <= number), None),
        present,
    ).first_after(at, Span(rows[0].number, rows[-1].number), breaks)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30).map(sorted), st.integers(-1, 51))
@settings(deadline=None)
def test_without_breaks_a_time_is_found_as_by_a_scan(times: list[int], at: int) -> None:
    number = first_after(times, at, 100)
    assert [10 + 2 * i < number for i in range(len(times))] == [time <= at for time in times]


@given(
    st.lists(st.integers(1_000, 1_050), min_size=4, max_size=30).map(sorted),
    st.integers(1, 28),
    st.integers(1, 3),
    st.sampled_from([-900, 900]),
    st.integers(999, 1_051),
)
@settings(deadline=None)
def test_rows_of_a_wrong_clock_do_not_move_the_others(
    times: list[int], first: int, count: int, offset: int, at: int
) -> None:
    wrong = range(first, first + count)
    number = first_after([time + offset * (i in wrong) for i, time in enumerate(times)], at, 1_060)
    for i, time in enumerate(times):
        if i not in wrong:
            assert (10 + 2 * i < number) == (time <= at)
