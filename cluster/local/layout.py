"""Where a run keeps what it writes, and which ports belong to what no user calls."""

import os
from pathlib import Path
from typing import Final

from cluster.versions import ROOT

COMPONENTS: Final = ROOT / "components"
STATE: Final = Path(os.environ.get("DACA_LOCAL") or ROOT / ".local").absolute()
"""Deleting the folder makes the next run start anew."""
LOGS: Final = STATE / "log"
DATA: Final = STATE / "redis"
"""The conversations; they outlive a run."""
REMINDERS: Final = STATE / "scheduler"
SIDECARS: Final = STATE / "sidecars"
"""The folder that the sidecars run in: their paths are relative to it."""
SECRETS: Final = SIDECARS / "components" / "secrets.json"
"""Where components/secretstore.yaml says that it is."""

LOOPBACK: Final = "127.0.0.1"

# These two are the ones that components/ and `dapr run` take for granted.
REDIS_PORT: Final = 6379
PLACEMENT_PORT: Final = 50005
SCHEDULER_PORT: Final = 50006
# Those of the Dapr CLI's containers, so that no other program is likely to have them.
PLACEMENT_HEALTH_PORT: Final = 58080
PLACEMENT_METRICS_PORT: Final = 59090
PLACEMENT_RAFT_PORT: Final = 58201
SCHEDULER_HEALTH_PORT: Final = 58081
SCHEDULER_METRICS_PORT: Final = 59091
SCHEDULER_ETCD_PORT: Final = 52379
SCHEDULER_PEER_PORT: Final = 52380
