"""``python -m bench.peers <name>``: serves one of them at 127.0.0.1, PORT."""

import os
import sys

import uvicorn

uvicorn.run(f"bench.peers.{sys.argv[1]}:app", host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")
