"""kill -9 at random times. The long form is `python -m tests.reliability.kills`."""

import signal
from pathlib import Path

import pytest

from tests.reliability.kills import killed

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="nothing kills like SIGKILL on this system")

KILLS = 50


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_acknowledged_is_lost_by_kills(tmp_path: Path, seed: int) -> None:
    tally = killed(KILLS, seed, tmp_path)
    print(f"seed {seed}", *tally.lines(), sep="\n")  # noqa: T201 - shown when the test fails
    assert tally.kills.total() == KILLS
    caught = ("while opening", "between operations", "in a write", "in a transaction", "backup whole")
    assert all(tally.caught[what] for what in caught), tally.caught
    assert tally.caught["a migration, at 0001"] + tally.caught["a migration, at 0002"] >= 1


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("following", "the index is at change"),
        ("rollback", "too many|different"),
        ("savepoint", "1 too many .*half"),
    ],
)
def test_what_the_library_did_without_would_be_found(tmp_path: Path, broken: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        killed(40, 1, tmp_path, broken=broken)
