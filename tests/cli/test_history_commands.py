"""The commands on the history of a record."""

import asyncio
import json
from pathlib import Path

import memstore
from tests.cli.commands import fails, lines, ok


async def _filled(path: Path) -> None:
    async with memstore.open(path, dimension=2) as store:
        with memstore.as_actor("ada", reason="she said so"):
            await store.memories.add("Ada drinks tea", id="ada", embedding=[1.0, 0.0], tags={"taste"})
            await store.assemblies.add("drinks", name="Drinks", members=["ada"])
        await store.memories.update("ada", content="Ada drinks coffee", embedding=[0.0, 1.0], tags={"taste", "new"})
        await store.memories.delete("ada")


def test_changes_are_listed_and_undone_by_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    asyncio.run(_filled(path))
    output = ok(path, "history ada")
    for part in (
        "deleted",
        "updated",
        "added",
        "Ada drinks tea → Ada",
        "embedding: dimension 2, with",
        "tags: taste → new, taste",
        "she said so",
        "3 changes",
    ):
        assert part in output, output
    deleted, updated, added = lines(path, "history ada --json")
    assert (deleted["kind"], deleted["old"]["content"], deleted["new"]) == ("deleted", "Ada drinks coffee", {})
    assert updated["old"]["embedding"] == [1.0, 0.0]
    assert (added["actor"], added["reason"]) == ("ada", "she said so")
    assert len(lines(path, "history ada --json --limit 1")) == 1
    (of_group, _) = lines(path, "history drinks --assembly --json")
    assert of_group["members_removed"] == ["ada"]
    assert "removed: ada" in ok(path, "history drinks -a")

    (undone,) = lines(path, "undo", str(deleted["number"]), "ada", "--json", "--actor", "bob", "--reason", "slip")
    assert (undone["kind"], undone["undoes"], undone["actor"], undone["reason"]) == (
        "restored",
        deleted["number"],
        "bob",
        "slip",
    )
    assert f"undoes {updated['number']}" in ok(path, "undo", str(updated["number"]), "ada")
    assert json.loads(ok(path, "show ada --json"))["content"] == "Ada drinks tea"

    assert "cannot be undone" in fails(path, "undo", updated["number"], "ada")
    assert "has no change 99" in fails(path, "undo 99 ada")
    assert "There is no memory 'nobody'" in fails(path, "history nobody")


def test_history_keep_sets_how_long_changes_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    asyncio.run(_filled(path))
    assert ok(path, "history --keep 30d") == f"{path} keeps changes for 30d\n"
    assert lines(path, "history --keep 1d12h --json") == [{"keep": 36 * 3600.0}]
    assert len(lines(path, "history ada --json")) == 3
    assert "keeps all changes" in ok(path, "history --keep full")
    assert "keeps no history" in ok(path, "history --keep off")
    assert lines(path, "list --json") == []
    message = fails(path, "history --keep 30", code=2)
    assert "'30' has no unit" in message
    assert "h hours, d days" in message
    assert "full for ever" in message
    assert "No store" in fails(tmp_path / "absent.db", "history --keep 1d")
    assert not (tmp_path / "absent.db").exists()
