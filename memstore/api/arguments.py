"""Arguments that verbs of several nouns have: their types, their checks, and texts turned into vectors."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from memstore.errors import InvalidError, short_repr
from memstore.filters import Where
from memstore.models.records import EmbeddingLike
from memstore.repository.context import WriteContext
from memstore.validation.merge_patch import Patch

OnDuplicate = Literal["raise", "skip", "replace"]
Changes = Callable[[WriteContext], tuple[Mapping[str, object], Patch | None]]
"""Checks the fields of an update, and gives them with the patch of the metadata."""

Query = str | EmbeddingLike
Queries = Sequence[Query] | np.ndarray[Any, np.dtype[Any]]


class SearchOptions(NamedTuple):
    """The optional arguments of a search, unchecked."""

    tags: Iterable[str]
    where: Where | None
    min_score: float | None
    recursive: bool
    offset: int = 0
    embeddings: bool = True


def check_changes(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """The *arguments* of update_many, of which there is one at least, else `InvalidError`."""
    if not arguments:
        raise InvalidError("Invalid call: update_many takes at least one field to change, such as importance=")
    return arguments


def check_on_duplicate(value: object) -> OnDuplicate:
    """*value* as what happens to an item whose id exists, else `InvalidError`."""
    if value != "raise" and value != "skip" and value != "replace":
        raise InvalidError(f"Invalid on_duplicate: expected 'raise', 'skip' or 'replace', found {short_repr(value)}")
    return value
