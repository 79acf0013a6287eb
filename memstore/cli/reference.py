"""Python's language reference, which the standard library contains, as memories and assemblies of the demo."""

import re
from dataclasses import dataclass
from pydoc_data.topics import topics
from typing import Any

from memstore.cli.chunking import Passage, of_reference

SOURCE = "pydoc_data.topics"
"""The value of `metadata.source` of every record of the demo."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The items for `store.load` and for `assemblies.add_many`.

    A passage that belongs to several topics is one memory, with a tag for each and a member of each one's assembly.
    """

    memories: list[dict[str, Any]]
    assemblies: list[dict[str, Any]]


def load_reference() -> Reference:
    """The whole reference. Short topics come first, so that a shared passage gets its id from the most specific one."""
    by_text: dict[str, dict[str, Any]] = {}
    assemblies = []
    for topic, text in sorted(topics.items(), key=lambda item: (len(item[1]), item[0])):
        members, sections, title = [], [], topic
        for part, passage in enumerate(of_reference(text), 1):
            title, section = passage.headings[0], " › ".join(passage.headings[1:])
            memory = by_text.setdefault(passage.text, _memory(topic, part, passage))
            memory["tags"] |= {f"topic:{topic}"} | ({f"section:{_slug(passage.headings[-1])}"} if section else set())
            members.append(memory["id"])
            sections.append(section)
        assemblies.append(
            {
                "id": topic,
                "name": title.replace('"', ""),
                "members": members,
                "tags": {"reference"},
                "topics": [topic, *dict.fromkeys(section for section in sections if section)],
                "metadata": {"source": SOURCE},
            }
        )
    return Reference(memories=list(by_text.values()), assemblies=assemblies)


def _memory(topic: str, part: int, passage: Passage) -> dict[str, Any]:
    return {
        "id": f"{topic}/{part}",
        "content": passage.text,
        "tags": set(),
        "metadata": {"source": SOURCE, "topic": topic, "part": part, "headings": list(passage.headings)},
    }


def _slug(heading: str) -> str:
    return re.sub(r"\W+", "-", heading.lower()).strip("-")
