"""FAISS beside other OpenMP runtimes; `python -m tests.reliability.openmp` tries more."""

import sys
from functools import lru_cache
from pathlib import Path

import pytest

import memstore
from memstore import EngineError
from memstore.index import engine_selector
from memstore.index import openmp as runtimes
from memstore.index.faiss_engine import FaissEngine
from tests.reliability import openmp
from tests.support.index_options import with_index


@lru_cache
def alone(other: str, folder: Path) -> openmp.EndOfProcess:
    return openmp.run(other, "the other alone", sys.executable, folder / "alone.db")


@pytest.mark.parametrize("order", [order for order in openmp.ORDERS if order != "the other alone"])
@pytest.mark.parametrize("other", openmp.OTHERS)
def test_faiss_stands_beside_other_runtimes_in_every_order(
    other: str, order: str, path: Path, tmp_path_factory
) -> None:
    without = alone(other, tmp_path_factory.getbasetemp())
    if without.how != "well":
        pytest.skip(
            f"{other}: {without.how} by itself ({without.message or 'python -m tests.reliability.openmp tries all'})"
        )
    ended = openmp.run(other, order, sys.executable, path)
    assert ended.how == "well", ended
    assert ended.runtimes != [] or sys.platform != "linux"


@pytest.fixture
def llvm(monkeypatch):
    """A platform whose FAISS carries an LLVM runtime, before it is loaded; the libraries in the process can be set."""
    there: list[str] = ["/usr/lib/libSystem.dylib"]
    monkeypatch.setattr(runtimes, "faiss_bundles_libomp", lambda: True)
    monkeypatch.setattr(engine_selector, "faiss_bundles_libomp", lambda: True)
    monkeypatch.setattr(runtimes, "_loaded", lambda: there)
    monkeypatch.delitem(sys.modules, "faiss", raising=False)
    return there


async def hits(path, **options):
    async with memstore.open(path, dimension=2, **with_index(options)) as store:
        await store.memories.upsert_many(
            [{"content": "x", "id": str(i), "embedding": [1, i]} for i in range(engine_selector.FAISS_FROM + 1)]
        )
        return await store.memories.search([1, 0], limit=1), (await store.stats()).engine_reason


@pytest.mark.parametrize("index", ["exact", "graph"])
async def test_where_faiss_carries_an_llvm_runtime_it_is_not_loaded_unasked(path, llvm, monkeypatch, index) -> None:
    monkeypatch.setattr(FaissEngine, "load", lambda: pytest.fail("it was loaded"))
    result, why = await hits(path, index=index)
    assert (result.plan.engine, result[0].memory.id) == ("numpy", "0")
    assert "engine='faiss'" in why


async def test_asked_for_it_is_loaded_where_no_other_is(path, llvm, monkeypatch) -> None:
    llvm.append("/opt/libgomp.1.dylib")
    assert runtimes.faiss_conflict() is None
    monkeypatch.undo()  # FAISS is not one to be imported a second time
    monkeypatch.setattr(engine_selector, "faiss_bundles_libomp", lambda: True)
    result, _ = await hits(path, engine="faiss")
    assert (result.plan.engine, result[0].memory.id) == ("faiss", "0")


@pytest.mark.parametrize("other", ["/opt/torch/lib/libomp.dylib", "C:\\x\\libiomp5md.dll", "/opt/libiomp5.dylib"])
async def test_beside_another_llvm_runtime_it_is_refused_with_what_to_do(path, llvm, other) -> None:
    llvm.append(other.replace("\\", "/"))
    with pytest.raises(EngineError, match="Error #15") as caught:
        await hits(path, engine="faiss")
    assert "engine='numpy'" in str(caught.value)
    assert llvm[-1] in str(caught.value)
    result, _ = await hits(path, engine="numpy")
    assert result[0].memory.id == "0"


def test_a_runtime_is_told_by_the_name_of_its_file() -> None:
    vendors = {
        "/a/libgomp-e985bcbb.so.1.0.0": "GNU",
        "/a/libomp.dylib": "LLVM",
        "/a/libiomp5.so": "Intel",
        "/a/vcomp140.dll": "Microsoft",
    }
    assert {path: runtimes.describe_runtime(path) for path in vendors} == {p: f"{m}'s, {p}" for p, m in vendors.items()}
    others = ["/a/libomptarget.so", "/a/libcomp.so", "/omp/libm.so", "/a/libgomp-1/x.so"]
    assert [path for path in [*vendors, *others] if runtimes._OPENMP.match(path.rsplit("/", 1)[1])] == [*vendors]
