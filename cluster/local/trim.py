"""What charts/daca has a container for: cuts from the event streams what their readers have acknowledged.

``python -m cluster.local.trim SECONDS HOST PORT STREAM ...`` does so again and again, with the chart's script.
"""

import socket
import sys
import time
from typing import Final

from cluster.versions import ROOT

SCRIPT: Final = ROOT / "charts" / "daca" / "files" / "redis" / "trim.lua"
ANSWER_SECONDS: Final = 5.0


def trim(host: str, port: int, streams: list[str]) -> str:
    """Runs the script once; Redis' answer, which is ``:`` and a number of entries where all is well.

    Raises:
        OSError: Redis does not answer.
    """
    words = [word.encode() for word in ("EVAL", SCRIPT.read_text(), str(len(streams)), *streams)]
    command = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
    with socket.create_connection((host, port), ANSWER_SECONDS) as connection, connection.makefile("rb") as answers:
        connection.sendall(command)
        return answers.readline().decode().strip()


def main(seconds: str, host: str, port: str, *streams: str) -> None:
    """Does so until it is ended; says what Redis says where that is no number."""
    while True:
        try:
            answer = trim(host, int(port), list(streams))
        except OSError as error:
            answer = str(error)
        if not answer.startswith(":"):
            print(f"not trimmed, to be tried again: {answer}", flush=True)
        time.sleep(float(seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])
