"""The language reference that every Python carries, as memories and assemblies: what the demo stores."""

import re
from dataclasses import dataclass
from pydoc_data.topics import topics
from typing import Any

from memstore.cli.chunking import Passage, of_reference

SOURCE = "pydoc_data.topics"
"""What `metadata.source` is of everything that the demo stores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Items for `store.load` and for `assemblies.add_many`.

    A passage that stands under several topics is one memory, tagged with each and a member of each one's assembly.
    """

    memories: list[dict[str, Any]]
    assemblies: list[dict[str, Any]]


def reference() -> Reference:
    """The whole of it. Short topics come first, so that a passage is named after the topic that is most about it."""
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
