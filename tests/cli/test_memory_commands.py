"""The commands on memories."""

from datetime import UTC, datetime, timedelta

import memstore
from tests.cli.commands import fails, lines, ok, script


def test_add_stores_every_field_of_its_options(path):
    ok(
        path,
        "add tea --id x -t a -t b --importance 0.25 --ttl 1h -n users/ada -e '[1, 2]' --metric l2 -m",
        '{"n": [1, null]}',
    )
    memory = script(lambda s: s.namespace("users", "ada").memories.get("x"), path)
    assert (memory.content, memory.tags, memory.importance) == ("tea", frozenset("ab"), 0.25)
    assert memory.metadata == {"n": [1, None]}
    assert memory.namespace == ("users", "ada")
    assert memory.embedding.tolist() == [1, 2]
    assert timedelta(minutes=59) < memory.expires_at - datetime.now(UTC) <= timedelta(hours=1)
    assert lines(path, "stats --json")[0]["metric"] == "l2"


def test_add_refuses_a_taken_id_and_upsert_replaces_it(small):
    assert "pass --upsert to replace it" in fails(small, "add x --id tea -e '[1, 1, 1]'")
    ok(small, "add 'black tea' --id tea -e '[1, 1, 1]' --upsert")
    assert lines(small, "show tea --json")[0]["content"] == "black tea"


def test_add_with_json_prints_the_record_without_its_embedding(small):
    (result,) = lines(small, "add x -e '[1, 1, 1]' --json")
    assert result["content"] == "x"
    assert "embedding" not in result


def test_a_wrong_dimension_is_refused(small):
    assert "dimension of an embedding: expected 3, found 2" in fails(small, "add x -e '[1, 2]'")
    assert "dimension of an embedding: expected 3, found 2" in fails(small, "search -e '[1, 2]'")


def test_search_by_text_ranks_by_meaning(texts):
    hits = lines(texts, "search 'something to drink' --json")
    assert [hit["memory"]["id"] for hit in hits] == ["tea", "train"]
    assert hits[0]["score"] > hits[1]["score"]
    nearest = lines(texts, "search 'something to drink' -l 1 --json")
    assert [hit["memory"] for hit in nearest] == [hits[0]["memory"]]


def test_every_option_of_search_has_an_effect(small):
    def ids(*arguments):
        return [hit["memory"]["id"] for hit in lines(small, "search -e '[1, 0.5, 0.1]' --json", *arguments)]

    assert ids() == ["tea", "coffee", "walk"]
    assert ids("-l", "2") == ["tea", "coffee"]
    assert ids("-t", "cold") == ["coffee"]
    assert ids("-t", "cold", "-t", "drink", "-l", "1") == ["coffee"]
    assert ids("-w", '{"importance": {"$lt": 0.6}}') == ["coffee", "walk"]
    assert ids("--min-score", "0.5") == ["tea"]
    assert ids("-n", "users/ada") == ["note"]
    assert ids("--recursive", "-l", "2") == ["note", "tea"]


def test_search_needs_a_text_or_an_embedding(small):
    fails(small, "search", code=2)
    fails(small, "search tea -e '[1, 2, 3]'", code=2)
    fails(small, "search -e null", code=2)


def test_every_option_of_list_has_an_effect(small):
    def ids(*arguments):
        return [memory["id"] for memory in lines(small, "list --json", *arguments)]

    assert ids() == ["tea", "coffee", "walk"]
    assert ids("-l", "1") == ["tea"]
    assert ids("-l", "1", "--all") == ["tea", "coffee", "walk"]
    assert ids("--order=-id") == ["walk", "tea", "coffee"]
    assert ids("-t", "cold") == ["coffee"]
    assert ids("-w", '{"metadata.hot": true}') == ["tea"]
    assert ids("-w", '{"created_at": {"$gt": "2999-01-01"}}') == []
    assert ids("-w", '{"$not": {"created_at": {"$in": ["2999-01-01T00:00:00Z"]}}}') == ["tea", "coffee", "walk"]
    assert ids("-w", '{"$or": [{"updated_at": {"$not": {"$gt": "2000-01-01"}}}, {"id": "tea"}]}') == ["tea"]
    assert ids("-w", '{"metadata": {"$eq": {"created_at": "is a text here"}}}') == []
    assert ids("-n", "users") == []
    assert ids("-n", "users", "-r") == ["note"]


def test_list_prints_the_total_and_the_namespaces_below(small):
    assert ok(small, "list -l 2").splitlines()[-1] == "2 of 3 memories; pass --all for all"
    assert ok(small, "list").splitlines()[-1] == "3 memories"
    assert ok(small, "list -n users").splitlines() == [
        "0 memories",
        "There are namespaces below: users/ada. Pass --namespace or --recursive.",
    ]


def test_show_prints_every_field_of_a_memory(small):
    output = ok(small, "show tea")
    for part in ("green tea", "drink", "drinks", '{"hot": true}', "0.9", "dimension 3, norm 1: 1, 0, 0"):
        assert part in output
    (result,) = lines(small, "show tea --json")
    assert result["embedding"] == [1, 0, 0]
    assert result["assemblies"] == ["drinks"]
    assert set(result) == {*memstore.Memory.__dataclass_fields__, "assemblies"}


def test_delete_takes_ids_or_a_filter(small):
    assert ok(small, "delete tea absent") == "deleted 1 memory\n"
    assert lines(small, "delete -w", '{"tags": {"$contains": "cold"}}', "--json") == [{"deleted": 1}]
    fails(small, "delete", code=2)
    fails(small, "delete -w", "{}")
    fails(small, "delete walk -w", '{"id": "walk"}', code=2)
    assert [memory["id"] for memory in lines(small, "list --json")] == ["walk"]
