"""What `tests.reliability.mutations` would break is there to be broken, and the tests that are to notice exist."""

import pytest

from tests.reliability.mutations import ROOT, TEETH, Tooth, broken


@pytest.mark.parametrize("tooth", TEETH, ids=lambda tooth: tooth.name)
def test_every_tooth_fits_the_code(tooth: Tooth) -> None:
    code = (ROOT / tooth.file).read_text(encoding="utf-8")
    assert code.count(tooth.old) == 1
    compile(code.replace(tooth.old, tooth.new), tooth.file, "exec")
    assert all((ROOT / test.partition("::")[0]).is_file() for test in tooth.tests)


def test_a_tooth_that_no_longer_fits_is_said(tmp_path) -> None:
    gone = Tooth(name="gone", promise="", file="memstore/errors.py", old="no such line", new="", tests=())
    with pytest.raises(SystemExit, match="stands 0 times"):
        broken(gone, tmp_path)
