"""The commands on a hyperbolic store."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.commands import fails, lines, ok
from tests.support.spaces import score


def test_commands_create_show_export_and_import_a_hyperbolic_store(tmp_path: Path) -> None:
    first, second, exported = tmp_path / "a.db", tmp_path / "b.db", tmp_path / "a.jsonl"
    curved = ("--metric", "hyperbolic", "--curvature", "0.25")
    ok(first, "add 'far out' --id far -e '[1.5, 0]'", *curved)
    ok(first, "add 'the origin' --id near -e '[0, 0]'")
    for command in ("stats", "verify"):
        assert "dimension 2, metric hyperbolic, curvature -0.25" in ok(first, command)
    assert lines(first, "stats --json")[0]["curvature"] == 0.25
    ok(first, "export", exported)
    assert json.loads(exported.read_text().splitlines()[0])["curvature"] == 0.25
    ok(second, "import", exported)
    for file in (first, second):
        hit, _ = lines(file, "search -e '[1.4, 0]' --json")
        assert hit["score"] == pytest.approx(score("hyperbolic", np.array([1.4, 0]), np.array([1.5, 0]), 0.25))
    assert "curvature" in fails(second, "import", exported, "--curvature", "1")
