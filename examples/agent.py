"""An agent with a memory: it stores sentences by subject and answers questions from them.

    python examples/agent.py [FILE]

Uses the embedder of `memstore[wordllama]` if it is installed, else a test embedder without a model.
"""

import asyncio
import sys

import memstore

try:
    from memstore.embedders.wordllama import WordLlamaEmbedder as Embedder
except ImportError:
    from memstore.testing import HashEmbedder as Embedder

SENTENCES = {
    "drinks": ["I prefer green tea in the morning", "Coffee keeps me awake at night", "Water with lemon after a run"],
    "travel": ["I take the night train to Vienna", "Flying makes my ears hurt", "My bicycle is in the cellar"],
}


async def main(path: str) -> None:
    async with memstore.open(path, embedder=Embedder()) as store:
        for subject, sentences in SENTENCES.items():
            async with store.transaction() as tx:  # a subject is stored completely or not at all
                memories = await tx.memories.add_many(
                    [{"content": text, "tags": {subject}, "metadata": {"speaker": "Ada"}} for text in sentences]
                )
                await tx.assemblies.upsert(subject, name=subject.title(), members=[m.id for m in memories])

        for question in ("what does Ada like to drink?", "how does she get to another city by train?"):
            print(question)
            hits = await store.memories.search(question, limit=2, where={"metadata.speaker": "Ada"})
            for hit in hits:
                print(f"  {hit.score:5.2f}  {hit.memory.content}")
            await store.memories.touch([hit.memory.id for hit in hits])
            best = (await store.assemblies.search(question, limit=1))[0]
            print(f"  subject: {best.assembly.name} ({best.score:.2f})")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "agent.db"))
