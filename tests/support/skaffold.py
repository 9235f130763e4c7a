"""Skaffold as a user runs it: the project's own binaries in PATH, and a home without settings of anybody."""

import json
import os
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster import binaries
from cluster.cache import CACHE

CONFIG = "global: {collect-metrics: false, survey: {disable-prompt: true}}\n"


class Skaffold:
    """Runs Skaffold in a folder, with a kubeconfig."""

    def __init__(self, folder: Path, home: Path, kubeconfig: Path, **environment: str) -> None:
        (home / ".skaffold").mkdir(parents=True)
        (home / ".skaffold" / "config").write_text(CONFIG)
        tools = [binaries.skaffold().parent, binaries.helm3().parent]
        if binaries.KUBERNETES.built:  # else there is no bare node, and nobody who asks kubectl
            tools.append(binaries.kubectl().parent)
        settings = {name: value for name, value in os.environ.items() if not name.startswith("SKAFFOLD_")}
        self.folder = folder
        self.kubeconfig = kubeconfig
        self.env = settings | {
            "PATH": os.pathsep.join([*map(str, tools), os.environ["PATH"]]),
            "HOME": str(home),
            "DACA_CACHE": str(CACHE),
            "KUBECONFIG": str(kubeconfig),
            "SKAFFOLD_UPDATE_CHECK": "false",
            "SKAFFOLD_INTERACTIVE": "false",
            **environment,
        }

    def run(self, *arguments: str | Path, folder: str = ".", **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs a command of Skaffold to its end."""
        return subprocess.run(
            ["skaffold", *arguments],
            cwd=self.folder / folder,
            env=self.env | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    @contextmanager
    def start(self, *arguments: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
        """Starts a command of Skaffold that goes on until it is told to end; what it says goes to ``log``."""
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["skaffold", *arguments],
                cwd=self.folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def kubeconfig_of(path: Path, contexts: Iterable[str], current: str) -> Path:
    """Writes a kubeconfig whose clusters nobody can reach."""
    entries = list(contexts)
    clusters = [{"name": name, "cluster": {"server": "https://127.0.0.1:1"}} for name in entries]
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": clusters,
        "users": [{"name": "nobody", "user": {}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": "nobody"}} for name in entries],
        "current-context": current,
    }
    path.write_text(json.dumps(content))
    return path
