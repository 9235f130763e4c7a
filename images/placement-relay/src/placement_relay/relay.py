"""The relay: a connection at this end for each at the other."""

import json
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Final

from placement_relay.address import Address
from placement_relay.dialer import Dialer

GIVE_UP_SECONDS: Final = 20.0
"""gRPC's own time-out for a connection, which a sidecar has: after it nobody waits at this end."""

CONNECTIONS: Final = 32
"""A sidecar uses one at a time, and leaves those open whose stream a follower has refused: the oldest is closed."""

CHUNK: Final = 65536


class Relay:
    """Takes connections, and joins each with one to the placement service.

    The sidecar's is taken at once, whether or not placement answers: an address that has gone would hold it for gRPC's
    20 s (Dapr 1.18, pkg/actors/internal/placement), and no actor can be looked up meanwhile.
    """

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer
        self._open: deque[socket.socket] = deque()

    def serve(self, listener: socket.socket) -> None:
        """Serves the connections of ``listener`` until it is closed."""
        while True:
            try:
                client, _ = listener.accept()
            except ConnectionError:  # it hung up before it was taken
                continue
            except OSError:
                return
            self._open.append(client)
            if len(self._open) > CONNECTIONS:
                _shut(self._open[0])
            threading.Thread(target=self._join, args=(client,), daemon=True).start()

    def _join(self, client: socket.socket) -> None:
        begun = time.monotonic()
        with client:
            try:
                server = self._dialer.dial(GIVE_UP_SECONDS)
            except OSError as error:
                placement = str(self._dialer.placement)
                say("error", f"none has answered for {GIVE_UP_SECONDS:.0f} s", placement=placement, error=str(error))
            else:
                with server:
                    self._relay(client, server, time.monotonic() - begun)
            self._open.remove(client)

    def _relay(self, client: socket.socket, server: socket.socket, took: float) -> None:
        with suppress(OSError):  # it has gone again
            say("info", "connected", placement=str(Address(*server.getpeername()[:2])), seconds=round(took, 2))
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = threading.Thread(target=_copy, args=(server, client), daemon=True)
        back.start()
        _copy(client, server)
        back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Copies until one of the two ends, and ends both: gRPC keeps no connection that is half open."""
    with suppress(OSError):
        while data := source.recv(CHUNK):
            target.sendall(data)
    _shut(source)
    _shut(target)


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def say(level: str, message: str, **more: object) -> None:
    """Logs a line as the services do. By itself: `logging` takes longer to load than all of the relay."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    line = {"time": now, "level": level.upper(), "logger": "placement-relay", "message": message, **more}
    print(json.dumps(line), flush=True)
