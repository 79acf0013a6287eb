"""What `pip install` gives: the package alone, its revisions with it, and an import that changes nothing."""

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
MOST_DISTRIBUTIONS = 14

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("packaging"),
    pytest.mark.network(reason="pip installs from a package index"),
]


def run(*command, cwd):
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=590)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Environment:
    """A new virtual environment without pip, used from an empty folder.

    The pip of this process installs into it: an environment with a pip of its own takes seconds to create.
    """

    def __init__(self, folder):
        venv.create(folder)
        self.python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
        self.elsewhere = folder / "elsewhere"
        self.elsewhere.mkdir()

    def pip(self, *arguments):
        pip = (sys.executable, "-m", "pip", "--python", self.python, "--disable-pip-version-check")
        return run(*pip, *arguments, cwd=self.elsewhere)

    def answer(self, script, *arguments):
        """Run *script*, which sees no folder and no variable of this process's Python; return its output as JSON."""
        return json.loads(run(self.python, "-I", "-c", script, *arguments, cwd=self.elsewhere))

    @property
    def packages(self):
        return self.answer("import json, sysconfig; print(json.dumps(sysconfig.get_path('purelib')))")


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """A copy of the checkout, so that nothing is built inside it."""
    folder = tmp_path_factory.mktemp("source")
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=CHECKOUT)
    for name in filter(None, listed.split("\0")):
        if (CHECKOUT / name).is_file():  # a file that was deleted, but not yet in a commit, is still listed
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / name, folder / name)
    if not (folder / "README.md").exists():
        (folder / "README.md").write_text("# memstore\n")
    return folder


@pytest.fixture(scope="session")
def wheel(source, tmp_path_factory):
    """The wheel, built from the source distribution as an index would serve it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory):
    """An environment with the wheel and what it needs, nothing else."""
    environment = Environment(tmp_path_factory.mktemp("installed"))
    environment.pip("install", "--no-compile", wheel)
    return environment


@pytest.fixture(scope="session")
def editable(source, installed, tmp_path_factory):
    """An environment with an editable install of the copied checkout; the dependencies are those of `installed`.

    pip builds it in isolation, with the build requirements of pyproject.toml.
    """
    environment = Environment(tmp_path_factory.mktemp("editable"))
    environment.pip("install", "--no-deps", "--editable", source)
    # Python reads .pth files in alphabetical order: the checkout comes before the installed package.
    (Path(environment.packages) / "zz_dependencies.pth").write_text(installed.packages)
    return environment


MAKE_A_STORE = """
import json, sqlite3, sys
from pathlib import Path
import memstore
from memstore.database import migrate
from memstore.database.migrate import folder
path = Path(sys.argv[1])
revision = migrate(str(path))
connection = sqlite3.connect(path)
print(json.dumps({
    "revision": revision,
    "found": connection.execute("SELECT version_num FROM memstore_version").fetchone()[0],
    "package": str(Path(memstore.__file__).resolve().parent),
    "folder": str(folder().resolve()),
}))
connection.close()
"""


def revisions():
    return {path.name for path in (CHECKOUT / "migrations" / "versions").glob("*.py")}


def test_wheel_holds_the_package_with_its_revisions_and_types_and_nothing_beside_it(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"memstore"}
    assert "memstore/py.typed" in names
    assert {"memstore/migrations/env.py", "memstore/migrations/script.py.mako"} <= names
    assert {name for name in names if "/versions/" in name} == {
        f"memstore/migrations/versions/{n}" for n in revisions()
    }
    assert [name for name in names if name.endswith((".pyc", ".db"))] == []


def test_installed_package_makes_a_store_with_the_revisions_inside_it(installed, tmp_path):
    answer = installed.answer(MAKE_A_STORE, tmp_path / "store.db")
    assert answer["revision"] == answer["found"]
    assert installed.python.parents[1].resolve() in Path(answer["package"]).parents
    assert Path(answer["folder"]) == Path(answer["package"]) / "migrations"
    assert os.listdir(tmp_path) == ["store.db"]
    assert os.listdir(installed.elsewhere) == []


def test_core_install_is_small(installed):
    listed = {entry["name"].lower() for entry in json.loads(installed.pip("list", "--format=json"))}
    ours = listed - {"pip", "setuptools"}
    assert "memstore" in ours
    assert len(ours) <= MOST_DISTRIBUTIONS, sorted(ours)


IMPORT = """
import json, os, sys, threading
before = dict(os.environ)
import memstore
maps = "/proc/self/maps"
print(json.dumps({
    "modules": sorted({name.partition(".")[0] for name in sys.modules}),
    "environment kept": dict(os.environ) == before,
    "threads": threading.active_count(),
    "maps": open(maps).read() if os.path.exists(maps) else None,
}))
"""


@pytest.fixture(scope="session")
def imported(installed):
    """What a fresh process looks like after `import memstore`."""
    return installed.answer(IMPORT)


def test_import_loads_neither_faiss_nor_alembic(imported):
    assert "memstore" in imported["modules"]
    assert {"faiss", "alembic"}.isdisjoint(imported["modules"])


def test_import_sets_no_environment_variable_and_starts_no_thread(imported):
    assert imported["environment kept"]
    assert imported["threads"] == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists the libraries of a process in /proc/self/maps")
def test_import_loads_no_openmp_runtime(imported, installed):
    runtimes = ("libgomp", "libomp", "libiomp")
    assert [name for name in runtimes if name in imported["maps"]] == []
    with_faiss = installed.answer(IMPORT.replace("import memstore", "import memstore, faiss"))
    assert [name for name in runtimes if name in with_faiss["maps"]] != [], "this test would not have seen one"


def test_editable_install_finds_the_revisions_of_the_checkout(editable, source, tmp_path):
    answer = editable.answer(MAKE_A_STORE, tmp_path / "store.db")
    assert answer["revision"] == answer["found"]
    assert Path(answer["package"]) == (source / "memstore").resolve()
    assert Path(answer["folder"]) == (source / "migrations").resolve()
    assert os.listdir(tmp_path) == ["store.db"]
