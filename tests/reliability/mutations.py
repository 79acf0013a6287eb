"""Mutation tests: each mutation breaks one promise in a copy of the code, and its tests must fail.

`python -m tests.reliability.mutations` applies one mutation after the other and prints the test that fails; with names,
only those. The exit status is 1 if the tests of a mutation pass.
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
_TESTS_FAILED = 1  # the exit status of pytest; any other means that the tests could not be run


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """A change of the code that breaks a promise, and the tests that must fail then.

    *file*, relative to the root, contains *old* exactly once. *tests* are arguments of pytest.
    """

    promise: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTATIONS: dict[str, Mutation] = {
    "erased_memberships": Mutation(
        promise="The history of an assembly names no erased member.",
        file="memstore/repository/history_erasure.py",
        old="return count + _erase_memberships(connection, partner_type(record_type), frozenset(keys))",
        new="return count",
        tests=("tests/history/test_erase.py",),
    ),
    "erased_archives": Mutation(
        promise="Erasing reaches the trash, and the memberships that it stores.",
        file="memstore/repository/erasure.py",
        old="archived = tombstones.erase(connection, record_type, erased)",
        new="archived = 0",
        tests=("tests/history/test_erase.py",),
    ),
    "secure_compact": Mutation(
        promise="A secure compact leaves no byte of erased records in the file.",
        file="memstore/maintenance/compact.py",
        old="if secure or base.execute",
        new="if base.execute",
        tests=("tests/history/test_erase.py",),
    ),
    "expired_content": Mutation(
        promise="The history has no values of an expired memory.",
        file="memstore/repository/history_writer.py",
        old="    delete_changes(connection, record_type, keys)\n    for chunk",
        new="    for chunk",
        tests=("tests/history/test_history.py",),
    ),
    "clock_breaks": Mutation(
        promise="A read as of a time is right though the clock went back.",
        file="memstore/repository/context.py",
        old="self.retention = history_retention.add_break(connection, self.retention, number + 1)",
        new="pass",
        tests=("tests/history/test_clock.py",),
    ),
    "retention_under_a_wrong_clock": Mutation(
        promise="One write under a clock that is ahead deletes no history.",
        file="memstore/repository/history_retention.py",
        old="return (min(now, last) if type(last) is int else now) - self.keep * 1_000_000",
        new="return now - self.keep * 1_000_000",
        tests=("tests/history/test_clock.py",),
    ),
    "hyperbolic_rounding": Mutation(
        promise="Exact search in hyperbolic space is exact up to the edge of the ball.",
        file="memstore/index/hyperbolic.py",
        old="relative_error = (dimension + 8) * float(np.finfo(np.float32).eps)",
        new="relative_error = 0.0",
        tests=("tests/api/test_spaces.py",),
    ),
    "einstein_midpoint": Mutation(
        promise="A composite in hyperbolic space is the Einstein midpoint.",
        file="memstore/vectors/mean.py",
        old="weights = (2.0 - gaps) / gaps",
        new="weights = 1.0 / gaps",
        tests=("tests/api/test_spaces.py", "tests/api/test_assemblies.py"),
    ),
    "cancelled_open": Mutation(
        promise="A cancelled open closes what it opened.",
        file="memstore/api/open.py",
        old="await wait_to_end(asyncio.ensure_future(database.close()))",
        new="await database.close()",
        tests=("tests/api/test_cancellation.py",),
    ),
    "backup_interrupt": Mutation(
        promise="A backup stops at the first Ctrl-C.",
        file="memstore/maintenance/backup.py",
        old="            stop.check()\n            report(done, total)",
        new="            report(done, total)",
        tests=("tests/reliability/test_interruption.py",),
    ),
    "partial_backup": Mutation(
        promise="A stopped backup leaves no part of the copy.",
        file="memstore/database/backup_copy.py",
        old="Path(path).unlink(missing_ok=True)",
        new="pass",
        tests=("tests/reliability/test_interruption.py",),
    ),
    "unclosed_store": Mutation(
        promise="A store that is open at the end of the interpreter gives a warning.",
        file="memstore/database/database.py",
        old="@atexit.register\n",
        new="",
        tests=("tests/reliability/test_interruption.py",),
    ),
    "absent_members": Mutation(
        promise="An import of a folder names every member that it leaves out.",
        file="memstore/importers/folder.py",
        old='remarks.add("left_out", "member", "the memory does not exist", id=id)',
        new="pass",
        tests=("tests/cli/test_import_folder.py",),
    ),
    "escaped_html": Mutation(
        promise="Nothing in a record becomes part of the page of the map.",
        file="memstore/visualize/page.py",
        old="html.escape(data.title)",
        new="data.title",
        tests=("tests/visualize/test_map.py",),
    ),
    "replaced_trigger": Mutation(
        promise="A trigger in place of memstore's own never runs.",
        file="memstore/database/inspect.py",
        old="if declared != sql and (declared or recursive_view or _EXPRESSION.search(str(sql))):",
        new="if False:",
        tests=("tests/reliability/test_fuzz_files.py",),
    ),
    "computed_column": Mutation(
        promise="The expression of a computed column never runs.",
        file="memstore/database/inspect.py",
        old="if any(hidden for _, hidden in stored):",
        new="if False:",
        tests=("tests/reliability/test_fuzz_files.py",),
    ),
    "invalid_owner_key": Mutation(
        promise="A row with an invalid owner key keeps no other row from being checked.",
        file="memstore/repository/sqlite_only/integrity.py",
        old='func.typeof(assembly_vector.c.assembly_pk) == "integer"',
        new="assembly_vector.c.assembly_pk.is_not(None)",
        tests=("tests/reliability/test_fuzz_files.py",),
    ),
    "time_out_of_range": Mutation(
        promise="verify names a time that no datetime can hold.",
        file="memstore/repository/sqlite_only/integrity.py",
        old='.where(text(column_rules.is_valid_sql(t.kind, "updated_at")))',
        new="",
        tests=("tests/reliability/test_fuzz_files.py",),
    ),
    "short_messages": Mutation(
        promise="A message shows only the beginning of a long value.",
        file="memstore/cli/jsonl.py",
        old="got {short_repr(namespace)}.",
        new="got {namespace!r}.",
        tests=("tests/cli/test_fuzz_commands.py",),
    ),
    "member_type": Mutation(
        promise="The store refuses members that are not text.",
        file="memstore/cli/import_export.py",
        old="member_count += len(members) if isinstance(members, list) else 0",
        new="member_count += len(members)",
        tests=("tests/cli/test_fuzz_commands.py",),
    ),
    "exact_fallback": Mutation(
        promise="A graph search that finds too few hits under a filter is repeated exactly.",
        file="memstore/index/hybrid.py",
        old="missing = [i for i, result in enumerate(results) if result is None]",
        new="none = np.empty(0)\n        "
        "missing, results = [], [a or SearchResult(none.astype(np.int64), none, none, 0) for a in results]",
        tests=("tests/index/test_graph.py",),
    ),
    "moved_file_commit": Mutation(
        promise="No transaction is committed to a file that is no longer at its path.",
        file="memstore/database/writer.py",
        old="self._file.check()  # a user's transaction may have taken long",
        new="pass",
        tests=("tests/database/test_file_identity.py",),
    ),
    "moved_file_log": Mutation(
        promise="No page is written to the log of a file that is no longer at its path.",
        file="memstore/database/writer.py",
        old="self._file.check()  # before a page of it reaches a log that may belong to another file now",
        new="pass",
        tests=("tests/database/test_file_identity.py",),
    ),
    "moved_file_checkpoint": Mutation(
        promise="No checkpoint writes to a file that is no longer at its path.",
        file="memstore/database/database.py",
        old="return self.file.in_place and write_back",
        new="return write_back",
        tests=("tests/database/test_file_identity.py",),
    ),
    "index_checksum": Mutation(
        promise="A vector with a wrong checksum is in no index.",
        file="memstore/sync/loader.py",
        old="is_intact(blob, crc) and ",
        new="",
        tests=(
            "tests/reliability/test_damaged_vectors.py",
            "tests/reliability/test_corruption.py",
        ),
    ),
    "composite_checksum": Mutation(
        promise="A vector with a wrong checksum is in no composite.",
        file="memstore/sync/composites.py",
        old="if not is_intact(blob, stored_checksum):",
        new="if False:",
        tests=("tests/reliability/test_damaged_vectors.py",),
    ),
    "damaged_sum": Mutation(
        promise="A damaged sum is recomputed, not added to.",
        file="memstore/sync/composites.py",
        old="return mean if (None if vector is None else encode(vector)) == composite.vector else None",
        new="return mean",
        tests=("tests/reliability/test_damaged_vectors.py",),
    ),
    "missing_vector": Mutation(
        promise="A record without a vector is in no search result.",
        file="memstore/search/query.py",
        old="if len(records) < len(keys) or not complete:",
        new="if len(records) < len(keys):",
        tests=("tests/reliability/test_damaged_files.py",),
    ),
    "emptied_file": Mutation(
        promise="An empty file with a log beside it is not made a new store.",
        file="memstore/database/inspect.py",
        old="        _check_no_log(path)\n",
        new="",
        tests=("tests/reliability/test_damaged_files.py",),
    ),
    "index_epoch": Mutation(
        promise="An index of another epoch is rebuilt.",
        file="memstore/sync/index_set.py",
        old="return self.applied == state.top and self.epoch == state.epoch",
        new="return self.applied == state.top",
        tests=("tests/database/test_restore.py",),
    ),
    "trimmed_log": Mutation(
        promise="An index behind the trimmed change log is rebuilt.",
        file="memstore/sync/index_set.py",
        old="return state.floor <= self.applied <= state.top",
        new="return self.applied <= state.top",
        tests=("tests/reliability/test_processes.py",),
    ),
    "index_follows": Mutation(
        promise="The index has followed a commit before the caller gets the result.",
        file="memstore/database/writer.py",
        old="            callback(connection)\n",
        new="            pass\n",
        tests=("tests/reliability/test_kills.py",),
    ),
    "full_durability": Mutation(
        promise='A commit with durability "full" survives a power cut.',
        file="memstore/database/engine.py",
        old='"full": "FULL"',
        new='"full": "OFF"',
        tests=("tests/reliability/test_power_loss.py",),
    ),
    "unknown_commit": Mutation(
        promise="The outcome of a COMMIT that raised is found out by another commit.",
        file="memstore/database/transactions.py",
        old="        if not _settle(base, token, error):\n",
        new="        if True:\n",
        tests=("tests/reliability/test_faults.py",),
    ),
}


def apply(mutation: Mutation, folder: Path) -> None:
    """Copy the code to *folder*, and apply *mutation* there."""
    for name in _COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    code = (folder / mutation.file).read_text(encoding="utf-8")
    if (count := code.count(mutation.old)) != 1:
        raise SystemExit(f"{mutation.file} contains {mutation.old!r} {count} times, expected once")
    (folder / mutation.file).write_text(code.replace(mutation.old, mutation.new), encoding="utf-8")


def is_noticed(name: str) -> bool:
    """Whether a test of this mutation fails."""
    mutation = MUTATIONS[name]
    with tempfile.TemporaryDirectory() as folder:
        apply(mutation, Path(folder))
        # One process: with several, pytest reports a stop at the first failure as an interruption.
        options = ("-q", "-x", "-n", "0", "--no-header", "-p", "no:cacheprovider")
        command = [sys.executable, "-m", "pytest", *options, *mutation.tests]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    failures = [line for line in result.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if result.returncode == _TESTS_FAILED:
        print(f"{name}: noticed: {failures[0] if failures else ''}")
        return True
    print(f"{name}: NOT NOTICED, pytest exited with {result.returncode}: {mutation.promise}")
    print(result.stdout[-2_000:])
    return False


def main(names: Sequence[str]) -> int:
    """Apply the named mutations, or all; return 1 if one was not noticed."""
    if unknown := set(names) - MUTATIONS.keys():
        print(f"no such mutation: {', '.join(sorted(unknown))}")
        print(f"mutations: {', '.join(MUTATIONS)}")
        return 2
    noticed = [is_noticed(name) for name in names or MUTATIONS]
    return 0 if all(noticed) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
