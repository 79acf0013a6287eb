"""The commands of the trash: forget, trash, recover, purge."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import memstore
from tests.cli.test_cli import fails, lines, ok, script


@pytest.fixture
def kitchen(path: Path) -> Path:
    old = datetime.now(UTC) - timedelta(days=100)

    async def fill(store: memstore.Store) -> None:
        await store.memories.add_many(
            [
                {
                    "id": "kettle",
                    "content": "the kettle is on\x1b[2J",
                    "importance": 0.1,
                    "created_at": old,
                    "tags": {"x"},
                },
                {"id": "tea", "content": "green tea", "importance": 0.9, "created_at": old, "embedding": [1, 2, 3]},
                {"id": "name", "content": "my name", "importance": 0.0, "created_at": old},
                {"id": "new", "content": "news", "importance": 0.2},
            ]
        )
        await store.assemblies.add("a", name="The kitchen", members=["kettle", "tea"])
        await store.assemblies.add("empty", created_at=old)
        await store.namespace("n").memories.add("below", id="b", created_at=old)

    script(fill, path, dimension=3)
    ok("add", "my name", "--id", "name", "--upsert", "--pin", "--embedding", "null", "-f", path)
    return path


def test_a_memory_is_pinned_and_unpinned(kitchen: Path) -> None:
    assert "pinned" in ok("show", "name", "-f", kitchen)
    assert "pinned" in ok("list", "-f", kitchen)
    ok("add", "my name is Eve", "--id", "name", "--upsert", "--embedding", "null", "-f", kitchen)
    assert [m["id"] for m in lines("list", "--where", '{"pinned": true}', "--json", "-f", kitchen)] == ["name"]
    ok("add", "my name is Eve", "--id", "name", "--upsert", "--no-pin", "--embedding", "null", "-f", kitchen)
    assert lines("list", "--where", '{"pinned": true}', "--json", "-f", kitchen) == []
    assert "pinned" not in ok("show", "name", "-f", kitchen)


def test_forget_without_apply_lists_the_plan_and_changes_nothing(kitchen: Path) -> None:
    output = ok("forget", "--older-than", "30d", "--importance-below", "0.5", "-f", kitchen)
    assert "the kettle is on\\x1b[2J" in output
    assert "older_than, importance_below" in output
    assert "would move 1 memory (28 B) to the trash, 3 remain\nnothing was changed; pass --apply" in output
    assert "--apply" in output
    assert ok("forget", "--older-than", "5w", "-f", kitchen).count("older_than") == 2
    assert "nothing to forget, 4 remain" in ok("forget", "--unused-for", "101d", "-f", kitchen)
    assert "2 memories (54 B) to the trash (1 listed), 2 remain" in ok(
        "forget", "--older-than", "2400h", "-l", 1, "-f", kitchen
    )
    assert "3 memories" in ok("forget", "--older-than", "30d", "--recursive", "-f", kitchen)
    assert "1 memory" in ok("forget", "--older-than", "30d", "-n", "n", "-f", kitchen)
    assert "2 memories" in ok("forget", "--max-count", "2", "-f", kitchen)
    result = lines("forget", "--importance-below", ".15", "--expires-within", "1s", "--any", "--json", "-f", kitchen)
    assert result == [
        {"id": "kettle", "namespace": [], "reasons": ["importance_below"], "bytes": 28},
        {"applied": False, "forgotten": 1, "bytes": 28, "remaining": 3},
    ]
    assert len(lines("list", "--recursive", "--json", "-f", kitchen)) == 5
    assert ok("trash", "-f", kitchen) == "the trash is empty\n"


def test_forgotten_memories_are_in_the_trash_and_can_be_recovered(kitchen: Path) -> None:
    before = lines("show", "tea", "--json", "-f", kitchen)
    args = ("--older-than", "30d", "--actor", "ada", "--reason", "sp\x1bring")
    assert "moved 2 memories to the trash, 2 remain" in ok("forget", *args, "--apply", "-f", kitchen)
    assert "green tea" not in ok("list", "-f", kitchen)
    output = ok("trash", "-f", kitchen)
    assert "green tea" in output
    assert "sp\\x1bring" in output
    assert "ada" in output
    entries = lines("trash", "--json", "-f", kitchen)
    assert [each["record"]["id"] for each in entries] == ["tea", "kettle"]
    assert entries[0]["actor"] == "ada"
    assert len(lines("trash", "--json", "-l", 1, "-f", kitchen)) == 1
    assert "trash  " in ok("stats", "-f", kitchen)
    assert "There is no memory 'nope' in the trash" in fails("recover", "tea", "nope", "-f", kitchen)
    assert ok("recover", "tea", "-f", kitchen) == "recovered 1 memory\n"
    assert lines("show", "tea", "--json", "-f", kitchen) == before
    assert lines("recover", "kettle", "--json", "-f", kitchen)[0]["id"] == "kettle"
    assert ok("check", "-f", kitchen) == "clean\n"


def test_purge_deletes_the_trash(kitchen: Path) -> None:
    assert lines("forget", "--older-than", "30d", "--apply", "--json", "-f", kitchen)[-1]["applied"] is True
    assert ok("purge", "--older-than", "1h", "-f", kitchen) == "purged 0 memories\n"
    assert lines("purge", "--older-than", "0d", "--json", "-f", kitchen) == [{"purged": 2}]
    assert ok("trash", "-f", kitchen) == "the trash is empty\n"


def test_assemblies_are_forgotten_recovered_and_purged(kitchen: Path) -> None:
    forget = ("forget", "--assemblies", "-f", kitchen)
    assert "1 assembly (" in ok(*forget, "--members-below", "1")
    assert "The kitchen" in ok(*forget, "--where", '{"id": "a"}')
    assert "2 assemblies" in ok(*forget, "--activated-fewer-than", "1")
    assert lines(*forget, "--members-below", "1", "--inactive-for", "30d", "--json")[0]["reasons"] == [
        "inactive_for",
        "members_below",
    ]
    assert "moved 1 assembly to the trash, 1 remain" in ok(*forget, "--older-than", "30d", "--apply")
    assert "empty" in ok("trash", "--assemblies", "-f", kitchen)
    assert ok("recover", "empty", "--assemblies", "-f", kitchen) == "recovered 1 assembly\n"
    assert json.loads(ok("assemblies", "show", "empty", "--json", "-f", kitchen))["id"] == "empty"


def test_invalid_policies_and_durations_are_refused(kitchen: Path) -> None:
    assert "no criterion" in fails("forget", "-f", kitchen)
    for wrong in ("30", "d", "-1d", "1y", "9" * 400 + "w"):
        assert "is not a duration" in fails("forget", "--older-than=" + wrong, "-f", kitchen, code=2)
    fails("purge", "-f", kitchen, code=2)
    assert "No store" in fails("forget", "--older-than", "1d", "-f", str(kitchen) + ".none")
    assert "No store" in fails("forget", "--older-than", "1d", "--apply", "-f", str(kitchen) + ".none")
