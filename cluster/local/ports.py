"""Ports that somebody else has."""

import errno
import socket
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

import psutil

ADDRESSES: Final = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
"""Of this machine, by both names: what answers at ``localhost`` should be ours."""
CONNECT_SECONDS: Final = 0.5


def taken(ports: Iterable[int]) -> dict[int, str]:
    """Those of ``ports`` that are not free, and who has them."""
    return {port: _holder(port) for port in ports if any(_in_use(*address, port) for address in ADDRESSES)}


def told(found: Mapping[int, str], uses: Mapping[int, str]) -> str:
    """What :func:`taken` has found, in words; ``uses``: port -> what it is for."""
    held: defaultdict[str, list[str]] = defaultdict(list)
    for port, holder in found.items():
        held[holder].append(f"{port} ({uses[port]})")
    return "; ".join(
        f"port{'s' if len(of_one) > 1 else ''} {', '.join(of_one)}: taken by {holder}"
        for holder, of_one in held.items()
    )


def _in_use(family: int, address: str, port: int) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As servers do it: what a closed connection leaves behind is no hindrance.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
        # On macOS an address can be bound that somebody has by listening on all of them.
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.settimeout(CONNECT_SECONDS)
            # A port that is free may be the one this probe is sent from, and then it meets itself.
            return probe.connect_ex((address, port)) == 0 and probe.getsockname() != probe.getpeername()
    except OSError as error:
        return error.errno == errno.EADDRINUSE


def _holder(port: int) -> str:
    for pid in _pids(port):
        try:
            return f"{psutil.Process(pid).name()} (process {pid})"
        except psutil.Error:  # it has ended meanwhile, or is not ours to look at
            return f"process {pid}"
    return "a process of another user"


def _pids(port: int) -> list[int]:
    """The processes that have a TCP socket at ``port``, those that listen first."""
    found: list[tuple[Any, int | None]] = []
    try:
        found.extend((one, one.pid) for one in psutil.net_connections("tcp"))
    except psutil.AccessDenied:  # macOS shows root those of all, and others their own
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                found.extend((one, process.pid) for one in process.net_connections("tcp"))
    at = [(one, pid) for one, pid in found if pid and one.laddr and one.laddr.port == port]
    return [pid for _, pid in sorted(at, key=lambda item: item[0].status != psutil.CONN_LISTEN)]
