"""`memstore demo`, as a user runs it: its output and its store."""

import json
import shlex
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

import memstore
from memstore.cli.app import app
from memstore.cli.demo import QUESTIONS
from memstore.cli.reference import SOURCE, load_reference
from tests.cli.commands import PROGRAM, environment, lines, ok


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    line = [*PROGRAM, "demo", *arguments]
    return subprocess.run(line, cwd=cwd, env=environment(), capture_output=True, encoding="utf-8", timeout=240)


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    """The folder in which the demo was run, and the JSON it printed."""
    folder = tmp_path_factory.mktemp("demo")
    done = run("--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder, json.loads(done.stdout)


@pytest.fixture(scope="module")
def second_output(first_run):
    """What people read when they run it again."""
    done = run("memstore-demo.db", "How do I format a number?", cwd=first_run[0])
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("question", "topic"), list(zip(QUESTIONS, ("function", "break", "naming"), strict=True)))
def test_every_question_finds_a_passage_and_an_assembly_of_its_topic(first_run, question, topic):
    answer = next(a for a in first_run[1]["questions"] if a["question"] == question)
    assert f"topic:{topic}" in answer["hits"][0]["tags"]
    assert topic in [group["id"] for group in answer["assemblies"]]


def test_scores_fall_and_are_cosines(first_run):
    for answer in first_run[1]["questions"]:
        for hits in (answer["hits"], answer["assemblies"]):
            scores = [one["score"] for one in hits]
            assert scores == sorted(scores, reverse=True)
            assert all(-1 <= score <= 1 for score in scores)


def test_boost_raises_the_passages_of_a_topic_near_the_question(first_run):
    boost = first_run[1]["boost"]
    assert boost["hits"][0]["assembly"] == "import"
    assert [hit["rank_without"] for hit in boost["hits"]] == [1, 3, 2]
    assert [hit["boost"] > 0 for hit in boost["hits"]] == [True, True, False]
    assert 0 < boost["seconds"] < 60


def test_the_steps_show_history_and_forgetting(first_run):
    steps = {step["call"].partition(" ")[0]: step for step in first_run[1]["steps"]}
    assert list(steps) == ["add", "update", "read", "undo", "plan", "forget", "recover"]
    assert "Tuesday" in steps["update"]["result"]
    assert "Monday" in steps["read"]["result"]
    assert "Monday" in steps["undo"]["result"]
    assert steps["forget"]["result"].startswith("2 notes")
    assert all(step["seconds"] > 0 for step in steps.values())


def test_a_new_process_finds_no_damage_and_returns_the_same_hits(first_run):
    assert first_run[1]["clean"] is True
    assert first_run[1]["same_hits"] is True


async def test_the_store_contains_every_passage_and_one_assembly_for_each_topic(first_run):
    content = load_reference()
    async with memstore.open(first_run[0] / "memstore-demo.db", read_only=True) as store:
        assert await store.memories.count() == len(content.memories)
        notes = [memory async for memory in store.namespace("notes").memories.list()]
        assert [note.id for note in notes] == ["meetup", "rain"]
        assert await store.assemblies.count() == len(content.assemblies)
        group = await store.assemblies.get("try")
        assert group.name == "The try statement"
        assert group.topics[0] == "try"
        members = [member async for member in store.assemblies.members("try")]
        assert set(members) == set(next(a["members"] for a in content.assemblies if a["id"] == "try"))
        assert group.composite is not None
        memory = await store.memories.get(members[0])
        assert "topic:try" in memory.tags
        assert memory.metadata["source"] == SOURCE
        assert memory.embedding is not None


def test_a_passage_under_several_topics_is_stored_once():
    content = load_reference()
    texts = [memory["content"] for memory in content.memories]
    assert len(set(texts)) == len(texts)
    assert any(len([t for t in memory["tags"] if t.startswith("topic:")]) > 1 for memory in content.memories)
    assert len({memory["id"] for memory in content.memories}) == len(texts)


def test_a_second_run_reuses_the_store_and_says_so(first_run, second_output):
    assert "contains the reference already. Pass --rebuild" in second_output
    assert "How do I format a number?" in second_output
    assert QUESTIONS[0] not in second_output
    assert f"{first_run[1]['memories'] + 2:,} memories" in second_output


def test_the_output_is_plain_text_of_80_columns(second_output):
    assert "\x1b" not in second_output
    before_commands = second_output.partition("Try:")[0]
    assert "Topics: Format String Syntax" in before_commands
    assert "check finds no damage" in before_commands
    assert all(len(line) <= 110 for line in before_commands.splitlines())


def test_the_suggested_commands_work(first_run, second_output, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a map is written there
    store = str(first_run[0] / "memstore-demo.db")
    suggestions = [line.strip() for line in second_output.partition("Try:")[2].splitlines() if line.strip()]
    assert len(suggestions) == 8
    for line in suggestions:
        arguments = shlex.split(line)
        del arguments[: arguments.index("memstore" if "-m" not in arguments else "-m") + 1 + ("-m" in arguments)]
        done = CliRunner().invoke(app, [store if word == "memstore-demo.db" else word for word in arguments])
        assert done.exit_code == 0, (line, done.output)
        assert "no hits" not in done.stdout
        assert "nothing to forget" not in done.stdout


def test_rebuild_keeps_the_memories_of_the_user(first_run):
    store = first_run[0] / "memstore-demo.db"
    ok(store, "add 'my own note' --id mine")
    (report,) = lines(store, "demo 'What is a lambda?' --rebuild --json")
    assert report["reused"] is False
    assert [answer["question"] for answer in report["questions"]] == ["What is a lambda?"]
    assert "my own note" in ok(store, "show mine")
    assert ok(store, "check") == "clean\n"


async def test_a_store_that_is_not_a_demo_is_refused_and_keeps_its_bytes(tmp_path):
    store_file = tmp_path / "own.db"
    async with memstore.open(store_file, dimension=3) as store:
        await store.memories.add("mine", embedding=[1, 2, 3])
    content = store_file.read_bytes()
    for options in ([], ["--rebuild"]):
        done = run(str(store_file), *options, cwd=tmp_path)
        assert done.returncode == 1
        assert "is not a demo" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert store_file.read_bytes() == content
