"""Stores for the tests of commands."""

import os
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from memstore.testing import HashEmbedder
from tests.cli.commands import ok, script

if os.name != "nt":
    pass


@pytest.fixture
def small(path):
    """A store without an embedder, dimension 3."""

    async def fill(store):
        await store.memories.add(
            "green tea", id="tea", embedding=[1, 0, 0], tags={"drink"}, metadata={"hot": True}, importance=0.9
        )
        await store.memories.add("iced coffee", id="coffee", embedding=[0, 1, 0], tags={"drink", "cold"})
        await store.memories.add("a long walk", id="walk", embedding=[0, 0, 1])
        await store.assemblies.add("drinks", name="Drinks", members=["tea", "coffee"], topics=["hot", "cold"])
        await store.namespace("users", "ada").memories.add("her own note", id="note", embedding=[1, 1, 0])

    script(fill, path, dimension=3)
    return path


@pytest.fixture
def texts(path):
    """A store whose file names WordLlama."""
    ok(path, "add 'Ada drinks green tea' --id tea -t drink")
    ok(path, "add 'The train leaves at noon' --id train")
    return path


@pytest.fixture
def hashed(path):
    script(lambda s: s.memories.add("green tea", id="tea"), path, embedder=HashEmbedder(8))
    return path


WHEN = datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=UTC)


def rich_items():
    tiny, third = np.float32(1e-45), np.float32(1) / np.float32(3)
    return [
        {
            "id": "../../x\n\u2028\x85 ü 😀",
            "content": 'lines\nand\r\n"quotes" \u2028 \x00 \\ 日本',
            "embedding": np.array([tiny, -0.0, third, np.float32(3.4028235e38) / 4], dtype=np.float32),
            "tags": {"b", "a", "ü\n"},
            "metadata": {"a.b": [1, 2.5, None, True, {"": "x"}], "big": 2**63 - 1, "f": 1e-300, "\n": "\t"},
            "importance": 1 / 3,
            "created_at": WHEN,
            "updated_at": WHEN + timedelta(microseconds=1),
            "expires_at": datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
            "accessed_at": datetime(1, 1, 1, tzinfo=UTC),
            "access_count": 7,
            "pinned": True,
        },
        {"id": "plain", "content": "", "embedding": None, "created_at": WHEN - timedelta(days=1)},
        {"id": "second", "content": "s", "embedding": [0.1, 0.2, 0.3, 1e-7]},
    ]


@pytest.fixture
def rich(path):
    """A store in which every field of every noun holds something hard."""

    async def fill(store):
        for place in (store, store.namespace("a/b", ""), store.namespace("a", "b")):
            await place.memories.add_many(rich_items())
            await place.assemblies.add_many(
                [
                    {
                        "id": "group",
                        "name": "Ü\n",
                        "description": "d\u2028",
                        "tags": {"x", "y"},
                        "topics": ["z", "a", "m"],
                        "metadata": {"k": [None]},
                        "created_at": WHEN,
                        "updated_at": WHEN + timedelta(seconds=1),
                        "members": ["second", "../../x\n\u2028\x85 ü 😀"],
                    },
                    {"id": "empty"},
                ]
            )
        await store.namespace("only").assemblies.add("alone")

    script(fill, path, dimension=4, metric="l2")
    return path
