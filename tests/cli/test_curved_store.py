"""The commands on a hyperbolic store."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from memstore.cli.app import app
from tests.support.spaces import score


def test_the_commands_make_show_export_and_import_a_curved_store(tmp_path: Path) -> None:
    first, second, lines = tmp_path / "a.db", tmp_path / "b.db", tmp_path / "a.jsonl"

    def ok(*arguments: object) -> str:
        done = CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "120"})
        assert done.exit_code == 0, (done.output, done.exception)
        return done.stdout

    curved = ("--metric", "hyperbolic", "--curvature", "0.25")
    ok("add", "far out", "--id", "far", "-e", "[1.5, 0]", *curved, "-f", first)
    ok("add", "the origin", "--id", "near", "-e", "[0, 0]", "-f", first)
    for output in (ok("stats", "-f", first), ok("verify", first)):
        assert "dimension 2, metric hyperbolic, curvature -0.25" in output
    assert json.loads(ok("stats", "--json", "-f", first))["curvature"] == 0.25
    ok("export", lines, "-f", first)
    assert json.loads(lines.read_text().splitlines()[0])["curvature"] == 0.25
    ok("import", lines, "-f", second)
    for file in (first, second):
        (hit, _) = (json.loads(line) for line in ok("search", "-e", "[1.4, 0]", "--json", "-f", file).splitlines())
        assert hit["score"] == pytest.approx(score("hyperbolic", np.array([1.4, 0]), np.array([1.5, 0]), 0.25))
    refused = CliRunner().invoke(app, ["import", str(lines), "--curvature", "1", "-f", str(second)])
    assert refused.exit_code == 1
    assert "curvature" in refused.stderr
