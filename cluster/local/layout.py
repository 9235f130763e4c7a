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

# Where components/ expects it, and where `dapr init` has its own.
REDIS_PORT: Final = 6379
# Below 32768: from there up, Linux hands ports to whatever connects somewhere, and one of those could be ours just now.
PLACEMENT_PORT: Final = 6050
PLACEMENT_HEALTH_PORT: Final = 6051
PLACEMENT_METRICS_PORT: Final = 6052
PLACEMENT_RAFT_PORT: Final = 6053
PLACEMENT_RELAY_PORT: Final = 6054
SCHEDULER_PORT: Final = 6060
SCHEDULER_HEALTH_PORT: Final = 6061
SCHEDULER_METRICS_PORT: Final = 6062
SCHEDULER_ETCD_PORT: Final = 6063
SCHEDULER_PEER_PORT: Final = 6064
