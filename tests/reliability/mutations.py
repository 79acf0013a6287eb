"""Whether the tests bite: each promise is broken in a copy of the code, and the tests that hold it must go red.

`python -m tests.reliability.mutations` breaks one after the other and prints what went red; with names, only those.
It ends with 1 when something broken was not noticed.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_COPIED = ("memstore", "migrations", "tests", "benchmarks", "docs", "examples")
_RED = 1  # what pytest ends with when tests failed; anything else means that they could not be run


@dataclass(frozen=True, slots=True, kw_only=True)
class Tooth:
    """A promise, how it is broken, and the tests that must notice.

    Attributes:
        name: of the tooth, one word.
        promise: what is broken, in words.
        file: where; *old* stands there once, and *new* takes its place.
        tests: what must go red, as given to pytest.
    """

    name: str
    promise: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


TEETH: tuple[Tooth, ...] = (
    Tooth(
        name="curved",
        promise="exact search in the ball is exact up to its edge",
        file="memstore/index/hyperbolic.py",
        old="rounding = (dimension + 8) * float(np.finfo(np.float32).eps)",
        new="rounding = 0.0",
        tests=("tests/api/test_spaces.py",),
    ),
    Tooth(
        name="midpoint",
        promise="a composite in the ball is the Einstein midpoint",
        file="memstore/vectors/mean.py",
        old="            sizes = (2.0 - heights) / heights",
        new="            sizes = 1.0 / heights",
        tests=("tests/api/test_spaces.py", "tests/api/test_assemblies.py"),
    ),
    Tooth(
        name="abandoned",
        promise="a cancelled open closes what it had opened",
        file="memstore/api/open.py",
        old="await finished(asyncio.ensure_future(database.close()))",
        new="await database.close()",
        tests=("tests/api/test_cancellation.py",),
    ),
    Tooth(
        name="unheeded",
        promise="a backup ends at the first Ctrl-C",
        file="memstore/maintenance/backup.py",
        old="            stopping.check()\n            told(done, total)",
        new="            told(done, total)",
        tests=("tests/reliability/test_interruption.py",),
    ),
    Tooth(
        name="remains",
        promise="and leaves nothing of the copy",
        file="memstore/database/backup_copy.py",
        old="Path(left).unlink(missing_ok=True)",
        new="pass",
        tests=("tests/reliability/test_interruption.py",),
    ),
    Tooth(
        name="silent",
        promise="a store that is open at the end of the interpreter is warned of",
        file="memstore/database/database.py",
        old="@atexit.register\n",
        new="",
        tests=("tests/reliability/test_interruption.py",),
    ),
    Tooth(
        name="dropped",
        promise="an import of a folder names every member that it leaves out",
        file="memstore/importers/folder.py",
        old='remarks.add("left_out", "member", "there is no such memory", id=id)',
        new="pass",
        tests=("tests/cli/test_import_folder.py",),
    ),
    Tooth(
        name="unescaped",
        promise="nothing in a record becomes part of a page",
        file="memstore/visualize/page.py",
        old="html.escape(data.title)",
        new="data.title",
        tests=("tests/visualize/test_map.py",),
    ),
    Tooth(
        name="triggered",
        promise="a trigger in place of ours never runs",
        file="memstore/database/inspect.py",
        old="if ours != sql and (ours or endless or _EXPRESSION.search(str(sql))):",
        new="if False:",
        tests=("tests/reliability/test_fuzz_files.py",),
    ),
    Tooth(
        name="computed",
        promise="nor does what a column is computed by",
        file="memstore/database/inspect.py",
        old="if any(hidden for _, hidden in there):",
        new="if False:",
        tests=("tests/reliability/test_fuzz_files.py",),
    ),
    Tooth(
        name="owned",
        promise="what has no key for an owner keeps nothing else from being checked",
        file="memstore/repository/sqlite_only/integrity.py",
        old='func.typeof(assembly_vector.c.assembly_pk) == "integer"',
        new="assembly_vector.c.assembly_pk.is_not(None)",
        tests=("tests/reliability/test_fuzz_files.py",),
    ),
    Tooth(
        name="ages",
        promise="a time beyond all years is damage that verify names",
        file="memstore/repository/sqlite_only/integrity.py",
        old='        with expect_stored(f"{kind}.updated_at"):\n',
        new="        if True:\n",
        tests=("tests/reliability/test_fuzz_files.py",),
    ),
    Tooth(
        name="unbounded",
        promise="a message shows no more than the beginning of a value",
        file="memstore/cli/jsonl.py",
        old="got {short_repr(namespace)}",
        new="got {namespace!r}",
        tests=("tests/cli/test_fuzz_commands.py",),
    ),
    Tooth(
        name="unlisted",
        promise="members that are no texts are the store's to refuse",
        file="memstore/cli/import_export.py",
        old="members += len(given) if isinstance(given, list) else 0",
        new="members += len(given)",
        tests=("tests/cli/test_fuzz_commands.py",),
    ),
    Tooth(
        name="fallback",
        promise="an answer of the graph that is short under a filter is found exactly",
        file="memstore/index/hybrid.py",
        old="missing = [i for i, result in enumerate(results) if result is None]",
        new="missing, results = [], [a or SearchResult(np.empty(0, dtype=np.int64), np.empty(0), 0) for a in results]",
        tests=("tests/index/test_graph.py",),
    ),
    Tooth(
        name="moved",
        promise="no transaction is committed to a file that is not at its path any more",
        file="memstore/database/writer.py",
        old="self._file.check()  # a transaction of a user's may have taken long",
        new="pass",
        tests=("tests/database/test_file_identity.py",),
    ),
    Tooth(
        name="spilled",
        promise="nor does a page of it reach the log",
        file="memstore/database/writer.py",
        old="self._file.check()  # before a page of it reaches a log that may be another file's by now",
        new="pass",
        tests=("tests/database/test_file_identity.py",),
    ),
    Tooth(
        name="unmoored",
        promise="nothing is written back into such a file",
        file="memstore/database/database.py",
        old="return self.file.in_place and commit.write_back",
        new="return commit.write_back",
        tests=("tests/database/test_file_identity.py",),
    ),
    Tooth(
        name="trusted",
        promise="a vector that is not what was written is in no index",
        file="memstore/sync/loader.py",
        old="is_intact(blob, crc) and ",
        new="",
        tests=(
            "tests/reliability/test_damaged_vectors.py",
            "tests/reliability/test_corruption.py",
        ),
    ),
    Tooth(
        name="blended",
        promise="nor in a composite",
        file="memstore/sync/composites.py",
        old="if not is_intact(blob, written):",
        new="if False:",
        tests=("tests/reliability/test_damaged_vectors.py",),
    ),
    Tooth(
        name="summed",
        promise="a damaged sum is not added to",
        file="memstore/sync/composites.py",
        old="return mean if (None if vector is None else encode(vector)) == stored.vector else None",
        new="return mean",
        tests=("tests/reliability/test_damaged_vectors.py",),
    ),
    Tooth(
        name="vectorless",
        promise="what has no vector is found by nobody",
        file="memstore/api/collection.py",
        old=" or any(self._vector_of(record) is None for record in records.values())",
        new="",
        tests=("tests/reliability/test_damaged_files.py",),
    ),
    Tooth(
        name="emptied",
        promise="a file that was emptied under its log is not made anew",
        file="memstore/database/inspect.py",
        old="        _must_have_no_log(path)\n",
        new="",
        tests=("tests/reliability/test_damaged_files.py",),
    ),
    Tooth(
        name="epoch",
        promise="an index of another epoch is built anew",
        file="memstore/sync/index_set.py",
        old="return self.applied == state.top and self.epoch == state.epoch",
        new="return self.applied == state.top",
        tests=("tests/reliability/test_processes.py",),
    ),
    Tooth(
        name="floor",
        promise="an index behind the trimmed log is built anew",
        file="memstore/sync/index_set.py",
        old="self.epoch == state.epoch and state.floor <= self.applied <= state.top",
        new="self.epoch == state.epoch and self.applied <= state.top",
        tests=("tests/reliability/test_processes.py",),
    ),
    Tooth(
        name="apply",
        promise="the index has followed a commit before the caller is answered",
        file="memstore/database/writer.py",
        old="        self.committed(connection)\n",
        new="",
        tests=("tests/reliability/test_kills.py",),
    ),
    Tooth(
        name="sync",
        promise="a commit under durability full outlives a power cut",
        file="memstore/database/engine.py",
        old='"full": "FULL"',
        new='"full": "OFF"',
        tests=("tests/reliability/test_power_loss.py",),
    ),
    Tooth(
        name="settle",
        promise="what became of a COMMIT that raised is found out by committing another",
        file="memstore/database/transactions.py",
        old="        if not _settle(base, token, error):\n",
        new="        if True:\n",
        tests=("tests/reliability/test_faults.py",),
    ),
)


def broken(tooth: Tooth, folder: Path) -> None:
    """Make a copy of the code in *folder*, with the promise of *tooth* broken."""
    for name in _COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    code = (folder / tooth.file).read_text(encoding="utf-8")
    if code.count(tooth.old) != 1:
        raise SystemExit(f"{tooth.name}: {tooth.old!r} stands {code.count(tooth.old)} times in {tooth.file}, not once")
    (folder / tooth.file).write_text(code.replace(tooth.old, tooth.new), encoding="utf-8")


def bites(tooth: Tooth) -> bool:
    """Whether the tests of *tooth* go red."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        broken(tooth, folder)
        command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider", *tooth.tests]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    red = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if done.returncode == _RED:
        print(f"{tooth.name}: red, as it must be: {red[0] if red else ''}")
        return True
    print(f"{tooth.name}: NOT NOTICED (pytest ended with {done.returncode}): {tooth.promise}\n{done.stdout[-2_000:]}")
    return False


def main(names: Sequence[str]) -> int:
    """Break what is named, or everything; 1 when something was not noticed."""
    unknown = set(names) - {tooth.name for tooth in TEETH}
    if unknown:
        print(f"no such tooth: {', '.join(sorted(unknown))}; there are {', '.join(tooth.name for tooth in TEETH)}")
        return 2
    noticed = [bites(tooth) for tooth in TEETH if not names or tooth.name in names]
    return 0 if all(noticed) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
