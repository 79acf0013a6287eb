"""Activation on the command line: search --boost, explain, what assemblies show, export and import."""

import json

import pytest

from tests.cli.commands import COMMANDS, fails, lines, ok, script

QUERY = ["--embedding", "[1, 0.2, 0]"]


def test_search_with_boost_reports_the_boost_of_each_hit(small):
    plain = lines(small, "search", *QUERY, "--json")
    assert [line["memory"]["id"] for line in plain] == ["tea", "coffee", "walk"]
    assert all(set(line) == {"score", "memory"} for line in plain)
    boosted = lines(small, "search", *QUERY, "--boost", "--weight", "0.5", "--json")
    tea, coffee, walk = boosted
    assert (tea["reason"], tea["assembly"], walk["reason"], walk["assembly"]) == (
        "boosted",
        "drinks",
        "no_assembly",
        None,
    )
    assert coffee["score"] == coffee["base_score"] + coffee["boost"]
    assert 0.25 <= coffee["boost"] < 0.5
    assert coffee["base_score"] == plain[1]["score"]
    output = ok(small, "search", *QUERY, "--boost")
    assert "boost" in output
    assert "drinks" in output
    assert "boost" not in ok(small, "search", *QUERY)
    high = lines(small, "search", *QUERY, "--boost", "--threshold", "0.99", "--json")
    assert {line["reason"] for line in high} == {"not_activated", "no_assembly"}


def test_explain_reports_the_rank_and_its_reasons(small):
    result = lines(small, "explain coffee", *QUERY, "--boost", "--limit", "1", "--json")[0]
    assert (result["rank"], result["reason"], [exclusion["cause"] for exclusion in result["exclusions"]]) == (
        None,
        "boosted",
        ["limit"],
    )
    assert result["assemblies"][0]["sync"]["synced"] is True
    output = ok(small, "explain coffee", *QUERY, "--boost")
    assert output.startswith("coffee: hit 2, score ")
    assert "assembly drinks: activated" in output
    assert "excluded by tags: it lacks the tag 'x'" in ok(small, "explain coffee", *QUERY, "--tag", "x")
    where = '{"importance": {"$gt": 0.8}}'
    assert "excluded by where" in ok(small, "explain coffee", *QUERY, "--where", where)
    assert "not among the hits" in ok(small, "explain note", *QUERY, "--in", "users/ada")
    assert "note: hit" in ok(small, "explain note", *QUERY, "--in", "users/ada", "--recursive")
    assert "There is no memory 'none'" in fails(small, "explain none", *QUERY)
    fails(small, "explain coffee", code=2)


def test_explain_changes_nothing(small, tmp_path):
    content = small.read_bytes()
    ok(small, "explain tea", *QUERY, "--boost")
    assert small.read_bytes() == content
    assert "absent.db" in fails(tmp_path / "absent.db", "explain tea", *QUERY)
    assert not (tmp_path / "absent.db").exists()


@pytest.mark.parametrize("command", ["search", "explain"])
def test_invalid_boost_options_are_exit_code_2(command, small):
    named = ["tea"] * (command == "explain")
    for options in (["--threshold", "0.5"], ["--weight", "1"], ["--boost", "--weight", "0"]):
        assert "boost" in fails(small, command, *named, *QUERY, *options, code=2)
    searched = {parameter.name for parameter in COMMANDS[("search",)].params}
    assert searched <= {parameter.name for parameter in COMMANDS[("explain",)].params}


def test_assemblies_show_prints_the_activation_and_the_revisions(small):
    output = ok(small, "assemblies show drinks")
    assert "2 (composite and index are current)" in output
    assert "activation" not in output
    script(lambda store: store.assemblies.activate({"drinks": 0.5}), small)
    output = " ".join(ok(small, "assemblies show drinks").split())
    assert "activation 0.5 now, 0.5 at 20" in output
    assert "(activated 1 time)" in output
    assert "0.50" in ok(small, "assemblies list")
    (result,) = lines(small, "assemblies show drinks --json")
    assert (result["activation_level"], result["activation_count"], result["sync"]["synced"]) == (0.5, 1, True)
    content = small.read_bytes()
    ok(small, "assemblies show drinks")
    assert small.read_bytes() == content


def test_export_and_import_preserve_the_activation(small, tmp_path):
    script(lambda store: store.assemblies.activate({"drinks": 1 / 3}), small)
    script(lambda store: store.assemblies.activate({"drinks": 2 / 3}), small)
    exported, copy = tmp_path / "all.jsonl", tmp_path / "copy.db"
    ok(small, "export", exported)
    records = map(json.loads, exported.read_text("utf-8").splitlines())
    (line,) = (record for record in records if record["kind"] == "assembly")
    assert (line["activation_level"], line["activation_count"], "activation" in line) == (2 / 3, 2, False)
    ok(copy, "import", exported)
    before, after = (script(lambda store: store.assemblies.get("drinks"), path) for path in (small, copy))
    assert after.activated_at is not None
    for name in ("activation_level", "activated_at", "activation_count"):
        assert getattr(after, name) == getattr(before, name)
    assert ok(copy, "export") == exported.read_text("utf-8")
