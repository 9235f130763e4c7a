"""Addresses as they are written: ``host:port``."""

from typing import NamedTuple


class Address(NamedTuple):
    """A host, by name or number, and a TCP port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Reads ``host:port`` or ``[IPv6]:port``.

        Raises:
            ValueError: it is neither; the message says what was wrong.
        """
        host, _, port = text.rpartition(":")
        if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
            raise ValueError(f"{text!r} does not end with a port, as in placement.example:50005")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError(f"{text!r}: an IPv6 address stands in brackets, as in [::1]:50005")
        if not host or host != host.strip():
            raise ValueError(f"{text!r} names no host, as in placement.example:50005")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
