"""Damage at every kind of place in a file. `MEMSTORE_MUTATIONS` sets the number of files."""

from pathlib import Path

import pytest

from tests.reliability import cases, seeds
from tests.reliability.corruption import corrupted

MUTATIONS = cases("MUTATIONS", 60)


@pytest.mark.timeout(15 * MUTATIONS)
@pytest.mark.parametrize("seed", seeds(1, 2))
def test_damage_is_found_or_does_no_harm_and_crashes_nothing(tmp_path: Path, seed: int) -> None:
    tally = corrupted(MUTATIONS, seed, tmp_path)
    print(f"seed {seed}", *tally.lines(), sep="\n")  # noqa: T201
    assert not tally.failures, "\n".join(tally.failures)
    assert tally.mutations == MUTATIONS
    assert {"b-tree page", "header", "length", "log", "snapshot", "stored vector", "text", "whole file"} <= set(
        tally.outcomes
    )


def test_vectors_without_checked_checksums_are_found(tmp_path: Path) -> None:
    tally = corrupted(20, 1, tmp_path, trusting=True)
    assert any("has a vector that nobody stored" in failure for failure in tally.failures)
