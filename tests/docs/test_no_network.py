"""The guard of `tests/guard` raises at every attempt to use a network, in this process and in children."""

import asyncio
import multiprocessing
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guard.sitecustomize import ALLOWED, NetworkForbidden

ATTEMPTS = {
    "a socket": lambda: socket.socket(),
    "a socket of version 6": lambda: socket.socket(socket.AF_INET6),
    "a connection": lambda: socket.create_connection(("127.0.0.1", 9)),
    "a name": lambda: socket.getaddrinfo("localhost", 80),
    "an old look-up": lambda: socket.gethostbyname("localhost"),
}
CHILD = "import socket; socket.getaddrinfo('localhost', 80)"


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)
def test_an_attempt_raises(attempt) -> None:
    with pytest.raises(NetworkForbidden):
        attempt()


@pytest.mark.parametrize("environment", [None, {"PATH": os.environ["PATH"]}, {**os.environ, "PYTHONPATH": "elsewhere"}])
async def test_an_attempt_of_a_child_raises(environment) -> None:
    done = subprocess.run([sys.executable, "-c", CHILD], env=environment, capture_output=True, text=True, check=False)
    assert "NetworkForbidden" in done.stderr
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, env=environment, stderr=asyncio.subprocess.PIPE
    )
    assert b"NetworkForbidden" in (await child.communicate())[1]


async def test_a_bare_socket_of_a_module_that_nobody_called_raises() -> None:
    line = [sys.executable, "-c", "import _socket; _socket.socket(_socket.AF_INET)"]
    assert "NetworkForbidden" in subprocess.run(line, capture_output=True, text=True, check=False).stderr


def attempt() -> None:
    try:
        socket.socket()
    except BaseException as error:  # the child has a class of its own
        sys.exit(5 if type(error).__name__ == NetworkForbidden.__name__ else 6)


@pytest.mark.parametrize("method", sorted({"spawn", "forkserver"} & set(multiprocessing.get_all_start_methods())))
def test_an_attempt_of_a_multiprocessing_child_raises(method: str) -> None:
    child = multiprocessing.get_context(method).Process(target=attempt)
    child.start()
    child.join(60)
    assert child.exitcode == 5


@pytest.mark.network(reason="the exemption is what is tested; nothing is sent")
def test_a_test_that_is_marked_may() -> None:
    socket.socket().close()
    assert subprocess.run([sys.executable, "-c", "import socket; socket.socket()"], check=False).returncode == 0
    assert os.environ[ALLOWED] == "allowed"


def test_only_the_tests_that_install_packages_are_exempt() -> None:
    marked = {file.name for file in Path(__file__).parents[1].rglob("test_*.py") if "mark.network(" in file.read_text()}
    assert marked == {"test_no_network.py", "test_packaging.py"}
