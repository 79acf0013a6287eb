"""Namespaces as text. Imports nothing of memstore's API."""

import json

NamespacePath = tuple[str, ...]


def format_namespace(namespace: NamespacePath) -> str:
    """The text that `--namespace` takes for *namespace*: `a/b`, or a JSON list if a name is empty or contains /."""
    plain = all(part and "/" not in part for part in namespace) and not "".join(namespace[:1]).startswith("[")
    return "/".join(namespace) if plain else json.dumps(list(namespace), ensure_ascii=False)
