"""Two processes on one file: each finds at its next search what the other has committed.

python examples/processes.py [FILE]
"""

import asyncio
import sys
from asyncio.subprocess import PIPE

import memstore

WRITER = """
import asyncio, sys, memstore
async def main():
    async with memstore.open(sys.argv[1]) as store:
        for line in sys.stdin:
            memory = await store.memories.add(line.strip(), embedding=[len(line), 1, 0])
            print(memory.id, flush=True)
asyncio.run(main())
"""


async def main(path: str) -> None:
    async with memstore.open(path, dimension=3) as store:
        writer = await asyncio.create_subprocess_exec(sys.executable, "-c", WRITER, path, stdin=PIPE, stdout=PIPE)
        for text in ("the kettle", "the night train", "a bicycle in the cellar"):
            writer.stdin.write(f"{text}\n".encode())
            await writer.stdin.drain()
            stored = (await writer.stdout.readline()).decode().strip()
            hits = await store.memories.search([len(text) + 1, 1, 0], limit=1)
            print(f"the other process stored {stored}; found here at once: {hits[0].memory.content!r}")
        writer.stdin.close()
        await writer.wait()
        print("check:", await store.check() or "clean")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "processes.db"))
