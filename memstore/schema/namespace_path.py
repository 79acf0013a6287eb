"""Namespaces as paths. A path sorts before the paths of the namespaces below it."""

from functools import lru_cache

from memstore.models.records import Namespace


@lru_cache(maxsize=256)
def namespace_path(namespace: Namespace) -> str:
    """The path of a namespace: its parts, escaped as in JSON Pointer (RFC 6901), each followed by `/`.

    The namespaces below `path` are the key range from `path` to `below_end(path)`.
    """
    return "".join(part.replace("~", "~0").replace("/", "~1") + "/" for part in namespace)


@lru_cache(maxsize=256)
def namespace_parts(path: str) -> Namespace:
    """The namespace of *path*: the inverse of `namespace_path`."""
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[:-1])


def below_end(path: str) -> str | None:
    """The end of the key range of *path*, exclusive; None for the root, whose range has no end."""
    return path[:-1] + "0" if path else None  # "0" is the character after "/"
