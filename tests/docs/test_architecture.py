"""The architecture: one direction of imports, small modules, one owner per fact, and names of the domain."""

import ast
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import memstore
from tests.docs.architecture import (
    EXCEPTIONS,
    MODULES,
    PACKAGE,
    ROOT,
    TOP_MODULES,
    imports,
    internal_imports,
    layer_violations,
    module_cycles,
    named_files,
    old_names,
    package_of,
    relative,
    rows,
    sizes,
    tree,
    undocumented,
)

ALLOWED = json.loads(EXCEPTIONS.read_text(encoding="utf-8"))
"""Violations that were there when a rule was made: `python -m tests.docs.architecture --update` shortens the list."""


def modules_with(pattern: str) -> set[str]:
    """The modules of the package in which the regular expression *pattern* occurs."""
    return {relative(m) for m in MODULES if re.search(pattern, m.read_text(encoding="utf-8"))}


def importers(*names: str) -> set[str]:
    """The modules of the package that import one of the top-level modules *names*."""
    return {relative(m) for m in MODULES if set(names) & {name.split(".")[0] for name in imports(m)}}


# -- packages and modules


def test_a_module_imports_only_from_the_rows_above_its_own() -> None:
    assert [line for line in layer_violations() if line not in ALLOWED["layers"]] == []


def test_every_package_is_in_the_table_and_every_name_in_the_table_is_a_package() -> None:
    assert set(rows()) == {package_of(m) for m in MODULES if m.parent != PACKAGE or m.name != "__init__.py"}


def test_modules_import_each_other_in_no_cycle() -> None:
    assert [line for line in module_cycles() if line not in ALLOWED["cycles"]] == []


def test_every_part_of_the_package_can_be_imported_first() -> None:
    parts = sorted(
        {".".join(m.relative_to(ROOT).with_suffix("").parts[:2]) for m in MODULES}
        - {"memstore.__init__", "memstore.__main__"}
    )
    inner = ["memstore.search.query", "memstore.repository.selection", "memstore.api.store", "memstore.sync.follower"]
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    for loaded in [m for m in sys.modules if m.split('.')[0] == 'memstore']:\n"
        "        del sys.modules[loaded]\n"
        "    importlib.import_module(name)\n"
    )
    subprocess.run([sys.executable, "-c", code, *parts, *inner], check=True, timeout=240)


def test_few_modules_are_at_the_top_of_the_package() -> None:
    assert len([m for m in MODULES if m.parent == PACKAGE]) <= TOP_MODULES


def test_modules_and_functions_are_small() -> None:
    assert [line for line in sizes() if line not in ALLOWED["sizes"]] == []


def test_no_check_is_an_assert_statement() -> None:
    """Python leaves assert statements out under -O."""
    assert [relative(m) for m in MODULES if any(isinstance(node, ast.Assert) for node in ast.walk(tree(m)))] == []


def test_tests_import_internals_only_in_the_folder_that_mirrors_them() -> None:
    assert [line for line in internal_imports() if line not in ALLOWED["internals"]] == []


def test_imports_inside_functions_are_at_places_that_must_load_late() -> None:
    late = {
        relative(module)
        for module in MODULES
        for function in ast.walk(tree(module))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        and any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(function))
    }
    assert {name for name in late if not name.startswith(("memstore/cli/", "memstore/embedders/"))} == {
        "memstore/database/database.py",  # SQLAlchemy's asynchronous engine: it loads the ORM
        "memstore/database/migrate.py",  # Alembic
        "memstore/index/faiss_engine.py",
        "memstore/models/vectors.py",  # pandas and pyarrow, an extra
    }


# -- one owner per fact


def test_faiss_is_imported_by_one_module() -> None:
    assert importers("faiss") == {"memstore/index/faiss_engine.py"}


def test_one_module_chooses_the_sqlite_driver() -> None:
    owners = {"memstore/database/async_engine.py", "memstore/database/sqlite.py"}
    assert importers("sqlite3", "pysqlite3", "aiosqlite") == owners


def test_one_package_begins_and_commits() -> None:
    users = modules_with(r"""["'](BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE)\b""")
    assert {name.split("/")[1] for name in users} == {"database"}


def test_one_module_runs_checkpoints() -> None:
    assert modules_with("wal_checkpoint") == {"memstore/database/checkpoint.py"}


def test_no_duplicate_openmp_runtime_is_ever_allowed() -> None:
    for folder in ("memstore", "migrations", "benchmarks", "examples"):
        for file in (ROOT / folder).rglob("*.py"):
            assert "KMP_DUPLICATE" not in file.read_text(encoding="utf-8"), file
    assert modules_with(r"environ\[[^]]+\]\s*=|putenv|setdefault\(.OMP") == set()


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
        "assert openmp_runtimes() != [] or sys.platform != 'linux'\n"  # the function finds a runtime that is loaded
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)


# -- names


@pytest.mark.parametrize("path", named_files(), ids=relative)
def test_no_old_name_is_in_a_file(path: Path) -> None:
    names = old_names(path)
    assert names.total() <= ALLOWED["names"].get(relative(path), 0), names


def test_the_package_exports_few_names() -> None:
    assert len(memstore.__all__) <= 60


def test_every_exported_name_has_a_docstring_and_is_in_the_documentation() -> None:
    objects = {name: getattr(memstore, name) for name in memstore.__all__}
    callables = {name: value for name, value in objects.items() if inspect.isclass(value) or inspect.isfunction(value)}
    assert [name for name, value in callables.items() if not inspect.getdoc(value)] == []
    assert [name for name in undocumented() if name not in ALLOWED["undocumented"]] == []
