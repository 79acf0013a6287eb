"""The house: imports go one way, rooms stay small, and what must not be anywhere is nowhere."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "memstore"
MODULES = sorted(PACKAGE.rglob("*.py"))


def rows() -> dict[str, int]:
    """Each room of the table in CONTRIBUTING.md with the number of its row."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.split("| packages | own |\n|---|---|\n")[1].split("\n\n")[0]
    return {
        room: number
        for number, line in enumerate(table.splitlines())
        for room in re.findall(r"`(\w+)`", line.split("|")[1])
    }


def room(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(module: Path) -> list[tuple[ast.stmt, str]]:
    found: list[tuple[ast.stmt, str]] = []
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            name = node.module or ""
            found += [(node, f"{name}.{alias.name}" if name == "memstore" else name) for alias in node.names]
    return found


@pytest.mark.parametrize(
    "module",
    [m for m in MODULES if m.name != "__init__.py" or m.parent != PACKAGE],
    ids=lambda m: str(m.relative_to(PACKAGE)),
)
def test_a_module_imports_only_from_its_row_and_above(module: Path) -> None:
    table = rows()
    here = room(module)
    assert here in table
    for _, name in imports(module):
        parts = name.split(".")
        if parts[0] != "memstore" or len(parts) == 1:
            continue
        there = parts[1]
        if there not in table:
            assert here == "cli", f"{module}: {name}"  # the command line uses the public names
            continue
        assert there == here or table[there] < table[here] or table[there] == table[here] == 0, f"{module}: {name}"


def test_every_room_is_in_the_table_and_every_row_is_a_room() -> None:
    assert set(rows()) == {room(m) for m in MODULES if m.parent != PACKAGE or m.name != "__init__.py"}


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_modules_and_functions_stay_small(module: Path) -> None:
    text = module.read_text(encoding="utf-8")
    assert text.count("\n") <= 450
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            documented = (ast.get_docstring(node, clean=False) or "").count("\n") + 1
            assert node.end_lineno - node.lineno + 1 - documented <= 60, node.name
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: gone under -O"


def test_imports_inside_functions_stand_only_where_loading_must_be_late() -> None:
    late = {}
    for module in MODULES:
        for function in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for node in ast.walk(function):
                    if isinstance(node, ast.Import | ast.ImportFrom):
                        late.setdefault(str(module.relative_to(PACKAGE)), set()).add(function.name)
    assert {name for name in late if not name.startswith(("cli/", "embedders/"))} == {
        "database/database.py",  # SQLAlchemy's asynchronous engine: it loads the ORM
        "database/migrate.py",  # Alembic
        "index/faiss_engine.py",
    }


def test_faiss_is_imported_by_one_module() -> None:
    users = [m.name for m in MODULES if any(name.split(".")[0] == "faiss" for _, name in imports(m))]
    assert users == ["faiss_engine.py"]


def test_one_module_says_which_sqlite_is_used() -> None:
    drivers = {"sqlite3", "pysqlite3", "aiosqlite"}
    users = {str(m.relative_to(PACKAGE)) for m in MODULES if drivers & {n.split(".")[0] for _, n in imports(m)}}
    assert users == {"database/async_engine.py", "database/sqlite.py"}


def test_begin_and_commit_are_said_in_one_room() -> None:
    said = re.compile(r"""["'](BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE)\b""")
    users = {room(m) for m in MODULES if said.search(m.read_text(encoding="utf-8"))}
    assert users == {"database"}


def test_one_module_writes_the_log_back() -> None:
    users = {str(m.relative_to(PACKAGE)) for m in MODULES if "wal_checkpoint" in m.read_text(encoding="utf-8")}
    assert users == {"database/checkpoint.py"}


def test_no_duplicate_openmp_runtime_is_ever_allowed() -> None:
    for folder in ("memstore", "migrations", "benchmarks", "examples"):
        for file in (ROOT / folder).rglob("*.py"):
            assert "KMP_DUPLICATE" not in file.read_text(encoding="utf-8"), file
    for module in MODULES:
        assert not re.search(r"environ\[[^]]+\]\s*=|putenv|setdefault\(.OMP", module.read_text(encoding="utf-8")), (
            module
        )


def test_importing_memstore_loads_no_openmp_runtime_and_changes_no_environment_variable() -> None:
    code = (
        "import os, sys\n"
        "before = dict(os.environ)\n"
        "import memstore\n"
        "from memstore.index.openmp import openmp_runtimes\n"
        "assert dict(os.environ) == before\n"
        "assert openmp_runtimes() == [], openmp_runtimes()\n"
        "assert not {'faiss', 'alembic', 'typer', 'wordllama'} & set(sys.modules)\n"
        "import faiss\n"
        "assert openmp_runtimes() != [] or sys.platform != 'linux'\n"  # the check can see one
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
