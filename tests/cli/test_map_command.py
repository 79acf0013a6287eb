"""The command `memstore map`."""

import asyncio
import json
from pathlib import Path

import memstore
from tests.cli.commands import invoke


def test_map_writes_the_page_and_reports_its_contents(tmp_path: Path) -> None:
    file = tmp_path / "agent.db"

    async def fill_store() -> None:
        async with memstore.open(file, dimension=3) as store:
            await store.memories.add_many(
                [{"id": f"m{i}", "content": f"number {i}", "embedding": [1, i, i % 2]} for i in range(5)]
            )
            await store.memories.add("no vector")
            await store.assemblies.add("g", members=["m1"])

    asyncio.run(fill_store())
    sample = invoke(file, "map", tmp_path / "map.html", "--limit", "2")
    assert sample.exit_code == 0, sample.output
    assert "2 memories and 1 assembly" in sample.stdout
    assert "1 memory without a vector" in sample.stdout
    assert "a sample of 6" in sample.stdout
    report = invoke(file, "map", tmp_path / "map.html", "--json")
    assert json.loads(report.stdout).keys() == {
        "memories",
        "points",
        "without_embedding",
        "assemblies",
        "variance",
        "size",
    }
    overwrite = invoke(file, "map", file)
    assert overwrite.exit_code == 1
    assert "is not replaced" in overwrite.stderr
