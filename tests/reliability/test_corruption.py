"""Damage in every kind of place in a file. The long form is `python -m tests.reliability.corruption`."""

from pathlib import Path

import pytest

from tests.reliability.corruption import corrupted

SEED = 1


@pytest.mark.timeout(900)
def test_damage_is_found_or_does_no_harm_and_crashes_nothing(tmp_path: Path) -> None:
    tally = corrupted(150, SEED, tmp_path)
    print(f"seed {SEED}", *tally.lines(), sep="\n")  # noqa: T201 - what a failure is read with
    assert not tally.failures, "\n".join(tally.failures)
    assert tally.mutations == 150
    assert {"b-tree page", "header", "length", "log", "snapshot", "stored vector", "text", "whole file"} <= set(
        tally.outcomes
    )


def test_vectors_that_were_trusted_would_be_found_out(tmp_path: Path) -> None:
    tally = corrupted(20, SEED, tmp_path, trusting=True)
    assert any("has a vector that nobody stored" in failure for failure in tally.failures)
