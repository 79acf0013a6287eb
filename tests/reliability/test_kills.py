"""kill -9 at random times. `MEMSTORE_KILLS` sets their number."""

import signal
from pathlib import Path

import pytest

from tests.reliability import cases, seeds
from tests.reliability.kills import killed

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")

KILLS = cases("KILLS", 50)


@pytest.mark.timeout(18 * KILLS)
@pytest.mark.parametrize("seed", seeds(1, 2))
def test_kills_lose_nothing_that_was_acknowledged(tmp_path: Path, seed: int) -> None:
    tally = killed(KILLS, seed, tmp_path)
    print(f"seed {seed}", *tally.lines(), sep="\n")  # noqa: T201
    assert tally.kills.total() == KILLS
    caught = ("while opening", "between operations", "in a write", "in a transaction", "backup whole")
    assert all(tally.caught[what] for what in caught), tally.caught
    assert tally.caught["a migration, at 0001"] + tally.caught["a migration, at 0002"] >= 1


@pytest.mark.parametrize(
    ("broken", "message"),
    [("following", "the index is at change"), ("rollback", "too many|different"), ("savepoint", "1 too many .*half")],
)
def test_missing_step_of_a_write_is_found(tmp_path: Path, broken: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        killed(40, 1, tmp_path, broken=broken)
