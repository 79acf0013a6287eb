"""The WordLlama embedder: its package's own weights, loaded late, nothing around it changed."""

import importlib.util
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import memstore
from memstore.embedders import wordllama
from memstore.embedders.wordllama import NAME, WordLlamaEmbedder
from memstore.testing import HashEmbedder

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def embedder():
    return WordLlamaEmbedder()


def test_its_name_says_the_model_and_the_dimension(embedder):
    assert embedder.name == NAME == "wordllama-l2-supercat-256"
    assert embedder.dimension == 256
    assert isinstance(embedder, memstore.Embedder)


def test_texts_become_float32_rows_in_order_the_same_alone_and_together(embedder):
    texts = ["green tea", "a cup of coffee, please", "SQLite commits"]
    rows = embedder.embed(texts)
    assert rows.dtype == np.float32
    assert rows.shape == (3, 256)
    alone = np.concatenate([embedder.embed([text]) for text in texts])
    np.testing.assert_allclose(rows, alone, rtol=1e-5, atol=1e-6)  # padding changes the last bits of a sum


def test_a_batch_of_nothing_is_an_empty_array(embedder):
    assert embedder.embed([]).shape == (0, 256)


def test_near_texts_are_nearer_than_far_ones(embedder):
    rows = embedder.embed(["the cat sat on the mat", "a kitten lay on a rug", "interest rates rose again"])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert rows[0] @ rows[1] > rows[0] @ rows[2] + 0.2


def test_a_text_without_a_token_has_no_vector(embedder):
    rows = embedder.embed(["", "tea"])
    assert np.isnan(rows[0]).all()
    assert np.isfinite(rows[1]).all()
    assert np.isnan(embedder.embed([""])).all()


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "l2"])
async def test_the_store_refuses_an_empty_text_under_every_metric_and_stores_nothing(path, metric):
    async with memstore.open(path, embedder=WordLlamaEmbedder(), metric=metric) as store:
        with pytest.raises(memstore.EmbedderError, match=r"Item 1 \(id 'b'\).*256.*embedding=None"):
            await store.memories.add_many([{"content": "tea"}, {"content": "", "id": "b"}])
        with pytest.raises(memstore.EmbedderError):
            await store.memories.search("")
        assert await store.memories.count() == 0
        added = await store.memories.add("", embedding=None)
        assert added.embedding is None


async def test_a_store_finds_what_was_meant_and_remembers_the_name(path):
    async with memstore.open(path, embedder=WordLlamaEmbedder()) as store:
        await store.memories.add_many([{"content": "Ada drinks green tea"}, {"content": "the train leaves at noon"}])
        hits = await store.memories.search("what does she like to drink?")
        assert hits[0].memory.content == "Ada drinks green tea"
        assert (await store.stats()).embedder == NAME
        assert await store.check() == []
    with pytest.raises(memstore.SettingsMismatchError):
        async with memstore.open(path, embedder=HashEmbedder(256)):
            pass


FRESH = """
import json, logging, os, sys
before = dict(os.environ)
from memstore.embedders.wordllama import WordLlamaEmbedder
embedder = WordLlamaEmbedder()
lazy = "wordllama" not in sys.modules
root = logging.getLogger()
kept = (list(root.handlers), root.level)
import socket
def refuse(*args, **kwargs): raise AssertionError("no network")
socket.socket.connect = socket.getaddrinfo = refuse
embedder.embed(["tea"])
from memstore.index.openmp import openmp_runtimes
print(json.dumps({
    "lazy": lazy,
    "environment kept": dict(os.environ) == before,
    "logging kept": (list(root.handlers), root.level) == kept,
    "heavy": sorted({"torch", "sklearn", "faiss", "transformers"} & set(sys.modules)),
    "openmp": openmp_runtimes(),
}))
"""


def test_it_loads_late_and_touches_neither_network_environment_nor_root_logger(tmp_path):
    # HOME is empty, so that no cache of an earlier download can serve.
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT), "HOME": str(tmp_path), "USERPROFILE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", FRESH], env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "lazy": True,
        "environment kept": True,
        "logging kept": True,
        "heavy": [],
        "openmp": [],
    }
    assert os.listdir(tmp_path) == []


def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(memstore.EmbedderError, match=r"pip install 'memstore\[wordllama\]'"):
        WordLlamaEmbedder()


def test_missing_weights_say_so_and_nothing_is_downloaded(monkeypatch):
    monkeypatch.setattr(wordllama, "CONFIG", "l3_supercat")  # a configuration whose weights are not in the package
    with pytest.raises(memstore.EmbedderError, match="install it again"):
        WordLlamaEmbedder().embed(["tea"])


def test_a_handler_of_the_host_stays_where_it_was():
    root, host_handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(host_handler)
    try:
        with wordllama._unchanged_logging():
            root.addHandler(logging.StreamHandler())
            root.setLevel(logging.INFO)
        assert host_handler in root.handlers
        assert not any(type(handler) is logging.StreamHandler for handler in root.handlers)
    finally:
        root.removeHandler(host_handler)
