"""The commands on memories."""

from datetime import UTC, datetime, timedelta

import memstore
from memstore.cli import confirmation
from tests.cli.commands import fails, invoke, lines, ok, script


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


def test_update_changes_the_named_fields_and_nothing_else(texts):
    before = lines(texts, "show tea --json")[0]
    assert ok(texts, "update tea --text 'Ada drinks coffee' --importance 0.9") == "updated tea\n"
    after = lines(texts, "show tea --json")[0]
    assert after["embedding"] != before["embedding"]
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"content", "importance", "embedding", "updated_at"}
    assert lines(texts, "search 'coffee' -l 1 --json")[0]["memory"]["id"] == "tea"


def test_update_changes_tags_metadata_expiry_and_pin(small):
    def after(*options):
        (record,) = lines(small, "update tea --json", *options)
        return record

    assert after("--add-tag", "x", "--remove-tag", "drink")["tags"] == ["x"]
    assert after("--tag", "a", "--tag", "b")["tags"] == ["a", "b"]
    assert after("--patch", '{"hot": null, "cup": 1}')["metadata"] == {"cup": 1}
    assert after("--metadata", '{"n": 1}')["metadata"] == {"n": 1}
    assert after("--ttl", "1d")["expires_at"] is not None
    assert after("--no-ttl")["expires_at"] is None
    assert after("--pin")["pinned"] is True
    assert after("--text", "black tea", "--embedding", "[0, 0, 1]")["content"] == "black tea"
    assert lines(small, "show tea --json")[0]["embedding"] == [0, 0, 1]


def test_update_changes_several_memories_or_none(small):
    assert ok(small, "update tea coffee --importance 0.1 --add-tag x") == "updated 2 memories\n"
    where = '{"tags": {"$contains": "x"}}'
    assert [record["id"] for record in lines(small, "update --pin --json --where", where)] == ["tea", "coffee"]
    before = ok(small, "export")
    assert "no memory 'nobody'" in fails(small, "update tea nobody --importance 0.2")
    assert "--embedding" in fails(small, "update tea --text 'another text'")
    assert ok(small, "export") == before
    assert ok(small, "update --no-pin --where", '{"id": "none"}') == "updated 0 memories\n"


def test_pin_and_unpin_take_ids(small):
    assert ok(small, "pin tea walk --actor ada --reason 'she asked'") == "pinned 2 memories\n"
    assert "she asked" in ok(small, "history tea")
    assert [memory["id"] for memory in lines(small, "list --json -w", '{"pinned": true}')] == ["tea", "walk"]
    assert lines(small, "unpin tea --json") == [{"unpinned": 1}]
    assert "no memory 'nobody'" in fails(small, "unpin walk nobody")
    assert [memory["id"] for memory in lines(small, "list --json -w", '{"pinned": true}')] == ["walk"]


def test_erase_asks_first_and_removes_every_version(small, monkeypatch):
    ok(small, "update tea --text 'a secret word' --embedding '[1, 0, 0]'")
    ok(small, "update tea --text 'harmless' --embedding '[1, 0, 0]'")
    message = fails(small, "erase tea")
    assert "Erase 1 memory (tea) from" in message
    assert "pass --yes" in message
    monkeypatch.setattr(confirmation, "is_interactive", lambda: True)
    assert invoke(small, "erase tea", stdin="no\n").exit_code == 1
    assert "harmless" in ok(small, "show tea")
    done = invoke(small, "erase tea nobody", stdin="yes\n")
    assert done.exit_code == 0
    assert done.stdout.startswith("erased 1 memory, 3 changes")
    assert "not in the store: nobody" in done.stdout
    assert "no memory 'tea'" in fails(small, "history tea")
    assert ok(small, "compact --secure")
    assert b"a secret word" not in small.read_bytes()
    assert ok(small, "check") == "clean\n"


def test_erase_takes_a_filter_or_a_whole_namespace(small):
    (report,) = lines(small, "erase --yes --secure --json --where", '{"tags": {"$contains": "cold"}}')
    assert (report["ids"], report["memories"], report["freed"] >= 0) == (["coffee"], 1, True)
    assert "everything of users and all namespaces below it: 1 memory" in fails(small, "erase --all -n users -r")
    assert ok(small, "erase --all -n users -r --yes").startswith("erased 1 memory")
    assert lines(small, "erase drinks --assemblies --yes --json")[0]["assemblies"] == 1
    assert [memory["id"] for memory in lines(small, "list --recursive --json")] == ["tea", "walk"]
    for invalid in ("erase", "erase tea --all", "erase tea -r", "erase --all --assemblies"):
        fails(small, invalid, code=2)
