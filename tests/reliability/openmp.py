"""OpenMP runtimes beside FAISS: every order of loading them, each in a new process.

    python -m tests.reliability.openmp --work FOLDER [--python PYTHON]

With a PYTHON that has torch, scikit-learn, intel-openmp and cmeel-libomp every combination is tried; missing packages
are listed.
The exit status is 1 if a process fails only with memstore.
"""

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE = 120.0
ABSENT = 77
"""The exit code of a process that lacks the other library."""

OTHERS = {
    "nothing": "def load():\n    return lambda: None\n",
    "torch": """
def load():
    torch = found("torch")
    torch.set_num_threads(2)
    return lambda: torch.randn(400, 400).matmul(torch.randn(400, 400)).exp().sum().item()
""",
    "scikit-learn": """
def load():
    cluster = found("sklearn.cluster")
    rows = numpy.random.default_rng(1).standard_normal((3_000, 16))
    return lambda: cluster.KMeans(4, n_init=1).fit(rows)
""",
    "Intel": "def load():\n    return runtime('libiomp5.so', 'lib')\n",
    "LLVM": "def load():\n    return runtime('libomp.so', 'cmeel.prefix/lib')\n",
    "Intel and LLVM": """
def load():
    first, second = runtime("libiomp5.so", "lib"), runtime("libomp.so", "cmeel.prefix/lib")
    return lambda: (first(), second())
""",
}
"""Code that loads another runtime: `load()` returns a function that uses it."""

PREAMBLE = """
import asyncio, ctypes, glob, importlib, json, os, sys
import numpy, memstore
from memstore.index.openmp import openmp_runtimes

def found(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        sys.exit(77)

def runtime(name, folder):
    places = [f"{sys.prefix}/{folder}/{name}", *(f"{place}/{folder}/{name}" for place in sys.path)]
    there = [place for place in places if os.path.exists(place)]
    if not there:
        sys.exit(77)
    library = ctypes.CDLL(there[0])
    body = ctypes.CFUNCTYPE(None, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))(lambda *_: None)
    def use():  # a parallel region as a compiler emits it
        library.omp_set_num_threads(2)
        library.__kmpc_fork_call(ctypes.byref(IDENT), 0, body)
        assert library.omp_get_max_threads() == 2
    return use

class Ident(ctypes.Structure):
    _fields_ = [*((f"n{i}", ctypes.c_int) for i in range(4)), ("source", ctypes.c_char_p)]

IDENT = Ident(0, 2, 0, 0, b";tests;openmp;1;1;;")
ROWS = numpy.random.default_rng(5).standard_normal((6_000, 32)).astype("float32")

async def search(path):
    async with memstore.open(path, dimension=32, index=memstore.IndexOptions(engine="faiss")) as store:
        if not await store.memories.count():
            await store.load({"content": "x", "id": str(i), "embedding": row} for i, row in enumerate(ROWS))
        hits = await store.memories.search(ROWS[17], limit=1)
        assert (hits.plan.engine, hits[0].memory.id) == ("faiss", "17")

def store():
    asyncio.run(search(sys.argv[1]))

def forked():
    pid = os.fork()
    if pid == 0:
        store()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""

ORDERS = {
    "the other alone": "use = load(); use(); use()",
    "the other first": "use = load(); use(); store(); use(); store()",
    "loaded first, used after": "use = load(); store(); use(); store(); use()",
    "the store first": "store(); use = load(); use(); store(); use()",
    "a fork between": "use = load(); use(); store(); forked(); use(); store(); forked()",
}


@dataclass(frozen=True, slots=True)
class EndOfProcess:
    """The end of a process: a word, its last error message, and its runtimes."""

    how: str
    message: str
    runtimes: list[str]


def run(other: str, order: str, python: str, path: Path) -> EndOfProcess:
    """Run one order with one *other* runtime in a new process."""
    code = "\n".join([PREAMBLE, OTHERS[other], ORDERS[order], "print(*openmp_runtimes(), sep='\\n')"])
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "KMP_"))}
    environment |= {"PYTHONPATH": str(ROOT)}
    try:
        line = [python, "-c", code, str(path)]
        process = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return EndOfProcess("hangs", "", [])
    if process.returncode == ABSENT:
        return EndOfProcess("not installed", "", [])
    last = (process.stderr.strip().splitlines() or [""])[-1]
    errors = [line for line in process.stderr.splitlines() if "OMP: Error" in line]
    how = "well" if process.returncode == 0 else f"signal {-process.returncode}" if process.returncode < 0 else "error"
    return EndOfProcess(how, (errors or [last])[0] if how != "well" else "", process.stdout.split())


def main() -> int:
    """Run all combinations and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--work", type=Path, required=True, help="an empty folder for the stores")
    options = parser.parse_args()
    bad = 0
    print("| beside FAISS | order | ends | runtimes in the process |\n|---|---|---|---|")
    for other in OTHERS:
        alone = "well"
        for order in ORDERS:
            file = options.work / f"{other}-{order}.db".replace(" ", "-")
            outcome = run(other, order, options.python, file)
            if order == "the other alone":
                alone = outcome.how
            bad += outcome.how not in ("well", "not installed") and alone == "well"
            names = ", ".join(Path(path).name for path in outcome.runtimes)
            print(
                f"| {other} | {order} | {outcome.how}{': ' * bool(outcome.message)}{outcome.message} | {names} |",
                flush=True,
            )
    print(f"\n{bad} failed only with memstore")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
