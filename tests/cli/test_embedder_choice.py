"""The embedder of a command: that of the file, of an option, or none."""

import json

from tests.cli.commands import fails, lines, ok


def test_a_file_of_an_unknown_embedder_refuses_texts_with_advice_and_accepts_vectors(hashed):
    for arguments in (["search", "tea"], ["add", "coffee"], ["assemblies", "search", "tea"]):
        message = fails(hashed, *arguments)
        assert "hash-8-0" in message
        assert "--embedding" in message
    assert "hash-8-0" in fails(hashed, "import -", stdin='{"content": "coffee"}\n')
    vector = json.dumps([1.0] * 8)
    assert lines(hashed, "search -e", vector, "--json")[0]["memory"]["id"] == "tea"
    ok(hashed, "add coffee -e", vector)
    ok(hashed, "add water -e null")
    assert lines(hashed, "stats --json")[0]["embedder"] == "hash-8-0"
    assert lines(hashed, "stats --json")[0]["memories"] == 3


def test_another_embedder_than_that_of_the_file_is_refused(hashed):
    for arguments in (["search", "tea"], ["add", "tea"]):
        assert "are from embedder 'hash-8-0'" in fails(hashed, *arguments, "--embedder", "wordllama")


def test_a_file_without_an_embedder_stores_a_text_only_with_embedder_none(small):
    assert "names no embedder" in fails(small, "add x")
    assert "names no embedder" in fails(small, "search x")
    assert "without an embedding" in ok(small, "add x --embedder none")
    message = fails(small, "search x --embedder none")
    assert "no embedder" in message


def test_a_new_file_has_wordllama_or_the_dimension_of_the_options(tmp_path):
    ok(tmp_path / "a.db", "add x")
    assert lines(tmp_path / "a.db", "stats --json")[0]["embedder"] == "wordllama-l2-supercat-256"
    ok(tmp_path / "b.db", "add x -e '[1, 2]'")
    assert lines(tmp_path / "b.db", "stats --json")[0]["dimension"] == 2
    ok(tmp_path / "c.db", "add x --embedder none --dimension 5")
    assert lines(tmp_path / "c.db", "stats --json")[0]["dimension"] == 5
    ok(tmp_path / "d.db", "add x --embedder none")
    assert lines(tmp_path / "d.db", "stats --json")[0]["dimension"] is None
    assert "no dimension until the first vector" in ok(tmp_path / "d.db", "stats")
    ok(tmp_path / "d.db", "add y -e '[1, 2, 3]'")
    assert lines(tmp_path / "d.db", "stats --json")[0]["dimension"] == 3


def test_without_wordllama_reads_work_and_texts_raise_with_advice(texts, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'memstore[wordllama]'" in fails(texts, "search tea")
    assert "pip install 'memstore[wordllama]'" in fails(tmp_path / "new.db", "add x")
    assert not (tmp_path / "new.db").exists()
    assert "2 memories" in ok(texts, "list")
    ok(texts, "add x -e", json.dumps([1.0] * 256))
