"""The commands of the trash: forget, trash, recover, purge."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import memstore
from tests.cli.commands import fails, lines, ok, script


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
    ok(path, "add 'my name' --id name --upsert --pin --embedding null")
    return path


def test_a_memory_is_pinned_and_unpinned(kitchen: Path) -> None:
    assert "pinned" in ok(kitchen, "show name")
    assert "pinned" in ok(kitchen, "list")
    ok(kitchen, "add 'my name is Eve' --id name --upsert --embedding null")
    assert [m["id"] for m in lines(kitchen, "list --where", '{"pinned": true}', "--json")] == ["name"]
    ok(kitchen, "add 'my name is Eve' --id name --upsert --no-pin --embedding null")
    assert lines(kitchen, "list --where", '{"pinned": true}', "--json") == []
    assert "pinned" not in ok(kitchen, "show name")


def test_forget_without_apply_lists_the_plan_and_changes_nothing(kitchen: Path) -> None:
    output = ok(kitchen, "forget --older-than 30d --importance-below 0.5")
    assert "the kettle is on\\x1b[2J" in output
    assert "older than, importance below" in output
    assert "would move 1 memory (28 B) to the trash, 3 remain\nnothing was changed; pass --apply" in output
    assert "--apply" in output
    assert ok(kitchen, "forget --older-than 5w").count("older than") == 2
    assert "nothing to forget, 4 remain" in ok(kitchen, "forget --unused-for 101d")
    assert "2 memories (54 B) to the trash (1 listed), 2 remain" in ok(kitchen, "forget --older-than 2400h -l 1")
    assert "3 memories" in ok(kitchen, "forget --older-than 30d --recursive")
    assert "1 memory" in ok(kitchen, "forget --older-than 30d -n n")
    assert "2 memories" in ok(kitchen, "forget --max-count 2")
    result = lines(kitchen, "forget --importance-below .15 --expires-within 1s --any --json")
    assert result == [
        {"id": "kettle", "namespace": [], "reasons": ["importance_below"], "bytes": 28},
        {"applied": False, "forgotten": 1, "bytes": 28, "remaining": 3},
    ]
    assert len(lines(kitchen, "list --recursive --json")) == 5
    assert ok(kitchen, "trash") == "the trash is empty\n"


def test_forgotten_memories_are_in_the_trash_and_can_be_recovered(kitchen: Path) -> None:
    before = lines(kitchen, "show tea --json")
    args = ("--older-than", "30d", "--actor", "ada", "--reason", "sp\x1bring")
    assert "moved 2 memories to the trash, 2 remain" in ok(kitchen, "forget", *args, "--apply")
    assert "green tea" not in ok(kitchen, "list")
    output = ok(kitchen, "trash")
    assert "green tea" in output
    assert "sp\\x1bring" in output
    assert "ada" in output
    entries = lines(kitchen, "trash --json")
    assert [entry["record"]["id"] for entry in entries] == ["tea", "kettle"]
    assert entries[0]["actor"] == "ada"
    assert len(lines(kitchen, "trash --json -l 1")) == 1
    assert "trash  " in ok(kitchen, "stats")
    assert "There is no memory 'nope' in the trash" in fails(kitchen, "recover tea nope")
    assert ok(kitchen, "recover tea") == "recovered 1 memory\n"
    assert lines(kitchen, "show tea --json") == before
    assert lines(kitchen, "recover kettle --json")[0]["id"] == "kettle"
    assert ok(kitchen, "check") == "clean\n"


def test_purge_deletes_the_trash(kitchen: Path) -> None:
    assert lines(kitchen, "forget --older-than 30d --apply --json")[-1]["applied"] is True
    assert ok(kitchen, "purge --older-than 1h") == "purged 0 memories\n"
    assert lines(kitchen, "purge --older-than 0d --json") == [{"purged": 2}]
    assert ok(kitchen, "trash") == "the trash is empty\n"


def test_assemblies_are_forgotten_recovered_and_purged(kitchen: Path) -> None:
    forget = ("forget --assemblies",)
    assert "1 assembly (" in ok(kitchen, *forget, "--members-below", "1")
    assert "The kitchen" in ok(kitchen, *forget, "--where", '{"id": "a"}')
    assert "2 assemblies" in ok(kitchen, *forget, "--activated-fewer-than", "1")
    assert lines(kitchen, *forget, "--members-below", "1", "--inactive-for", "30d", "--json")[0]["reasons"] == [
        "inactive_for",
        "members_below",
    ]
    assert "moved 1 assembly to the trash, 1 remain" in ok(kitchen, *forget, "--older-than", "30d", "--apply")
    assert "empty" in ok(kitchen, "trash --assemblies")
    assert ok(kitchen, "recover empty --assemblies") == "recovered 1 assembly\n"
    assert json.loads(ok(kitchen, "assemblies show empty --json"))["id"] == "empty"


def test_invalid_policies_and_durations_are_refused(kitchen: Path) -> None:
    assert "at least one criterion" in fails(kitchen, "forget", code=2)
    units = "s seconds, m minutes, h hours, d days, w weeks"
    for invalid, reason in {
        "30": "has no unit",
        "d": "is not a duration",
        "-1d": "is not a duration",
        "1y": "is not a duration",
        "9" * 400 + "w": "is too long",
    }.items():
        message = fails(kitchen, "forget", "--older-than=" + invalid, code=2)
        assert reason in message
        assert (units in message) is (reason != "is too long")
    assert "nothing to forget" in ok(kitchen, "forget --older-than 1w99d12h30m5s")
    fails(kitchen, "purge", code=2)
    assert "No store" in fails(str(kitchen) + ".none", "forget --older-than 1d")
    assert "No store" in fails(str(kitchen) + ".none", "forget --older-than 1d --apply")
