"""What is left of a text in the file of a store and in the files beside it. Read after the store was closed."""

from pathlib import Path


def traces(path: Path, *texts: str | bytes) -> dict[str, list[str | bytes]]:
    """Those of *texts* that a file beginning with the name of *path* contains, by the file's name."""
    remaining: dict[str, list[str | bytes]] = {}
    for file in sorted(path.parent.glob(path.name + "*")):
        data = file.read_bytes()
        matches = [text for text in texts if (text.encode() if isinstance(text, str) else text) in data]
        if matches:
            remaining[file.name] = matches
    return remaining
