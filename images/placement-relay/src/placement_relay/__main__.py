"""``python -m placement_relay --listen 127.0.0.1:50005 --placement dapr-placement-server.dapr-system.svc:50005``."""

import argparse
import os
import signal
import socket
import sys
from types import FrameType

from placement_relay.address import Address
from placement_relay.dialer import Dialer
from placement_relay.relay import Relay, say


def main() -> int:
    """Relays until it is asked to go."""
    options = _options()
    # Glibc's own five seconds for a name server that does not answer, twice, are a pause of their own.
    os.environ.setdefault("RES_OPTIONS", "timeout:1 attempts:2")
    # As a container's first process it would get no signal that it does not handle.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    listen: Address = options.listen
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    try:
        listener = socket.create_server(listen, family=family)
    except OSError as error:
        say("error", f"can't listen at {listen}", error=str(error))
        return 1
    say("info", "listening", listen=str(listen), placement=str(options.placement))
    Relay(Dialer(options.placement, options.connect_timeout_ms / 1000)).serve(listener)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="placement-relay", description=__doc__, allow_abbrev=False)
    parser.add_argument("--listen", type=_address, required=True, help="where the sidecar connects to, host:port")
    parser.add_argument("--placement", type=_address, required=True, help="Dapr's placement service, host:port")
    parser.add_argument("--connect-timeout-ms", type=_milliseconds, default=500, help="for one address; 500")
    return parser.parse_args()


def _address(text: str) -> Address:
    try:
        return Address.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _milliseconds(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of milliseconds above 0")
    return int(text)


def _leave(number: int, _frame: FrameType | None) -> None:
    say("info", f"{signal.Signals(number).name}: leaving")
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
