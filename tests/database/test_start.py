"""The modules that an import and a first open load, and the time of a first open."""

import json

from tests.support.programs import run_python

HEAVY = ("alembic", "faiss", "sqlalchemy.orm", "sqlalchemy.ext.asyncio", "aiosqlite", "typer", "rich", "wordllama")
MODULES = 410
"""The first use of a name loads at most this number of modules beside pysqlite3 and memstore's own."""

COMPILED = """
from memstore.repository.statements import Prepared
import gc
prepared = [item for item in gc.get_objects() if isinstance(item, Prepared)]
print(json.dumps([len(prepared), sum("_parts" in vars(item) for item in prepared)]))
"""

OPEN = """
import asyncio, time
async def main():
    start = time.process_time()
    async with memstore.open(sys.argv[1], dimension=4):
        return time.process_time() - start
before = set(sys.modules)
seconds = asyncio.run(main())
print(json.dumps([seconds, sorted(set(sys.modules) - before)]))
"""


def run(code, *arguments):
    """The JSON that *code* prints in a fresh process in which the public names of memstore are imported."""
    process = run_python("-c", "import json, sys, memstore\nfrom memstore import *\n" + code, *arguments)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def test_the_public_names_load_few_modules_and_nothing_that_only_an_open_store_needs():
    modules = run("print(json.dumps(sorted(sys.modules)))")
    assert "sqlalchemy" in modules
    assert [name for name in HEAVY if name in modules] == []
    assert len([name for name in modules if not name.startswith(("pysqlite3", "memstore"))]) <= MODULES


def test_the_public_names_compile_no_statement():
    count, compiled = run(COMPILED)
    assert count > 50
    assert compiled == 0


def test_first_open_of_a_new_file_takes_little_more_than_that_of_an_existing_one(tmp_path):
    paths = [str(tmp_path / f"{number}.db") for number in range(4)]
    new, existing = [[run(OPEN, path) for path in paths] for _ in range(2)]
    for (_, modules_of_new), (_, modules_of_existing) in zip(new, existing, strict=True):
        assert "sqlalchemy.ext.asyncio" in modules_of_existing
        assert set(modules_of_new) - set(modules_of_existing) == set()
    assert min(seconds for seconds, _ in new) <= 1.5 * min(seconds for seconds, _ in existing)
