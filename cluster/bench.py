"""`make bench` and what is like it, and `make capacity`: programs of load-tests, in the place of this process."""

import os
import shlex
import sys
from typing import Final, NoReturn

from cluster.errors import CommandError
from cluster.versions import ROOT

COMMANDS: Final = {
    "bench": "bench",
    "bench-activations": "bench.activations",
    "bench-long": "bench.long",
    "bench-capacity": "capacity.measure",
    "capacity": "capacity",
}
"""Name -> module below load-tests."""


def bench(command: str, options: str, cluster: str, namespace: str) -> NoReturn:
    """Becomes one of them, so that a signal is for it; ``options`` as on its command line.

    Raises:
        CommandError: a quote is not closed.
    """
    try:
        words = shlex.split(options)
    except ValueError as error:
        raise CommandError(f"BENCH_OPTIONS={options}: {error}", exit_code=2) from error
    path = os.pathsep.join(map(str, (ROOT / "load-tests", ROOT)))
    where = {"PYTHONPATH": path, "CLUSTER": cluster, "NAMESPACE": namespace}
    os.execve(sys.executable, [sys.executable, "-m", COMMANDS[command], *words], os.environ | where)  # noqa: S606
