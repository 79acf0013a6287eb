"""`memstore demo`, run once as a user runs it: its output and its store."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import memstore
from memstore.cli.app import app
from memstore.cli.demo import QUESTIONS
from memstore.cli.reference import SOURCE, load_reference

CHECKOUT = Path(__file__).parents[2]
runner = CliRunner()


def run(*arguments, cwd):
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT), "COLUMNS": "80", "PYTHONWARNINGS": "error"}
    env.pop("MEMSTORE_FILE", None)
    line = [sys.executable, "-m", "memstore.cli.main", *arguments]
    return subprocess.run(line, cwd=cwd, env=env, capture_output=True, encoding="utf-8", timeout=240)


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    """The folder in which the demo was run, and what it printed as JSON."""
    folder = tmp_path_factory.mktemp("demo")
    done = run("demo", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder, json.loads(done.stdout)


@pytest.fixture(scope="module")
def second_output(first_run):
    """What people see when they run it again."""
    done = run("demo", "How do I format a number?", "--file", "memstore-demo.db", cwd=first_run[0])
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_question_about_exceptions_finds_the_try_statement(first_run):
    answer = first_run[1]["questions"][0]
    assert "exception" in answer["question"]
    assert "try" in [group["id"] for group in answer["assemblies"]]
    assert any({"topic:try", "topic:exceptions"} & set(hit["tags"]) for hit in answer["hits"])


@pytest.mark.parametrize(
    ("question", "topic"),
    [
        ("How do I format a number with two decimals?", "formatstrings"),
        ("When are the default values of parameters evaluated?", "function"),
        ("What does importing a module do?", "import"),
    ],
)
def test_every_question_finds_a_passage_and_an_assembly_of_its_topic(first_run, question, topic):
    assert question in QUESTIONS
    answer = next(a for a in first_run[1]["questions"] if a["question"] == question)
    assert f"topic:{topic}" in answer["hits"][0]["tags"]
    assert topic in [group["id"] for group in answer["assemblies"]]


def test_scores_fall_and_are_cosines(first_run):
    for answer in first_run[1]["questions"]:
        for hits in (answer["hits"], answer["assemblies"]):
            scores = [one["score"] for one in hits]
            assert scores == sorted(scores, reverse=True)
            assert all(-1 <= score <= 1 for score in scores)


def test_a_new_process_found_it_clean_and_gave_the_same_hits(first_run):
    assert first_run[1]["clean"] is True
    assert first_run[1]["same_hits"] is True


async def test_the_store_holds_every_passage_and_one_assembly_a_topic(first_run):
    content = load_reference()
    async with memstore.open(first_run[0] / "memstore-demo.db", read_only=True) as store:
        assert await store.memories.count() == len(content.memories) == first_run[1]["memories"]
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


def test_run_again_it_says_so_and_reuses_the_store(first_run, second_output):
    assert "contains the reference already. Pass --rebuild" in second_output
    assert "How do I format a number?" in second_output
    assert QUESTIONS[0] not in second_output
    assert f"{first_run[1]['memories']:,} memories" in second_output


def test_what_people_see_is_plain_and_fits_80_columns(second_output):
    assert "\x1b" not in second_output
    before_commands = second_output.partition("Try:")[0]
    assert "Topics: Format String Syntax" in before_commands
    assert "check finds no damage" in before_commands
    assert all(len(line) <= 110 for line in before_commands.splitlines())


def test_the_commands_it_offers_work(first_run, second_output, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a map is drawn there
    offered = [line.strip() for line in second_output.partition("Try:")[2].splitlines() if line.strip()]
    assert len(offered) == 7
    for line in offered:
        words = shlex.split(line)
        arguments = words[words.index("memstore.cli") + 1 :] if "memstore.cli" in words else words[1:]
        if "memstore-demo.db" in arguments:
            arguments[arguments.index("memstore-demo.db")] = str(first_run[0] / "memstore-demo.db")
        done = runner.invoke(app, arguments)
        assert done.exit_code == 0, (line, done.output)
        assert "no hits" not in done.stdout


def test_rebuild_leaves_what_a_user_added(first_run):
    file = str(first_run[0] / "memstore-demo.db")
    done = runner.invoke(app, ["add", "my own note", "--id", "mine", "-f", file])
    assert done.exit_code == 0, done.output
    done = runner.invoke(app, ["demo", "--rebuild", "--json", "-f", file, "What is a lambda?"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["reused"] is False
    assert said["questions"][0]["question"] == "What is a lambda?"
    assert runner.invoke(app, ["show", "mine", "-f", file]).exit_code == 0
    assert runner.invoke(app, ["check", "-f", file]).stdout == "clean\n"


async def test_a_store_of_the_users_own_is_refused_and_left_alone(tmp_path):
    file = tmp_path / "own.db"
    async with memstore.open(file, dimension=3) as store:
        await store.memories.add("mine", embedding=[1, 2, 3])
    content = file.read_bytes()
    for options in ([], ["--rebuild"]):
        done = run("demo", "-f", str(file), *options, cwd=tmp_path)
        assert done.returncode == 1
        assert "is not a demo" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert file.read_bytes() == content
