"""Flat options of the index in tests, as the one argument that `memstore.open` takes."""

from collections.abc import Mapping
from typing import Any

from memstore import IndexOptions

NAMES = ("index", "engine", "vector_type", "graph")


def with_index(options: Mapping[str, Any]) -> dict[str, Any]:
    """*options* with the flat options of the index, if there are any, as one `IndexOptions`."""
    flat = {("kind" if name == "index" else name): options[name] for name in NAMES if name in options}
    rest = {name: value for name, value in options.items() if name not in NAMES}
    return {**rest, "index": IndexOptions(**flat)} if flat else rest
