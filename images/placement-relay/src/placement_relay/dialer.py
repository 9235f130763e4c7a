"""Finds a placement service that answers."""

import itertools
import socket
import sys
import time
from typing import Final

from placement_relay.address import Address

PAUSE_SECONDS: Final = 0.1
"""Between two rounds over all addresses."""

SILENCE_MS: Final = 3000
"""A connection is given up when what was sent is not acknowledged for so long: the other node is gone or cut off."""


class Dialer:
    """Connects to a placement service, each of its addresses in turn.

    Only the leader of several takes a sidecar's stream; a follower takes the connection, refuses the stream, and the
    sidecar connects again. So each connection goes to the address after that of the one before.
    """

    def __init__(self, placement: Address, connect_seconds: float) -> None:
        """``connect_seconds``: how long one address may take."""
        self.placement = placement
        self._connect_seconds = connect_seconds
        self._known: list[Address] = []
        self._turns = itertools.count()

    def dial(self, seconds: float) -> socket.socket:
        """Connects, and tries for so long.

        Raises:
            OSError: nothing has answered, or the name is not known; that of the last try.
        """
        end = time.monotonic() + seconds
        while True:
            try:
                return self._dial_each()
            except OSError:
                if time.monotonic() >= end:
                    raise
            time.sleep(PAUSE_SECONDS)

    def _dial_each(self) -> socket.socket:
        failed: OSError | None = None
        addresses = self._addresses()
        for _ in addresses:
            try:
                return self._connect(addresses[next(self._turns) % len(addresses)])
            except OSError as error:
                failed = error
        assert failed is not None, "a name that is known has an address"  # noqa: S101 - by getaddrinfo's contract
        raise failed

    def _addresses(self) -> list[Address]:
        """What the name stands for now; where the name server does not answer, what it stood for before."""
        host, port = self.placement
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except socket.gaierror:
            if not self._known:
                raise
        else:
            # In an order of its own: name servers shuffle, and then not each would have its turn.
            self._known = sorted({Address(str(sockaddr[0]), port) for *_, sockaddr in found})
        return self._known

    def _connect(self, address: Address) -> socket.socket:
        connection = socket.create_connection(address, self._connect_seconds)
        connection.settimeout(None)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if sys.platform == "linux":
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_MS)
        return connection
