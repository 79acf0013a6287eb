"""The API does what a caller expects."""

import asyncio
import sqlite3
import subprocess
import traceback
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest

import memstore
from memstore import DuplicateError, InvalidError, ReadOnlyError, Store
from memstore.testing import HashEmbedder
from tests.support.host_programs import records
from tests.support.programs import run_python

VECTOR = [1.0, 0, 0, 0, 0, 0, 0, 0]

# Representation and errors.


async def test_the_repr_of_every_record_is_one_line_with_the_size_of_its_vector(store: Store) -> None:
    for record in await records(store):
        assert "\n" not in repr(record)
        assert "array(" not in repr(record)
    assert "embedding=<8 float32>" in repr((await records(store))[0])


async def test_the_repr_of_a_handle_names_the_file_and_the_namespace(store: Store, path: Path) -> None:
    space = store.namespace("user", "ada")
    assert repr(store) == f"<memstore.Store {str(path)!r}>"
    assert repr(space.memories) == f"<memstore.Memories {str(path)!r} namespace=('user', 'ada')>"
    async with space.transaction() as tx:
        assert repr(tx) == f"<memstore.Transaction {str(path)!r} namespace=('user', 'ada')>"


async def test_a_store_that_was_not_awaited_says_so(path: Path) -> None:
    opening = memstore.open(path, dimension=2)
    with pytest.raises(AttributeError, match=r"open was not awaited: use `async with memstore\.open"):
        opening.memories  # noqa: B018
    with pytest.raises(TypeError, match=r"opened by `async with`, not by `with`"), opening:
        pass
    assert "not awaited" in repr(opening)
    with pytest.warns(RuntimeWarning, match=r"memstore\.open was not awaited"):
        del opening
    assert not path.exists()


async def test_an_error_of_a_batch_names_the_item_by_index_and_id(store: Store) -> None:
    items = [{"content": "x", "id": "a"}, {"content": "x", "id": "b", "importance": 2}]
    message = r"Item 1 \(id 'b'\), counted from 0: Invalid importance"
    for write in (store.memories.add_many, store.memories.upsert_many):
        with pytest.raises(memstore.InvalidError, match=message) as caught:
            await write(items)
        assert caught.value.item == 1
    await store.memories.add("x", id="taken")
    existing = [{"content": "x", "id": "new"}, {"content": "x", "id": "taken"}]
    twice = [{"content": "x", "id": "a"}, {"content": "x", "id": "a"}]
    for write, wrong in [
        (store.memories.add_many, existing),
        (store.memories.add_many, twice),
        (store.assemblies.add_many, [{"id": "a"}, {"id": "a"}]),
        (store.assemblies.add_many, [{"id": "a"}, {"id": "b", "members": ["missing"]}]),
        (store.assemblies.upsert_many, [{"id": "a"}, {"id": "b", "members": ["missing"]}]),
        (store.assemblies.add_many, [{"id": "a"}, {"id": "b", "name": 1}]),
        (store.load, [{"content": "x", "embedding": [1]}]),
    ]:
        with pytest.raises(memstore.MemstoreError, match=rf"Item {len(wrong) - 1}[ ,].*counted from 0: "):
            await write(wrong)
    assert await store.assemblies.count() == 0


async def test_the_traceback_of_an_error_is_short(store: Store) -> None:
    await store.memories.add("x", id="a")
    for call in (
        lambda: store.memories.add("x", id="a"),
        lambda: store.memories.get("missing"),
        lambda: store.memories.add("x", embedding=[1]),
        lambda: store.memories.search([1]),
        lambda: store.memories.count(where={"metadata.a": {"$and": [{"b": {"$gt": 1}}]}}),
        lambda: store.assemblies.add("group", members=["missing"]),
    ):
        with pytest.raises(memstore.MemstoreError) as caught:
            await call()
        assert len(traceback.extract_tb(caught.value.__traceback__)) <= 8
        assert "Traceback" not in "".join(traceback.format_exception(caught.value)).removeprefix("Traceback")


# Paging and projection.


async def test_a_page_continues_where_the_one_before_ended_whatever_is_written(store: Store) -> None:
    await store.memories.add_many([{"id": str(i), "content": "x"} for i in range(6)])
    first = await store.memories.page(limit=3)
    await store.memories.delete_many(ids=["0", "2"])
    await store.memories.add("new", id="early", created_at=datetime(2000, 1, 1, tzinfo=UTC))
    second = await store.memories.page(limit=3, after=first.next)
    assert [[m.id for m in page.items] for page in (first, second)] == [["0", "1", "2"], ["3", "4", "5"]]
    assert second.next is None


async def test_a_cursor_of_another_order_query_or_store_is_refused(store: Store, path: Path) -> None:
    await store.memories.add_many([{"id": str(i), "content": "x"} for i in range(3)])
    cursor = (await store.memories.page(limit=1)).next
    with pytest.raises(InvalidError, match="order"):
        await store.memories.page(after=cursor, order="-id")
    with pytest.raises(InvalidError, match="where"):
        await store.memories.page(after=cursor, where={"id": "0"})
    async with memstore.open(f"{path}.other", dimension=8) as other:
        with pytest.raises(InvalidError, match="another store"):
            await other.memories.page(after=cursor)


async def test_an_offset_skips_the_first_records_and_hits(store: Store) -> None:
    await store.memories.add_many([{"id": str(i), "content": "x", "embedding": [1, i, *[0] * 6]} for i in range(9)])
    assert [m.id async for m in store.memories.list(offset=5, limit=2)] == ["5", "6"]
    assert [hit.memory.id for hit in await store.memories.search(VECTOR, 2, offset=3)] == ["3", "4"]


async def test_reads_leave_vectors_out_on_demand(store: Store) -> None:
    memory = await store.memories.add("x", id="a", embedding=VECTOR)
    assert (await store.memories.get("a", embeddings=False)).embedding is None
    assert [hit.memory.embedding for hit in await store.memories.search(VECTOR, embeddings=False)] == [None]
    assert await store.memories.get("a") == memory


async def test_the_vectors_of_many_records_are_one_matrix(store: Store) -> None:
    await store.memories.add_many([{"id": str(i), "content": "x", "embedding": [1, i, *[0] * 6]} for i in range(5)])
    await store.memories.add("no vector")
    vectors = await store.memories.vectors(where={"id": {"$in": ["2", "3", "4"]}})
    assert vectors.ids == ["2", "3", "4"]
    assert vectors.matrix.tolist() == [[1, i, *[0] * 6] for i in (2, 3, 4)]
    assert vectors.matrix.dtype == "float32"


# Batch verbs.


async def test_update_many_gives_many_records_the_same_values(store: memstore.Store) -> None:
    await store.memories.add_many([{"id": str(i), "content": "x", "importance": i / 10} for i in range(10)])
    assert await store.memories.update_many(where={"importance": {"$gte": 0.7}}, tags={"important"}) == 3
    assert await store.memories.update_many(ids=["0", "none"], pinned=True) == 1
    assert [m.id async for m in store.memories.list(tags=["important"])] == ["7", "8", "9"]
    assert [m.id async for m in store.memories.list(where={"pinned": True})] == ["0"]


async def test_a_metadata_patch_changes_a_part_of_the_metadata(store: memstore.Store) -> None:
    await store.memories.add("x", id="a", metadata={"user": {"name": "Ada", "age": 35}, "source": "chat"})
    updated = await store.memories.update("a", metadata_patch={"user": {"age": 36}, "source": None})
    assert updated.metadata == {"user": {"name": "Ada", "age": 36}}


@pytest.mark.parametrize(
    ("on_duplicate", "content", "outcome"), [("skip", "old", "skipped"), ("replace", "new", "replaced")]
)
async def test_an_existing_id_is_skipped_or_replaced_and_the_result_says_which(
    store: memstore.Store, on_duplicate: Literal["skip", "replace"], content: str, outcome: str
) -> None:
    await store.memories.add("old", id="a")
    with pytest.raises(DuplicateError):
        await store.memories.add("new", id="a")
    items = [{"content": "new", "id": "a"}, {"content": "other", "id": "b"}]
    results = await store.memories.add_many(items, on_duplicate=on_duplicate)
    assert [(r.record.content, r.outcome) for r in results] == [(content, outcome), ("other", "added")]


async def test_touch_with_an_expiry_is_no_change(store: memstore.Store) -> None:
    memory = await store.memories.add("x", id="a", ttl=60)
    await store.memories.touch(["a"], expires_at=datetime(2100, 1, 1, tzinfo=UTC))
    touched = await store.memories.get("a")
    assert (touched.updated_at, touched.expires_at) == (memory.updated_at, datetime(2100, 1, 1, tzinfo=UTC))
    assert [change.kind for change in await store.memories.history("a")] == ["added"]


async def test_purge_expired_deletes_and_counts_what_has_expired(store: Store) -> None:
    await store.memories.add_many([{"content": "x", "ttl": 0.001} for _ in range(3)])
    await asyncio.sleep(0.01)
    assert await store.memories.purge_expired() == 3
    assert await store.memories.purge_expired() == 0


async def test_namespaces_are_listed_by_a_pattern(store: Store) -> None:
    spaces = [("users", user, kind) for user in ("ada", "bob") for kind in ("chats", "facts")]
    await store.memories.add_many([{"content": "x", "namespace": space} for space in spaces])
    assert await store.namespaces(("users", "*", "facts"), limit=1, offset=1) == [("users", "bob", "facts")]
    assert await store.namespaces(suffix=("chats",)) == [("users", "ada", "chats"), ("users", "bob", "chats")]
    assert await store.namespaces(depth=2) == [("users", "ada"), ("users", "bob")]


async def test_a_snapshot_reads_one_state_and_holds_up_no_writer(store: Store) -> None:
    await store.memories.add("old", id="a", embedding=VECTOR)
    async with store.snapshot() as view:
        await store.memories.upsert("new", id="a", embedding=[0, *VECTOR[:-1]])
        await store.memories.add("other", embedding=VECTOR)
        assert [m.content async for m in view.memories.list()] == ["old"]
        assert [(hit.memory.content, hit.score) for hit in await view.memories.search(VECTOR)] == [("old", 1.0)]
        with pytest.raises(ReadOnlyError):
            await view.memories.add("x")
    assert len(await store.memories.search(VECTOR)) == 2


async def test_items_of_many_namespaces_are_one_transaction(store: memstore.Store) -> None:
    items = [{"content": f"{i}", "id": "own", "namespace": ("user", f"{i}"), "embedding": VECTOR} for i in range(50)]
    with pytest.raises(InvalidError):
        await store.memories.add_many([*items, {"content": "x", "importance": 2}])
    assert await store.namespaces() == []
    await store.memories.add_many(items)
    records = await store.memories.get_many([(("user", f"{i}"), "own") for i in range(50)])
    assert [memory.content for memory in records.values()] == [f"{i}" for i in range(50)]
    with pytest.raises(InvalidError):
        await store.namespace("user", "1").memories.get_many([(("user", "2"), "own")])


# A store without a dimension.


async def test_the_first_vector_fixes_the_dimension(path: Path) -> None:
    async with memstore.open(path) as store:
        assert store.dimension is None
        await store.memories.add("without a vector")
        await store.memories.add("first", embedding=[1, 2, 3])
        assert store.dimension == 3
        with pytest.raises(memstore.DimensionError, match="expected 3, found 2"):
            await store.memories.add("second", embedding=[1, 2])
    async with memstore.open(path) as store:
        assert store.dimension == 3
        assert len(await store.memories.search([1, 2, 3])) == 1
    with pytest.raises(memstore.SettingsMismatchError, match="dimension 3"):
        await memstore.open(path, dimension=4)


async def test_everything_but_a_vector_works_before_the_dimension_is_known(path: Path, tmp_path: Path) -> None:
    async with memstore.open(path, metric="l2") as store:
        await store.memories.add("text", id="x")
        await store.assemblies.add("group", members=["x"])
        assert await store.memories.search([1, 2]) == []
        assert await store.memories.search_many([[1, 2], [3, 4]]) == [[], []]
        assert await store.memories.search([1, 2], boost=memstore.AssemblyBoost()) == []
        assert await store.assemblies.search([1, 2]) == []
        assert await store.assemblies.merge_candidates(0.5) == []
        assert (await store.assemblies.suggest(0.5)).groups == ()
        assert (await store.memories.explain([1, 2], "x")).exclusions[0].cause == "no_embedding"
        assert await store.memories.count() == 1
        assert (await store.stats()).dimension is None
        await store.optimize()
        await store.compact()
        assert (await store.repair()).remaining == []
        await store.backup(tmp_path / "backup.db")
    assert (await memstore.verify(tmp_path / "backup.db")).dimension is None
    await memstore.restore_backup(tmp_path / "backup.db", tmp_path / "restored.db")
    async with memstore.open(tmp_path / "restored.db", read_only=True) as store:
        assert (store.dimension, store.metric) == (None, "l2")


async def test_a_transaction_that_is_rolled_back_fixes_nothing(path: Path) -> None:
    async with memstore.open(path) as store:
        with pytest.raises(KeyError):
            async with store.transaction() as tx:
                await tx.memories.add("three", id="x", embedding=[1, 2, 3])
                assert [hit.memory.id for hit in await tx.memories.search([1, 2, 3])] == ["x"]
                assert (await tx.memories.get("x")).embedding.tolist() == [1, 2, 3]
                assert (await tx.assemblies.add("a", members=["x"])).composite.size == 3
                with pytest.raises(memstore.DimensionError):
                    await tx.memories.add("two", embedding=[1, 2])
                raise KeyError
        assert store.dimension is None
        with pytest.raises(memstore.DimensionError, match=r"Item 1, counted from 0.*expected 3, found 2"):
            await store.memories.add_many(
                [{"content": "x", "embedding": [1, 2, 3]}, {"content": "y", "embedding": [1, 2]}]
            )
        await store.memories.add("two", embedding=[1, 2])
        assert store.dimension == 2
        assert await store.check() == []


async def test_of_vectors_that_are_written_at_once_the_first_fixes_the_dimension(path: Path) -> None:
    async with memstore.open(path) as store:
        results = await asyncio.gather(
            *(store.memories.add("x", embedding=[1.0] * (2 + i % 2)) for i in range(10)), return_exceptions=True
        )
        assert store.dimension == 2
        assert [isinstance(result, memstore.DimensionError) for result in results] == [False, True] * 5
        assert len(await store.memories.search([1, 1])) == 5
        assert await store.check() == []


async def test_a_vector_of_another_process_fixes_the_dimension_here_too(path: Path) -> None:
    async with memstore.open(path) as store, memstore.open(path) as other:
        await store.memories.add("member", id="m")
        await store.assemblies.add("group", members=["m"])
        assert await other.memories.search([1, 2]) == []  # its index is loaded, and empty
        await store.memories.update("m", embedding=[1, 2, 3])
        with pytest.raises(memstore.DimensionError, match="expected 3, found 2"):
            await other.memories.add("two", embedding=[1, 2])
        assert len(await other.memories.search([1, 2, 3])) == 1
        assert len(await other.assemblies.search([1, 2, 3])) == 1
        assert other.dimension == 3
        assert await other.check() == []


async def test_a_file_with_vectors_whose_dimension_is_lost_is_damaged_and_not_empty(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add("x", embedding=[1, 2])
    with closing(sqlite3.connect(path)) as base, base:
        base.execute("UPDATE vector_space SET dimension = 65537")
    async with memstore.open(path) as store:
        with pytest.raises(memstore.DamagedError, match=r"vector_space\.dimension"):
            await store.memories.search([1, 2])
        assert "wrong_dimension" in {finding.kind for finding in await store.check()}


async def test_an_embedder_may_state_its_dimension_or_show_it_by_its_first_vector(path: Path, tmp_path: Path) -> None:
    class Silent:
        name = "silent"

        def embed(self, texts: list[str]) -> list[list[float]]:
            return [[1.0, 2.0, float(len(text))] for text in texts]

    async with memstore.open(path, embedder=Silent()) as store:
        assert await store.memories.search("tea") == []
        await store.memories.add("tea")
        assert store.dimension == 3
    async with memstore.open(tmp_path / "stated.db", embedder=HashEmbedder(16)) as store:
        assert store.dimension == 16
        with pytest.raises(memstore.DimensionError, match="expected 16, found 2"):
            await store.memories.add("x", embedding=[1, 2])


# Command line.


def command(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return run_python("-m", "memstore", *arguments, **environment)


def test_the_store_is_the_first_argument_of_a_command_or_named_by_the_option_or_the_variable(path: Path) -> None:
    command("add", path, "Ada drinks tea", "--id", "ada", "--embedding", "[1, 2]")
    expected = "Ada drinks tea"
    assert expected in command("list", path).stdout
    assert expected in command("list", "--file", path).stdout
    assert expected in command("list", MEMSTORE_FILE=str(path)).stdout
    assert command("tags", "list", path).stdout == "0 tags\n"


def test_commands_update_pin_keep_history_and_erase(path: Path) -> None:
    command("add", path, "Ada drinks tea", "--id", "ada", "--embedding", "[1, 2]")
    assert command("update", path, "ada", "--importance", "0.9").stdout == "updated ada\n"
    assert command("pin", path, "ada").stdout == "pinned 1 memory\n"
    assert command("history", path, "--keep", "30d").returncode == 0
    refused = command("erase", path, "ada")
    assert refused.returncode == 1
    assert "--yes" in refused.stderr
    assert command("erase", path, "ada", "--yes").returncode == 0
    assert "There is no memory 'ada'" in command("history", path, "ada").stderr


@pytest.mark.parametrize("option", [("add", "x", "--ttl"), ("purge", "--older-than"), ("history", "--keep")], ids=str)
def test_durations_have_units_and_an_error_names_them(path: Path, option: tuple[str, ...]) -> None:
    name, *others = option
    error = command(name, path, *others, "30").stderr
    for unit in ("s seconds", "m minutes", "h hours", "d days", "w weeks"):
        assert unit in error


def test_a_message_of_a_command_has_the_words_of_the_command_line(path: Path) -> None:
    command("add", path, "Ada drinks tea", "--id", "ada", "--embedding", "[1, 2]", "--namespace", "users/ada")
    missing = command("show", path, "nobody", "--namespace", "users/ada")
    assert missing.stderr == "memstore: error: There is no memory 'nobody' in namespace users/ada.\n"
    changed = command("update", path, "ada", "--text", "coffee", "--namespace", "users/ada", "--embedder", "none")
    assert "--embedding" in changed.stderr
    assert "embedding=" not in changed.stderr


def test_help_loads_neither_numpy_nor_sqlalchemy_and_import_memstore_nothing(path: Path) -> None:
    for code in (
        "import memstore",
        "import sys; sys.argv = ['memstore', '--help']; from memstore.cli.main import run; run()",
    ):
        program = f"import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); {code}"
        modules = set(run_python("-c", program).stderr.split())
        assert "memstore" in modules
        assert {"numpy", "sqlalchemy", "memstore.api"}.isdisjoint(modules)


def test_every_public_name_is_there_after_import_memstore() -> None:
    program = """
import memstore
assert set(memstore.__all__) <= set(dir(memstore))
assert all(getattr(memstore, name) is not None for name in memstore.__all__)
assert memstore.models.Finding and memstore.errors.MemstoreError is memstore.MemstoreError
try:
    memstore.absent
except AttributeError as error:
    print(error)
"""
    assert run_python("-c", program).stdout == "module 'memstore' has no attribute 'absent'\n"


def test_shells_get_completion_scripts(path: Path) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "merge-candidates" in command("completion", shell).stdout
