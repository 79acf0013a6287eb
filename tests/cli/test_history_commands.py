"""The commands on the history of a record."""

import asyncio
import json
from pathlib import Path

import memstore
from tests.cli.test_cli import fails, lines, ok


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
    output = ok("history", "ada", "-f", path)
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
    deleted, updated, added = lines("history", "ada", "-f", path, "--json")
    assert (deleted["kind"], deleted["old"]["content"], deleted["new"]) == ("deleted", "Ada drinks coffee", {})
    assert updated["old"]["embedding"] == [1.0, 0.0]
    assert (added["actor"], added["reason"]) == ("ada", "she said so")
    assert len(lines("history", "ada", "-f", path, "--json", "--limit", "1")) == 1
    (of_group, _) = lines("history", "drinks", "--assembly", "-f", path, "--json")
    assert of_group["members_removed"] == ["ada"]
    assert "removed: ada" in ok("history", "drinks", "-a", "-f", path)

    (undone,) = lines("undo", str(deleted["number"]), "ada", "-f", path, "--json", "--actor", "bob", "--reason", "slip")
    assert (undone["kind"], undone["undoes"], undone["actor"], undone["reason"]) == (
        "restored",
        deleted["number"],
        "bob",
        "slip",
    )
    assert f"undoes {updated['number']}" in ok("undo", str(updated["number"]), "ada", "-f", path)
    assert json.loads(ok("show", "ada", "-f", path, "--json"))["content"] == "Ada drinks tea"

    assert "cannot be undone" in fails("undo", updated["number"], "ada", "-f", path)
    assert "has no change 99" in fails("undo", 99, "ada", "-f", path)
    assert "There is no memory 'nobody'" in fails("history", "nobody", "-f", path)
