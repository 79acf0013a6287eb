"""The commands on merges and suggestions of assemblies."""

import pytest

from tests.cli.test_cli import fails, lines, ok, script


@pytest.fixture
def shelf(path):
    """Two assemblies near each other, one far away, and five memories in none."""

    async def fill(store):
        near = [[1, 0, 0.1 * i] for i in range(4)] + [[0, 1, 0]]
        await store.memories.add_many(
            {"id": f"m{i}", "content": f"text {i}", "embedding": e} for i, e in enumerate(near)
        )
        await store.assemblies.add("tea", name="Tea", members=["m0", "m1"])
        await store.assemblies.add("leaves", members=["m2", "m3"], tags={"green"})
        await store.assemblies.add("walks", members=["m4"])
        free = [[0, 0.1 * i, 1] for i in range(4)] + [[-1, 0, 0]]
        await store.memories.add_many(
            {"id": f"f{i}", "content": f"free {i}", "embedding": e} for i, e in enumerate(free)
        )
        await store.namespace("users").assemblies.add("tea")

    script(fill, path, dimension=3)
    return path


def test_assemblies_are_merged_and_unmerged_and_their_lineage_is_shown(shelf):
    output = ok(
        "assemblies", "merge", "tea", "leaves", "--into", "tea", "--actor", "ada", "--reason", "one", "-f", shelf
    )
    assert output.startswith("merge 1: merged 1 assembly into tea (lowest score between two: 0.9")
    assert [a["id"] for a in lines("assemblies", "list", "--json", "-f", shelf)] == ["tea", "walks"]
    output = ok("assemblies", "lineage", "tea", "-f", shelf)
    assert output.splitlines()[0] == "tea"
    assert "ancestor " in output
    assert "descendant" not in output
    assert "leaves (merged or deleted)" in output
    assert output.splitlines()[-1].endswith("   ada     one")
    assert ok("assemblies", "lineage", "leaves", "-f", shelf).startswith("leaves (merged or deleted)\ndescendant ")
    assert "no merges" in ok("assemblies", "lineage", "walks", "-f", shelf)
    (line,) = lines("assemblies", "lineage", "leaves", "--json", "-f", shelf)
    assert (line["id"], line["exists"], line["ancestors"]) == ("leaves", False, [])
    (entry,) = line["descendants"]
    assert (entry["id"], entry["depth"], entry["exists"]) == ("tea", 1, True)
    assert (entry["merge"]["sources"], entry["merge"]["actor"], entry["merge"]["reason"]) == (["leaves"], "ada", "one")
    assert ok("assemblies", "unmerge", "tea", "-f", shelf) == "undid merge 1: restored leaves from tea\n"
    assert [a["id"] for a in lines("assemblies", "list", "--json", "-f", shelf)] == ["tea", "leaves", "walks"]


def test_a_merge_by_its_number_in_a_namespace(shelf):
    async def more(store):
        await store.namespace("users").assemblies.add("coffee")

    script(more, shelf)
    (made,) = lines("assemblies", "merge", "tea", "coffee", "--name", "Both", "-n", "users", "--json", "-f", shelf)
    assert (made["id"], made["namespace"], made["similarity"]) == (1, ["users"], None)
    assert "There is no merge" in fails("assemblies", "unmerge", "--merge", "1", "-f", shelf)
    assert "Both" in ok("assemblies", "show", made["target"], "-n", "users", "-f", shelf)
    (undone,) = lines("assemblies", "unmerge", "--merge", "1", "-n", "users", "--json", "-f", shelf)
    assert undone["undone_at"] is not None
    assert "undone at" in fails("assemblies", "unmerge", "--merge", "1", "-n", "users", "-f", shelf)


def test_invalid_merges_are_errors_of_one_line(shelf):
    assert "'none'" in fails("assemblies", "merge", "tea", "none", "-f", shelf)
    assert "threshold" in fails("assemblies", "merge", "tea", "walks", "-s", "0.9", "-f", shelf)
    assert "'none'" in fails("assemblies", "lineage", "none", "-f", shelf)
    assert "no merge" in fails("assemblies", "unmerge", "tea", "-f", shelf)
    for senseless in ([], ["tea", "--merge", "1"]):
        assert "Pass either the id of an assembly or --merge" in fails(
            "assemblies", "unmerge", *senseless, "-f", shelf, code=2
        )


def test_candidates_are_pairs_best_first(shelf):
    output = ok("assemblies", "merge-candidates", "-s", "0.9", "-f", shelf)
    assert "tea" in output
    assert output.endswith("1 pair\n")
    (best,) = lines("assemblies", "merge-candidates", "-s", "-1", "-l", "1", "--json", "-f", shelf)
    assert (best["a"], best["b"]) == ("tea", "leaves")
    assert len(lines("assemblies", "merge-candidates", "-s", "-1", "--json", "-f", shelf)) == 3
    assert ok("assemblies", "merge-candidates", "-s", "1.1", "-f", shelf) == "0 pairs\n"


def test_suggestions_are_listed_and_created_only_with_create(shelf):
    output = ok("assemblies", "suggest", "-s", "0.8", "-f", shelf)
    assert "1 group; in no group: 1 without a neighbour" in output
    assert "free 1" in output
    assert "--create" in output
    group, unassigned = lines("assemblies", "suggest", "-s", "0.8", "--json", "-f", shelf)
    assert sorted(group["members"]) == ["f0", "f1", "f2", "f3"]
    assert unassigned == {"unassigned": {"f4": "no_neighbour"}}
    assert len(lines("assemblies", "list", "--json", "-f", shelf)) == 3
    assert (
        lines("assemblies", "suggest", "-s", "0.8", "--min-size", "5", "--json", "-f", shelf)[-1]["unassigned"]["f1"]
        == "too_few"
    )
    assert lines("assemblies", "suggest", "-s", "0.8", "-w", '{"id": {"$in": ["f0"]}}', "--json", "-f", shelf) == [
        {"unassigned": {"f0": "no_neighbour"}}
    ]
    made, _ = lines("assemblies", "suggest", "-s", "0.8", "--create", "--json", "-f", shelf)
    assert (len(made["assemblies"]), made["stale"]) == (1, 0)
    assert len(lines("assemblies", "list", "--json", "-f", shelf)) == 4
    assert "0 groups" in ok("assemblies", "suggest", "-s", "0.8", "--create", "-f", shelf)
