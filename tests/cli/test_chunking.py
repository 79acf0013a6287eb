"""Passages carry the headings above them, and no word is lost between two passages."""

import pytest

from memstore.cli import chunking
from memstore.cli.chunking import LONGEST, Passage


def words(text: str) -> list[str]:
    return [word for word in text.split() if word.strip("#=")]


def test_no_word_is_lost_and_a_code_block_that_fits_stays_whole() -> None:
    paragraphs = [f"Sentence {i} says this and that. " * (i % 12 + 1) for i in range(60)]
    code = "```python\n" + "\n\n".join(f"x{i} = {i}" for i in range(100)) + "\n```"
    top, bottom = "\n\n".join(paragraphs[:30]), "\n\n".join(paragraphs[30:])
    text = f"# Top\n\n{top}\n\n{code}\n\n## Next\n\n{bottom}"
    passages = list(chunking.of_markdown(text))
    body = words(f"{top} {code} {bottom}")
    assert words(" ".join(passage.text for passage in passages)) == body
    assert sum(code in passage.text for passage in passages) == 1
    assert {passage.headings for passage in passages} == {("Top",), ("Top", "Next")}
    assert all(len(passage.text) <= LONGEST for passage in passages)


def test_headings_of_markdown_are_the_open_sections() -> None:
    text = (
        "before\r\n\r\n# A\r\n\r\na\u2028\x0c\n\n### B\n\nb\n\nC\n---\n\n> # quoted\n\n"
        "```\n# code\n```\n\nD\n===\nd\n# empty\n"
    )
    assert list(chunking.of_markdown(text)) == [
        Passage(headings=(), text="before"),
        Passage(headings=("A",), text="a"),
        Passage(headings=("A", "B"), text="b"),
        Passage(headings=("A", "C"), text="> # quoted\n\n```\n# code\n```"),
        Passage(headings=("D",), text="d"),
    ]


def test_headings_of_the_reference_are_underlined() -> None:
    text = 'The "x"\n*******\n\n# no heading\n\nCode\n====\n\n   x = 1\n   y\n\nThe "y"\n*******\n\nlast\n'
    assert list(chunking.of_reference(text)) == [
        Passage(headings=('The "x"',), text="# no heading"),
        Passage(headings=('The "x"', "Code"), text="   x = 1\n   y"),
        Passage(headings=('The "y"',), text="last"),
    ]


@pytest.mark.parametrize(
    "text", ["word " * 3000, "x" * 5000, "A sentence. " * 900, "日本。" * 2000], ids=lambda text: text[:9]
)
def test_a_long_paragraph_is_split_without_loss(text: str) -> None:
    passages = list(chunking.of_text(text))
    assert "".join("".join(passage.text for passage in passages).split()) == "".join(text.split())
    assert len(passages) > 3
    assert all(len(passage.text) <= LONGEST for passage in passages)
