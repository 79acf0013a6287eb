"""A namespace as one text that sorts before the namespaces below it."""

from functools import lru_cache

from memstore.models.records import Namespace


def namespace_path(namespace: Namespace) -> str:
    """A namespace as one text: parts escaped as in JSON Pointer (RFC 6901), each closed by `/`.

    Everything below `path` is then the key range from `path` to `below_end(path)`.
    """
    return "".join(part.replace("~", "~0").replace("/", "~1") + "/" for part in namespace)


@lru_cache(maxsize=256)
def namespace_parts(path: str) -> Namespace:
    """The namespace that `namespace_path` made *path* of."""
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[:-1])


def below_end(path: str) -> str | None:
    """The first path after everything below *path*; None for the root, after which there is nothing."""
    return path[:-1] + "0" if path else None  # "0" is the character after "/"
