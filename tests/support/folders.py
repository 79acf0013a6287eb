"""Folders in the layout of the file-based store that `import-folder` reads: valid ones, and one with every fault."""

import json
from pathlib import Path
from typing import Any

DIMENSION = 4


def memory(id: str, **fields: Any) -> dict[str, Any]:
    """A memory in that layout."""
    record = {
        "id": id,
        "content": f"the text of {id}",
        "embedding": [0.5, 0.25, -1.0, 0.125],
        "timestamp": 1_700_000_000.25,
        "quickrecal_score": 0.75,
        "quickrecal_updated": None,
        "metadata": {"source": "chat", "tags": ["one", "two"]},
        "access_count": 3,
        "last_access_time": 1_700_000_100.5,
        "hyperbolic_embedding": None,
    }
    return {**record, **fields}


def assembly(id: str, **fields: Any) -> dict[str, Any]:
    """An assembly in that layout."""
    record = {
        "assembly_id": id,
        "name": f"the name of {id}",
        "description": "",
        "creation_time": "2023-11-14T22:13:20+00:00",
        "last_access_time": "2023-11-15T00:00:00+00:00",
        "access_count": 7,
        "activation_count": 2,
        "last_activation": None,
        "memory_ids": [],
        "composite_embedding": [9.0, 9.0, 9.0, 9.0],
        "hyperbolic_embedding": None,
        "emotion_profile": {"joy": 0.5},
        "keywords": ["tea"],
        "activation_level": 0.25,
        "activation_decay_rate": 0.01,
        "vector_index_updated_at": None,
        "tags": ["group"],
        "topics": ["b", "a"],
        "is_active": True,
        "merged_from": ["asm:old"],
        "assembly_schema_version": "1.7",
    }
    return {**record, **fields}


def file_name(id: str) -> str:
    """The file name of a record."""
    return id.replace(":", "-") + ".json"


def write(
    path: Path,
    memories: list[dict[str, Any]] = [],  # noqa: B006 - only read
    assemblies: list[dict[str, Any]] = [],  # noqa: B006
    **index: dict[str, Any] | None,
) -> Path:
    """Write a folder of these records. *index* replaces entries of its index; None leaves an entry out."""
    entries: dict[str, Any] = {}
    for folder, key, type, records in (
        ("memories", "id", "memory", memories),
        ("assemblies", "assembly_id", "assembly", assemblies),
    ):
        (path / folder).mkdir(parents=True, exist_ok=True)
        for record in records:
            name = file_name(record[key])
            (path / folder / name).write_text(json.dumps(record), encoding="utf-8")
            entries[record[key]] = {"path": f"{folder}/{name}", "type": type, "timestamp": "2023-11-14T22:13:20"}
    index_entries = {id: entry for id, entry in {**entries, **index}.items() if entry is not None}
    (path / "memory_index.json").write_text(json.dumps(index_entries), encoding="utf-8")
    return path


def faulty(path: Path) -> Path:
    """Write a folder that contains each known fault once."""
    nan, infinity = float("nan"), float("inf")
    write(
        path,
        [
            memory("mem:1"),
            memory("unindexed"),
            memory("string-time", timestamp="1700000000.25", last_access_time="2023-11-14T22:13:20.5"),
            memory("no-time", timestamp="yesterday"),
            memory("unknown-key", favourite={"colour": "green"}, hyperbolic_embedding=[0.1, 0.2]),
            memory("nan", embedding=[nan, 1.0, 1.0, 1.0]),
            memory("wide", embedding=[1.0] * 5),
            memory("zero", embedding=[0.0] * 4),
            memory("beyond", quickrecal_score=1.5),
            memory("odd-tags", metadata={"tags": ["good", 7, ""]}),
            memory("odd-metadata", metadata={"score": nan, "limit": infinity, "imported": "mine", "big": 2**70}),
            memory("surrogate", content="half \ud83d of one"),
            memory("textless", content=None),
            memory("deep", metadata=nested(150)),
        ],
        [
            assembly("asm:1", memory_ids=["mem:1", "unindexed", "nobody"]),
            assembly(
                "asm:copies",
                memory_ids=None,
                memories=[memory("mem:1", content="as it once was"), memory("only-a-copy"), {"id": "broken"}, {"x": 1}],
            ),
            assembly("empty-asm", name=None, topics="one", creation_time=None, composite_embedding=[nan]),
        ],
        unindexed=None,
        gone={"path": "memories/gone.json", "type": "memory", "timestamp": 1.0},
        shared={"path": "/elsewhere/memories/mem-1.json", "type": "memory", "timestamp": 1.0},
        nothing=17,  # type: ignore[arg-type]
    )
    memories = path / "memories"
    (memories / "claims-the-same.json").write_text(json.dumps(memory("mem:1", content="another text")))
    (memories / "nameless.json").write_text(json.dumps({"content": "a text without an id"}))
    (memories / "broken.json").write_text('{"id": "broken", "content": ')
    (memories / "latin.json").write_bytes(b'{"id": "latin", "content": "caf\xe9"}')
    (memories / "empty.json").write_bytes(b"")
    (memories / "list.json").write_text("[1, 2]")
    (memories / "half.json.tmp").write_text("{")
    (memories / "folder.json").mkdir()
    (path / "assemblies" / "torn.json").write_text("{")
    (path / "faiss_index.bin").write_bytes(b"\0\1")
    (path / "id_to_index_mapping.json").write_text("{}")
    (path / "notes.txt").write_text("a note")
    return path


def nested(depth: int) -> dict[str, Any]:
    """*depth* nested objects."""
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"in": value}
    return value
