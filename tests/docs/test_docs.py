"""The documentation is correct: its code runs, the README has two commands, its tables match the code."""

import ast
import asyncio
import inspect
import re
import tomllib
from pathlib import Path

import pytest

import memstore
from memstore import errors
from memstore.api import namespace
from memstore.assemblies import cluster, merge
from memstore.validation import text as text_module
from memstore.validation import values
from memstore.vectors import space

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_every_python_block_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    if page.name == "README.md":
        for block in blocks(page, "python"):
            exec(compile(block, page.name, "exec"), {"__name__": "__main__"})
        assert "Ada prefers green tea" in capsys.readouterr().out
        return

    async def run() -> None:
        names: dict[str, object] = {}
        for block in blocks(page, "python"):
            code = compile(block, page.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, names)
            if inspect.iscoroutine(result):
                await result

    asyncio.run(run())


def test_the_first_console_block_is_two_commands_that_do_their_own_set_up() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    fences = [line for line in lines if line.startswith("```") and line != "```"]
    assert fences[0] == "```console"
    commands = blocks(ROOT / "README.md", "console")[0].splitlines()
    assert len(commands) == 2
    assert all(
        c.startswith("python3 -m venv .venv && .venv/bin/pip install ") and not c.endswith("\\") for c in commands
    )
    assert lines.index("```python") < 25
    assert len(blocks(ROOT / "README.md", "console")) == 1


def test_ci_runs_the_readme_s_test_command() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "README.md" in script
    assert "sed -n 2p" in script
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"], ids=lambda page: page.name
)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads], target


def test_the_drawn_error_tree_is_the_tree() -> None:
    drawn: dict[str, list[str]] = {}
    path: list[str] = []
    for line in inspect.getdoc(errors).splitlines():
        found = re.match(r"^([ │├└─]*)(\w+Error)\b(?:\s+\((\w+)\))?", line.removeprefix("    "))
        if found and (found[1] or found[2] == "MemstoreError"):
            depth = len(found[1]) // 4
            path[depth:] = [found[2]]
            drawn[found[2]] = [path[depth - 1] if depth else "Exception", *([found[3]] if found[3] else [])]
    classes = {name: cls for name, cls in vars(errors).items() if isinstance(cls, type)}
    assert drawn == {name: [base.__name__ for base in cls.__bases__] for name, cls in classes.items()}
    assert sorted(errors.__all__) == sorted(classes)


LITERAL = type(memstore.Metric)
"""Names of sets of values or of arrays; the pages explain them where they are used."""


def test_every_public_name_is_exported_and_documented() -> None:
    assert memstore.__all__ == sorted(memstore.__all__)
    for name in memstore.__all__:
        assert (
            inspect.getdoc(getattr(memstore, name))
            or isinstance(getattr(memstore, name), LITERAL)
            or name == "Embedding"
        ), name
    assert set(errors.__all__) <= set(memstore.__all__)
    for noun in (memstore.Store, memstore.Memories, memstore.Assemblies, memstore.Tags, memstore.Transaction):
        for name, member in inspect.getmembers(noun):
            if not name.startswith("_"):
                assert inspect.getdoc(member), f"{noun.__name__}.{name}"


def test_the_table_of_limits_is_the_code_s() -> None:
    text = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
    for number in (
        space.MAX_DIMENSION,
        merge.MAX_MERGED,
        cluster.MAX_GROUP,
        cluster.MAX_SUGGESTIONS,
        values.MAX_ID_BYTES,
        text_module.MAX_TEXT_BYTES,
        values.MAX_TAG_BYTES,
        values.MAX_TAGS,
        values.MAX_NAMESPACE_BYTES,
        values.MAX_NAMESPACE_PARTS,
        text_module.MAX_METADATA_DEPTH,
        text_module.MAX_METADATA_VALUES,
        values.MAX_LIMIT,
        namespace.MAX_CHUNK,
    ):
        assert f"{number:,}" in text


def test_the_guide_names_every_verb_and_every_command() -> None:
    text = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    for noun in (memstore.Store, memstore.Memories, memstore.Assemblies):
        for name in vars(noun):
            if not name.startswith("_") and name not in ("dimension", "metric", "curvature"):
                assert re.search(rf"\b{name}\b", text), name


def test_the_version_is_in_the_changelog() -> None:
    assert f"## {memstore.__version__} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "### Database" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dynamic"] == ["version"]
