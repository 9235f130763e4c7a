"""What is done to a container from its node: ``python -m actor_load.node_faults kill|freeze|cut-off CONTAINER_ID``.

It sees the processes of the node (``hostPID``) and ends by itself. What it changes is put back when it ends, also when
it is told to (SIGTERM). A packet filter is forgotten by the kernel in time even where this was killed.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

PROC: Final = Path("/proc")
TABLE: Final = "inet daca_fault"


def processes(container_id: str, proc: Path = PROC) -> list[int]:
    """Ids of a container's processes, the first that was started first: each names the container in its cgroup."""
    found = []
    for file in proc.glob("[0-9]*/cgroup"):
        with suppress(OSError):  # it has ended
            if container_id in file.read_text():
                found.append(int(file.parent.name))
    return sorted(found)


def packet_filter(port: int, seconds: int) -> str:
    """For `nft -f -`: drops what goes to a TCP port and what comes from it, but not within the pod, for so long."""
    return f"""
table {TABLE} {{
  set ports {{ type inet_service; flags timeout; elements = {{ {port} timeout {seconds}s }}; }}
  chain incoming {{ type filter hook input priority 0; iifname != "lo" tcp sport @ports drop; }}
  chain outgoing {{ type filter hook output priority 0; oifname != "lo" tcp dport @ports drop; }}
}}
"""


def kill(victims: Sequence[int]) -> None:
    """Kills processes at once."""
    _signal(victims, signal.SIGKILL)


def freeze(victims: Sequence[int], seconds: int) -> None:
    """Stops processes, and lets them go on after ``seconds``."""
    try:
        _signal(victims, signal.SIGSTOP)
        time.sleep(seconds)
    finally:
        _signal(victims, signal.SIGCONT)


def cut_off(victim: int, port: int, seconds: int) -> None:
    """Keeps a pod from a TCP port of others for ``seconds``; ``victim`` is one of the pod's processes."""
    # One of a run that was ended may be left.
    _nft(victim, f"add table {TABLE}\ndelete table {TABLE}\n{packet_filter(port, seconds)}")
    try:
        time.sleep(seconds)
    finally:
        _nft(victim, f"delete table {TABLE}")


def _nft(victim: int, commands: str) -> None:
    nft = ["nsenter", f"--net={PROC}/{victim}/ns/net", "--", "nft", "--file", "-"]
    done = subprocess.run(  # noqa: S603 - a container id and numbers
        nft, input=commands, text=True, capture_output=True, check=False
    )
    if done.returncode:
        sys.exit(f"nft: {done.stderr.strip()}")


def _signal(victims: Sequence[int], number: int) -> None:
    for victim in victims:
        with suppress(ProcessLookupError):
            os.kill(victim, number)


def main(arguments: Sequence[str] | None = None) -> None:
    """Does what the command line says; exits with a line that says why where it can't."""
    parser = argparse.ArgumentParser(prog="actor_load.node_faults")
    parser.add_argument("action", choices=["kill", "freeze", "cut-off"])
    parser.add_argument("container_id")
    parser.add_argument("--seconds", type=int, default=0)
    parser.add_argument("--port", type=int, default=0)
    asked = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _told_to_end)
    victims = processes(asked.container_id)
    if not victims:
        sys.exit(f"no process of container {asked.container_id} is to be seen on this node")
    if asked.action == "kill":
        kill(victims)
    elif asked.action == "freeze":
        freeze(victims, asked.seconds)
    else:
        cut_off(victims[0], asked.port, asked.seconds)


def _told_to_end(*_: Any) -> None:
    sys.exit("told to end")


if __name__ == "__main__":
    main()
