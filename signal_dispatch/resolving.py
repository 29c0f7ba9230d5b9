"""Look up the addresses of a host, and wait for them no longer than there is time."""

import os
import socket
import threading
from typing import Any, Final

from urllib3.util import connection

from signal_dispatch.starting import start_thread

#: How many look-ups of this process may be under way, the ones that hang included.
MOST_UNDER_WAY = 32

#: A family of addresses, and an address of it with the port, as ``socket.connect`` takes it.
Address = tuple[int, tuple[Any, ...]]

# By process, for a child of a fork has none of its parent's threads. Nothing is locked, so that
# nothing can stay locked in a child: each step is one operation on a dict.
_under_way: "Final[dict[tuple[int, str, int], _LookUp]]" = {}


def literal(host: str, port: int) -> list[Address]:
    """Read a host that is an IP address, in any spelling that the system takes; else ``[]``."""
    try:
        return _ask(host, port, socket.AF_UNSPEC, socket.AI_NUMERICHOST)
    except socket.gaierror:
        return []


def resolve(host: str, port: int, seconds: float) -> list[Address]:
    """Return the addresses of a host, in the system's order; raises ``socket.gaierror``.

    The system's resolver can't be interrupted. So it works in a thread of its own, which is left
    alone when the time is over: it ends when the resolver gives up, by default after half a
    minute or more. One look-up serves all who ask for the same host meanwhile. Beyond
    ``MOST_UNDER_WAY`` of them a name fails at once, a good one too. Where no thread can be had
    any more, as at the end of a process, the caller waits for as long as the resolver takes.
    """
    return literal(host, port) or _look_up(host, port).wait(seconds)


def _look_up(host: str, port: int) -> "_LookUp":
    process = os.getpid()
    key = (process, host, port)
    known = _under_way.get(key)
    if known is not None:
        return known
    if sum(owner == process for owner, _host, _port in list(_under_way)) >= MOST_UNDER_WAY:
        detail = f"{MOST_UNDER_WAY} other look-ups are under way, and none of them ends"
        raise socket.gaierror(socket.EAI_AGAIN, detail)
    mine = _LookUp()
    taken = _under_way.setdefault(key, mine)
    if taken is mine:
        thread = threading.Thread(
            target=mine.run, args=(key,), name="signal_dispatch-resolver", daemon=True
        )
        if not start_thread(thread):
            mine.run(key)
    return taken


class _LookUp:
    """A look-up that is under way, for all who wait for it."""

    def __init__(self) -> None:
        self._done = threading.Event()
        self._addresses: list[Address] = []
        self._error = (socket.EAI_FAIL, "")

    def run(self, key: tuple[int, str, int]) -> None:
        """Ask the system; what came of it is for those who wait, and not kept for later."""
        _process, host, port = key
        try:
            # urllib3's own choice of a family is kept: sites switch IPv6 off there.
            self._addresses = _ask(host, port, connection.allowed_gai_family())
        except socket.gaierror as error:
            self._error = (error.errno or socket.EAI_FAIL, error.strerror or str(error))
        except Exception as error:  # noqa: BLE001 - it would end a thread that nobody watches
            self._error = (socket.EAI_FAIL, type(error).__name__)
        finally:
            _under_way.pop(key, None)
            self._done.set()

    def wait(self, seconds: float) -> list[Address]:
        """Return the addresses; raises ``socket.gaierror``, also when the time is over."""
        if not self._done.wait(min(seconds, threading.TIMEOUT_MAX)):
            raise socket.gaierror(socket.EAI_AGAIN, f"no answer within {seconds:.1f} s")
        if not self._addresses:
            raise socket.gaierror(*self._error)
        return self._addresses


def _ask(host: str, port: int, family: int, flags: int = 0) -> list[Address]:
    name = host.strip("[]")
    try:
        # As the socket module does; asked first, for gevent prints what its threads raise.
        name.encode("idna")
    except UnicodeError:  # a label is empty, or longer than 63 characters
        raise socket.gaierror(socket.EAI_NONAME, "no such name can exist") from None
    found = socket.getaddrinfo(name, port, family, socket.SOCK_STREAM, 0, flags)
    return [(int(one), address) for one, _type, _protocol, _name, address in found]
