"""The store works inside other programs and with hostile files."""

import asyncio
import copy
import gzip
import json
import multiprocessing
import os
import pickle
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memstore
from memstore import Store, models
from memstore.importers import import_folder
from memstore.testing import temporary_store
from tests.support.children import Child, Link
from tests.support.host_programs import errors, records
from tests.support.programs import run_python

# Pickle and copy.

COPIES: list[Callable[[Any], Any]] = [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))]


@pytest.mark.parametrize("duplicate", COPIES, ids=["copy", "deepcopy", "pickle"])
async def test_a_copied_record_equals_the_record_and_its_vectors_stay_read_only(
    store: Store, duplicate: Callable[[Any], Any]
) -> None:
    for record in await records(store):
        twin = duplicate(record)
        assert twin == record
        assert repr(twin) == repr(record)
        for vector in (getattr(twin, "embedding", None), *getattr(twin, "new", {}).values()):
            if isinstance(vector, np.ndarray):
                with pytest.raises(ValueError, match="read-only"):
                    vector[0] = 1


def test_every_record_that_verbs_return_has_the_methods_of_a_record() -> None:
    classes = [value for name in models.__all__ if isinstance(value := getattr(models, name), type)]
    records = [kind for kind in classes if not issubclass(kind, dict)]  # items are dicts of callers
    assert len(records) > 30
    assert [
        kind for kind in records if not hasattr(kind, "to_dict") or not hasattr(kind, "__get_pydantic_core_schema__")
    ] == []


@pytest.mark.parametrize("duplicate", COPIES, ids=["copy", "deepcopy", "pickle"])
@pytest.mark.parametrize("error", errors(), ids=lambda error: type(error).__name__)
def test_a_copied_error_has_the_message_the_attributes_and_the_notes(
    error: memstore.MemstoreError, duplicate: Callable[[Any], Any]
) -> None:
    error.add_note("a note")
    twin = duplicate(error)
    assert type(twin) is type(error)
    assert (str(twin), twin.args, vars(twin)) == (str(error), error.args, vars(error))


def missing_memory(path: Path) -> None:
    async def main() -> None:
        async with memstore.open(path) as store:
            await store.memories.get("missing")

    asyncio.run(main())


async def test_an_error_in_a_process_of_a_pool_reaches_the_parent(path: Path) -> None:
    async with memstore.open(path, dimension=2):
        pass
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        result = pool.apply_async(missing_memory, (path,))
        with pytest.raises(memstore.NotFoundError, match="no memory 'missing'"):
            await asyncio.to_thread(result.get, 120)


async def test_a_store_cannot_be_pickled_and_the_error_says_what_to_pass(store: Store) -> None:
    for handle in (store, store.memories, store.assemblies, store.tags, store.namespace("a")):
        with pytest.raises(TypeError, match="pass the path, and open the store in the other process"):
            pickle.dumps(handle)


# FastAPI, Alembic, SQLAlchemy, pydantic, pandas, torch, type checkers.


@pytest.mark.parametrize("kind", ["plain", "asynchronous"])
def test_a_dependency_with_yield_records_its_actor_in_the_request(path: Path, kind: str) -> None:
    fastapi = pytest.importorskip("fastapi")
    testclient = pytest.importorskip("fastapi.testclient", exc_type=ImportError)

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        async with memstore.open(path, dimension=2) as store:
            app.state.store = store
            yield

    def plain() -> Iterator[None]:
        with memstore.as_actor("ada"):
            yield

    async def asynchronous() -> AsyncIterator[None]:
        with memstore.as_actor("ada"):
            yield

    app = fastapi.FastAPI(lifespan=lifespan)

    @app.get("/", dependencies=[fastapi.Depends({"plain": plain, "asynchronous": asynchronous}[kind])])
    async def add() -> str | None:
        memory = await app.state.store.memories.add("x", embedding=[1, 0])
        return (await app.state.store.memories.history(memory.id))[0].actor

    @app.get("/without")
    async def add_without() -> str | None:
        memory = await app.state.store.memories.add("x", embedding=[1, 0])
        return (await app.state.store.memories.history(memory.id))[0].actor

    with testclient.TestClient(app) as client:
        assert client.get("/").json() == "ada"
        assert client.get("/without").json() is None


@pytest.fixture
def old_path(tmp_path: Path) -> Path:
    """A file of an older release."""
    path = tmp_path / "old.db"
    path.write_bytes(gzip.decompress((Path(__file__).parents[1] / "database" / "stores" / "0001.db.gz").read_bytes()))
    return path


def test_listeners_on_the_classes_of_sqlalchemy_do_not_apply_to_a_store(path: Path, old_path: Path) -> None:
    result = run_python("-m", "tests.support.host_listeners", path, old_path)
    assert result.stdout.split("\n") == ["['new']", "True []", "True", ""], result.stderr


async def test_an_adapter_that_would_change_what_is_stored_is_refused(store: Store, tmp_path: Path) -> None:
    await store.memories.add(" spaces ", id="x")
    sqlite3.register_adapter(str, str.strip)
    try:
        with pytest.raises(memstore.UsageError, match="adapter of sqlite3 for str"):
            await store.memories.add(" more ")
        with pytest.raises(memstore.UsageError, match="adapter of sqlite3 for str"):
            await memstore.open(tmp_path / "other.db", dimension=2)
    finally:
        del sqlite3.adapters[str, sqlite3.PrepareProtocol]
    assert [memory.content async for memory in store.memories.list()] == [" spaces "]


def test_a_host_may_migrate_by_alembic_in_another_thread(tmp_path: Path, path: Path, old_path: Path) -> None:
    result = run_python("-m", "tests.support.host_migration", tmp_path / "host", path, old_path)
    tables = "['host_0', 'host_1', 'host_2', 'host_3', 'host_4']"
    assert result.stdout.split("\n") == ["[] True", tables, ""], result.stderr


async def test_a_block_that_ends_in_another_context_raises_nothing() -> None:
    async def dependency() -> AsyncIterator[None]:
        with memstore.as_actor("ada"):
            yield

    iterator = dependency()
    await asyncio.create_task(anext(iterator))
    assert await asyncio.create_task(anext(iterator, "the end")) == "the end"


async def test_a_record_is_json_by_one_method(store: Store) -> None:
    for record in await records(store):
        json.dumps(record.to_dict(), allow_nan=False)
    memory = await store.memories.add("x", id="j", embedding=range(1, 9), tags={"b", "a"}, metadata={"a": [1]})
    fields = memory.to_dict()
    assert (fields["id"], fields["embedding"], fields["tags"]) == ("j", [1, 2, 3, 4, 5, 6, 7, 8], ["a", "b"])
    assert fields["created_at"] == memory.created_at.isoformat()


@pytest.mark.parametrize("config", [{}, {"arbitrary_types_allowed": True}], ids=["strict", "arbitrary"])
async def test_a_pydantic_model_holds_records(store: Store, config: dict[str, bool]) -> None:
    pydantic = pytest.importorskip("pydantic")
    for record in await records(store):
        model = pydantic.create_model("Model", __config__=config or None, field=(type(record), ...))
        instance = model(field=record)
        assert instance.field is record
        assert json.loads(instance.model_dump_json()) == {"field": json.loads(json.dumps(record.to_dict()))}
        assert model.model_json_schema(mode="serialization")["properties"]["field"]["type"] == "object"
        with pytest.raises(pydantic.ValidationError):
            model(field="not a record")


class Tensor:
    """A tensor as torch has it: no sequence, and NumPy reads it only where it is a plain one on the CPU."""

    def __init__(self, values: object, problem: str = "") -> None:
        self.values, self.problem = np.asarray(values, dtype=np.float32), problem

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        if self.problem:
            raise TypeError(self.problem)
        return self.values

    def __len__(self) -> int:
        return len(self.values)

    def detach(self) -> "Tensor":
        return Tensor(self.values)


async def test_a_tensor_is_a_vector_and_another_one_says_what_to_call(store: Store) -> None:
    assert (await store.memories.add("x", embedding=Tensor(range(8)))).embedding.tolist() == list(range(8))
    for problem in ("Can't call numpy() on Tensor that requires grad", "can't convert cuda:0 device", "BFloat16"):
        with pytest.raises(memstore.EmbeddingError, match=r"tensor\.detach\(\)\.cpu\(\)\.float\(\)\.numpy\(\)"):
            await store.memories.add("x", embedding=Tensor(range(8), problem))
    for shape in ((1, 8), (8, 1), (1, 1, 8)):
        with pytest.raises(memstore.DimensionError, match=r"pass one row of it: x\[0\]"):
            await store.memories.search(Tensor(np.ones(shape)))
    with pytest.raises(memstore.DimensionError, match="pass a vector, not one number"):
        await store.memories.search_many(np.ones(8))


async def test_a_series_is_a_vector_and_a_frame_says_what_to_pass(store: Store) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame([range(8), range(1, 9)], columns=[*"abcdefgh"])
    memory = await store.memories.add("x", embedding=frame.iloc[1])
    assert memory.embedding.tolist() == list(range(1, 9))
    assert (await store.memories.search(pandas.Series(range(1, 9))))[0].memory == memory
    assert len(await store.memories.search_many(frame.to_numpy() + 1)) == 2
    await store.memories.add_many(pandas.DataFrame({"content": ["a", "b"], "id": ["a", "b"]}).to_dict("records"))
    assert list(await store.memories.get_many(pandas.Series(["b", "a"]))) == ["b", "a"]
    with pytest.raises(memstore.DimensionError, match=r"frame\.iloc\[0\]"):
        await store.memories.search(frame)
    with pytest.raises(memstore.InvalidError, match=r"frame\.to_numpy\(\) for vectors"):
        await store.memories.search_many(frame)
    with pytest.raises(memstore.InvalidError, match=r"frame\.to_dict\('records'\) for items"):
        await store.memories.add_many(frame)


TYPED_PROGRAM = Path(__file__).parents[1] / "support" / "typed_program.py"


@pytest.mark.slow  # the check of the types of the whole project has the program too
def test_mypy_strict_accepts_a_program(tmp_path: Path) -> None:
    result = run_python("-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}", TYPED_PROGRAM)
    assert result.returncode == 0, result.stdout


def test_pyright_accepts_a_program() -> None:
    pytest.importorskip("pyright")
    result = run_python("-m", "pyright", TYPED_PROGRAM, PYRIGHT_PYTHON_IGNORE_WARNINGS="1")
    assert result.returncode == 0, result.stdout


# Folders that cannot be written.


@pytest.mark.parametrize("unwritable", ["folder", "file"])
async def test_a_store_that_cannot_be_written_is_read_and_the_error_says_how(
    public_path: Path, unwritable: str
) -> None:
    async with memstore.open(public_path, dimension=2) as store:
        await store.memories.add("a", id="a", embedding=[1, 0])
    public_path.chmod(0o444 if unwritable == "file" else 0o666)
    public_path.parent.chmod(0o555 if unwritable == "folder" else 0o777)
    with Child(use_without_permission, public_path) as child:
        result = child.receive()
    assert result["read"] == ["a"]
    assert result["verify"] == []
    assert "Open it with read_only=True" in result["open"]
    assert [file.name for file in public_path.parent.iterdir()] == [public_path.name]


async def test_reading_and_verifying_leave_no_file_behind(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add("a", embedding=[1, 0])
    content = path.read_bytes()
    async with memstore.open(path, read_only=True) as store:
        assert await store.memories.count() == 1
    assert (await memstore.verify(path)).findings == []
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == content


@pytest.fixture
def public_path() -> Iterator[Path]:
    """The path of a new store in a folder that every user can reach."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder / "store.db"
    folder.chmod(0o755)
    shutil.rmtree(folder)


async def use_without_permission(link: Link, path: Path) -> dict[str, Any]:
    """Read, verify and open the store for writing, as a user who is not root."""
    if os.geteuid() == 0:
        async with temporary_store() as store:  # loads what is loaded late, perhaps from files of root
            await store.memories.count()
        os.setgroups([])
        os.setgid(65_534)
        os.setuid(65_534)
    async with memstore.open(path, read_only=True) as store:
        read = [memory.id async for memory in store.memories.list()]
    findings = (await memstore.verify(path)).findings
    try:
        await memstore.open(path)
    except memstore.StorageError as error:
        return {"read": read, "verify": findings, "open": str(error)}
    raise AssertionError("the store was opened for writing")


# Hostile files. `tests/database/test_statement_limits.py` and `tests/reliability/test_fuzz_files.py` have more.


async def test_a_write_beside_an_endless_trigger_ends_and_the_store_goes_on(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add_many({"content": "x", "id": f"m{i}", "embedding": [1, i]} for i in range(100))
    with sqlite3.connect(path) as base:
        base.execute(
            "CREATE TRIGGER endless AFTER UPDATE ON store_meta WHEN (SELECT count(*) FROM change_log a, change_log b, "
            "change_log c, change_log d, change_log e) < 0 BEGIN SELECT 1; END"
        )
    base.close()
    async with memstore.open(path) as store:
        with pytest.raises(memstore.StorageError, match="more processor time than a file of this size can need"):
            await store.memories.add("x", id="new")
        assert await store.memories.count() == 100


async def test_a_constraint_that_is_not_ours_is_refused_before_it_runs(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        await store.memories.add("x")
    with sqlite3.connect(path) as base:
        base.execute("PRAGMA writable_schema=ON")
        base.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'importance BETWEEN 0 AND 1', "
            "'length(hex(zeroblob(490000000 + pk))) > 0') WHERE name = 'memory'"
        )
    base.close()
    for call in (memstore.open(path), memstore.open(path, read_only=True)):
        with pytest.raises(memstore.DamagedError, match="another definition of the table memory"):
            await call
    assert "another definition" in (await memstore.verify(path)).findings[0].detail


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX files")
async def test_the_import_of_a_folder_reads_regular_files_of_that_folder_only(tmp_path: Path) -> None:
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    (folder / "memories").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret.json").write_text('{"id": "s", "content": "outside the folder"}')
    (folder / "memories" / "good.json").write_text('{"id": "g", "content": "inside"}')
    (folder / "memories" / "link.json").symlink_to(outside / "secret.json")
    (folder / "memories" / "zero.json").symlink_to("/dev/zero")
    os.mkfifo(folder / "memories" / "pipe.json")
    os.mkfifo(folder / "memory_index.json")
    (folder / "assemblies").symlink_to(outside, target_is_directory=True)
    async with memstore.open(tmp_path / "store.db", dimension=2) as store:
        report = await import_folder(store, folder)
        assert [memory.content async for memory in store.memories.list()] == ["inside"]
    assert {remark.place for remark in report.left_out} == {
        "memory_index.json",
        "assemblies",
        "memories/link.json",
        "memories/zero.json",
        "memories/pipe.json",
    }
