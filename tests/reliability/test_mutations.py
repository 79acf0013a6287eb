"""Every mutation fits the code: the code that it replaces is there, and its tests exist."""

from pathlib import Path

import pytest

from tests.reliability.mutations import MUTATIONS, ROOT, Mutation, apply


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS)
def test_every_mutation_fits_the_code(mutation: Mutation) -> None:
    code = (ROOT / mutation.file).read_text(encoding="utf-8")
    assert code.count(mutation.old) == 1
    compile(code.replace(mutation.old, mutation.new), mutation.file, "exec")
    assert all((ROOT / test.partition("::")[0]).is_file() for test in mutation.tests)


def test_a_mutation_that_does_not_fit_the_code_is_an_error(tmp_path: Path) -> None:
    mutation = Mutation(promise="", file="memstore/errors.py", old="no such line", new="", tests=())
    with pytest.raises(SystemExit, match="contains 'no such line' 0 times"):
        apply(mutation, tmp_path)
