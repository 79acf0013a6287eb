"""The commands on assemblies and tags."""

import pytest

from tests.cli.commands import fails, lines, ok, script


@pytest.fixture
def shelf(path):
    """Two assemblies near each other, one far away, and five memories in none."""

    async def fill(store):
        vectors = [[1, 0, 0.1 * i] for i in range(4)] + [[0, 1, 0]]
        await store.memories.add_many(
            {"id": f"m{i}", "content": f"text {i}", "embedding": e} for i, e in enumerate(vectors)
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
    output = ok(shelf, "assemblies merge tea leaves --into tea --actor ada --reason one")
    assert output.startswith("merge 1: merged 1 assembly into tea (lowest score between two: 0.9")
    assert [a["id"] for a in lines(shelf, "assemblies list --json")] == ["tea", "walks"]
    output = ok(shelf, "assemblies lineage tea")
    assert output.splitlines()[0] == "tea"
    assert "ancestor " in output
    assert "descendant" not in output
    assert "leaves (merged or deleted)" in output
    assert output.splitlines()[-1].endswith("   ada     one")
    assert ok(shelf, "assemblies lineage leaves").startswith("leaves (merged or deleted)\ndescendant ")
    assert "no merges" in ok(shelf, "assemblies lineage walks")
    (line,) = lines(shelf, "assemblies lineage leaves --json")
    assert (line["id"], line["exists"], line["ancestors"]) == ("leaves", False, [])
    (entry,) = line["descendants"]
    assert (entry["id"], entry["depth"], entry["exists"]) == ("tea", 1, True)
    assert (entry["merge"]["sources"], entry["merge"]["actor"], entry["merge"]["reason"]) == (["leaves"], "ada", "one")
    assert ok(shelf, "assemblies unmerge tea") == "undid merge 1: restored leaves from tea\n"
    assert [a["id"] for a in lines(shelf, "assemblies list --json")] == ["tea", "leaves", "walks"]


def test_a_merge_in_a_namespace_is_undone_by_its_number(shelf):
    async def more(store):
        await store.namespace("users").assemblies.add("coffee")

    script(more, shelf)
    (merge,) = lines(shelf, "assemblies merge tea coffee --name Both -n users --json")
    assert (merge["id"], merge["namespace"], merge["similarity"]) == (1, ["users"], None)
    assert "There is no merge" in fails(shelf, "assemblies unmerge --merge 1")
    assert "Both" in ok(shelf, "assemblies show", merge["target"], "-n", "users")
    (undone,) = lines(shelf, "assemblies unmerge --merge 1 -n users --json")
    assert undone["undone_at"] is not None
    assert "undone at" in fails(shelf, "assemblies unmerge --merge 1 -n users")


def test_invalid_merges_are_errors_of_one_line(shelf):
    assert "'none'" in fails(shelf, "assemblies merge tea none")
    assert "threshold" in fails(shelf, "assemblies merge tea walks -s 0.9")
    assert "'none'" in fails(shelf, "assemblies lineage none")
    assert "no merge" in fails(shelf, "assemblies unmerge tea")
    for senseless in ([], ["tea", "--merge", "1"]):
        assert "Pass either the id of an assembly or --merge" in fails(shelf, "assemblies unmerge", *senseless, code=2)


def test_merge_candidates_are_pairs_best_first(shelf):
    output = ok(shelf, "assemblies merge-candidates -s 0.9")
    assert "tea" in output
    assert output.endswith("1 pair\n")
    (best,) = lines(shelf, "assemblies merge-candidates -s -1 -l 1 --json")
    assert (best["a"], best["b"]) == ("tea", "leaves")
    assert len(lines(shelf, "assemblies merge-candidates -s -1 --json")) == 3
    assert ok(shelf, "assemblies merge-candidates -s 1.1") == "0 pairs\n"


def test_suggestions_are_listed_and_created_only_with_create(shelf):
    output = ok(shelf, "assemblies suggest -s 0.8")
    assert "1 group; in no group: 1 without a neighbour" in output
    assert "free 1" in output
    assert "--create" in output
    group, unassigned = lines(shelf, "assemblies suggest -s 0.8 --json")
    assert sorted(group["members"]) == ["f0", "f1", "f2", "f3"]
    assert unassigned == {"unassigned": {"f4": "no_neighbour"}}
    assert len(lines(shelf, "assemblies list --json")) == 3
    assert lines(shelf, "assemblies suggest -s 0.8 --min-size 5 --json")[-1]["unassigned"]["f1"] == "too_few"
    assert lines(shelf, "assemblies suggest -s 0.8 -w", '{"id": {"$in": ["f0"]}}', "--json") == [
        {"unassigned": {"f0": "no_neighbour"}}
    ]
    result, _ = lines(shelf, "assemblies suggest -s 0.8 --create --json")
    assert (len(result["assemblies"]), result["stale"]) == (1, 0)
    assert len(lines(shelf, "assemblies list --json")) == 4
    assert "0 groups" in ok(shelf, "assemblies suggest -s 0.8 --create")


def test_assemblies_are_created_changed_shown_searched_and_deleted(small):
    ok(small, "assemblies add out walk --name Outdoors -t t --topic b --topic a")
    (result,) = lines(small, "assemblies show out --json")
    assert (result["name"], result["tags"], result["topics"], result["members"]) == (
        "Outdoors",
        ["t"],
        ["b", "a"],
        ["walk"],
    )
    assert result["composite"] == [0, 0, 1]
    output = ok(small, "assemblies show out")
    assert "Outdoors" in output
    assert "a long walk" in output
    hits = lines(small, "assemblies search -e '[0, 0.1, 1]' --json")
    assert [hit["assembly"]["id"] for hit in hits] == ["out", "drinks"]
    assert [a["id"] for a in lines(small, "assemblies list --json")] == ["drinks", "out"]
    assert [a["id"] for a in lines(small, "assemblies list -t t --json")] == ["out"]
    assert "2 assemblies" in ok(small, "assemblies list")
    assert "1 of 2" in ok(small, "assemblies list -l 1")
    assert "has 2 members" in ok(small, "assemblies add-members out tea")
    assert "has 1 member\n" in ok(small, "assemblies remove-members out walk")
    assert "pass --upsert to replace it" in fails(small, "assemblies add out")
    ok(small, "assemblies add out --name Out --upsert")
    (result,) = lines(small, "assemblies show out --json")
    assert (result["name"], result["members"]) == ("Out", ["tea"])
    ok(small, "assemblies delete out")
    assert "no assembly 'out'" in fails(small, "assemblies delete out")
    assert "no memory 'nobody'" in fails(small, "assemblies add new nobody")
    assert ok(small, "check") == "clean\n"


def test_tags_are_listed_renamed_and_deleted(small):
    tags = lines(small, "tags list --json")
    assert tags == [
        {"name": "cold", "memory_count": 1, "assembly_count": 0},
        {"name": "drink", "memory_count": 2, "assembly_count": 0},
    ]
    assert "2 tags" in ok(small, "tags list")
    assert ok(small, "tags rename drink beverage") == "renamed drink to beverage on 2 records\n"
    assert ok(small, "tags delete cold") == "removed cold from 1 record\n"
    assert [tag["name"] for tag in lines(small, "tags list --json")] == ["beverage"]
    fails(small, "tags rename absent x")
    assert lines(small, "tags delete absent --json") == [{"changed": 0}]
