"""Serves Dapr's chart at the address of its repository while a command runs: `charts.py COMMAND...`; its exit code."""

import functools
import http.server
import os
import ssl
import subprocess
import sys
import threading
from pathlib import Path


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Says nothing of requests."""


def main() -> int:
    """Runs the command of the command line."""
    run = Path(os.environ["DACA_KIND_RUN"])
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 443), functools.partial(_Quiet, directory=str(run / "charts"))
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(run / "etc" / "charts.crt", run / "etc" / "charts.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return subprocess.run(sys.argv[1:], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
