"""Damage at every kind of place in a file. The long form is `python -m tests.reliability.corruption`."""

from pathlib import Path

import pytest

from tests.reliability.corruption import corrupted

MUTATIONS = 60


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, 2])
def test_damage_is_found_or_does_no_harm_and_crashes_nothing(tmp_path: Path, seed: int) -> None:
    tally = corrupted(MUTATIONS, seed, tmp_path)
    print(f"seed {seed}", *tally.lines(), sep="\n")  # noqa: T201 - shown when the test fails
    assert not tally.failures, "\n".join(tally.failures)
    assert tally.mutations == MUTATIONS
    assert {"b-tree page", "header", "length", "log", "snapshot", "stored vector", "text", "whole file"} <= set(
        tally.outcomes
    )


def test_vectors_that_were_trusted_would_be_found_out(tmp_path: Path) -> None:
    tally = corrupted(20, 1, tmp_path, trusting=True)
    assert any("has a vector that nobody stored" in failure for failure in tally.failures)
