"""No test, and no Python process that a test starts, uses a network: the attempt raises.

`tests/conftest.py` imports this, and has every child process import it, as Python does with a module of this name.
Sockets between processes of one machine that have no address (asyncio's own) are none of a network.
"""

import _socket
import os
import sys

ALLOWED = "MEMSTORE_TESTS_NETWORK"
"""Set to `allowed` for tests marked `network`."""

_INTERNET = {_socket.AF_INET, getattr(_socket, "AF_INET6", _socket.AF_INET)}
_LOOKUPS = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"}


_INSTALLED = sys.modules.get("sitecustomize")
"""This module if Python loaded it at the start of the process; None otherwise."""

if getattr(_INSTALLED, "ALLOWED", None) == ALLOWED and __name__ != "sitecustomize":
    NetworkForbidden: type[BaseException] = _INSTALLED.NetworkForbidden
else:

    class NetworkForbidden(BaseException):  # type: ignore[no-redef]
        """The process tried to use a network."""


def _look(event: str, arguments: tuple[object, ...]) -> None:
    if event not in _LOOKUPS and not (event == "socket.__new__" and arguments[1] in _INTERNET and not _probe()):
        return
    if os.environ.get(ALLOWED) != "allowed":
        raise NetworkForbidden(f"{event} {arguments[1:] if event == 'socket.__new__' else arguments}")


def _probe() -> bool:
    """Whether the caller is urllib3, which wordllama imports, testing for IPv6 support: it sends nothing."""
    caller = sys._getframe(2).f_back  # under `_look` and `socket.__init__`
    return caller is not None and (caller.f_globals.get("__name__"), caller.f_code.co_name) == (
        "urllib3.util.connection",
        "_has_ipv6",
    )


if NetworkForbidden.__module__ == __name__ and hasattr(_socket, "AF_UNIX"):  # without, asyncio needs an address
    sys.addaudithook(_look)
