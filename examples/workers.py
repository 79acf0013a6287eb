"""Forked and spawned workers on one file: each process opens its own store.

python examples/workers.py [FILE]
"""

import asyncio
import multiprocessing
import os
import sys

import memstore


async def add_memory(path: str, text: str) -> None:
    async with memstore.open(path) as store:
        await store.memories.add(text, embedding=[len(text), 1, 0])


def work(path: str, text: str) -> None:
    """Add one memory in a worker."""
    asyncio.run(add_memory(path, text))


def start_workers(path: str) -> None:
    """Start one worker by each start method of multiprocessing."""
    for method in sorted({"fork", "spawn"} & set(multiprocessing.get_all_start_methods())):
        worker = multiprocessing.get_context(method).Process(target=work, args=(path, f"from a worker by {method}"))
        worker.start()
        worker.join()
        assert worker.exitcode == 0


def serve(path: str, workers: int = 2) -> None:
    """Run a pre-fork server: it reads shared data before the fork and opens the store after it."""
    greeting = "from a pre-forked worker"
    children = []
    for number in range(workers):
        pid = os.fork()
        if pid == 0:
            work(path, f"{greeting}, {number}")
            os._exit(0)
        children.append(pid)
    for pid in children:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


async def show(path: str) -> None:
    async with memstore.open(path) as store:
        async for memory in store.memories.list(order="content"):
            print(memory.content)
        print("check:", await store.check() or "clean")


def main(path: str) -> None:
    with asyncio.Runner() as runner:
        store = runner.run(memstore.open(path, dimension=3).__aenter__())
        runner.run(store.memories.add("from the parent", embedding=[1, 0, 0]))
        start_workers(path)  # the parent has the file open and no transaction
        runner.run(store.close())
    if hasattr(os, "fork"):
        serve(path)
    asyncio.run(show(path))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "workers.db")
