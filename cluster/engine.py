"""Clusters that run in a Docker or Podman engine: kind and minikube."""

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from cluster import binaries
from cluster.actions import Action
from cluster.errors import CommandError
from cluster.shell import run
from cluster.versions import ROOT, VERSIONS

ENGINES: Final = ("docker", "podman")
NAME: Final = "daca"
"""Of the cluster, so that it is nobody else's."""
LOCAL_REPOSITORY: Final = "localhost/daca"
"""Of images that are loaded into a cluster. Nobody can publish under that name: no pull gets somebody else's image."""
CONFIG: Final = ROOT / "cluster" / "kind.yaml"
CPUS: Final = 4
MEMORY: Final = "6g"


def answering_engine() -> str | None:
    """``docker`` or ``podman``, if such an engine answers; an installed client alone does not count."""
    for engine in ENGINES:
        if shutil.which(engine):
            with suppress(CommandError):
                run([engine, "info"], timeout_seconds=15)
                return engine
    return None


class EngineCluster(ABC):
    """One cluster in an engine. What it can do is :class:`Action` lists: they are run, or printed."""

    name: str
    """As CLUSTER names it."""
    context: str
    """Its context in the user's kubeconfig."""

    def __init__(self, engine: str) -> None:
        """``engine`` is ``docker`` or ``podman``."""
        self.engine = engine

    @abstractmethod
    def exists(self) -> bool:
        """Whether the cluster is there, running or not."""

    @abstractmethod
    def create(self) -> list[Action]:
        """Makes the cluster."""

    @abstractmethod
    def start(self) -> list[Action]:
        """Starts a cluster that exists, after a reboot for one."""

    @abstractmethod
    def delete(self) -> list[Action]:
        """Removes the cluster and all that is in it."""

    def load(self, references: Mapping[str, str]) -> list[Action]:
        """Puts images of the engine where the cluster finds them; ``references`` by image."""
        actions = []
        for image, reference in references.items():
            archive = None
            if self.engine != "docker":  # kind and minikube ask an engine for images through Docker's API only
                archive = ROOT / ".kube" / f"{image}.tar"
                # Podman refuses to write into a file that is there, of an `up` before this one.
                actions.append(Action(f"no older {archive.name} is there", ("rm", "-f", archive)))
                save = (self.engine, "save", "--quiet", "--output", archive, reference)
                actions.append(Action(f"{reference} is in a file", save))
            actions.append(self._load(reference, archive))
        return actions

    @abstractmethod
    def _load(self, reference: str, archive: Path | None) -> Action:
        """Loads an image of Docker's by its name, or any out of ``archive``."""


class Kind(EngineCluster):
    """https://kind.sigs.k8s.io: every node is a container. cluster/kind.yaml says how it is made."""

    name = "kind"
    context = f"kind-{NAME}"

    def exists(self) -> bool:
        """As ``kind get clusters`` has it."""
        return NAME in self._kind("the kind clusters are known", "get", "clusters").take().split()

    def create(self) -> list[Action]:
        """Makes it as cluster/kind.yaml says, and waits until its node is Ready."""
        return [self._kind("a kind cluster runs", "create", "cluster", "--config", CONFIG, "--wait", "3m")]

    def start(self) -> list[Action]:
        """Starts its containers, those that do not run."""
        nodes = self._kind("its nodes are known", "get", "nodes", "--name", NAME).take().split()
        return [Action("the kind cluster runs", (self.engine, "start", *nodes))]

    def delete(self) -> list[Action]:
        """Removes its containers and its context."""
        return [self._kind("the kind cluster is gone", "delete", "cluster", "--name", NAME)]

    def _load(self, reference: str, archive: Path | None) -> Action:
        source = ("image-archive", archive) if archive else ("docker-image", reference)
        return self._kind(f"{reference} is in the cluster", "load", *source, "--name", NAME)

    def _kind(self, state: str, *arguments: str | Path) -> Action:
        # Of itself kind takes Docker as soon as its client is installed.
        env = {"KIND_EXPERIMENTAL_PROVIDER": self.engine} if self.engine != "docker" else {}
        return Action(state, ("kind", *arguments), env)


class Minikube(EngineCluster):
    """https://minikube.sigs.k8s.io: a profile of its own. Its driver is what minikube or MINIKUBE_DRIVER chooses."""

    name = "minikube"
    context = NAME

    def exists(self) -> bool:
        """As ``minikube profile list`` has it."""
        try:
            profiles = json.loads(run([binaries.program("minikube"), "profile", "list", "--output", "json"]))
        except CommandError:  # it fails when there is none at all
            return False
        return NAME in {profile["Name"] for profile in profiles.get("valid") or []}

    def create(self) -> list[Action]:
        """Makes it with what the system needs of CPU and memory, and waits until it works."""
        version = f"--kubernetes-version={VERSIONS['KUBERNETES_VERSION']}"
        return [self._minikube("a minikube cluster runs", "start", version, f"--cpus={CPUS}", f"--memory={MEMORY}")]

    def start(self) -> list[Action]:
        """Starts it as it was made."""
        return [self._minikube("the minikube cluster runs", "start")]

    def delete(self) -> list[Action]:
        """Removes its machine or containers, and its context."""
        return [self._minikube("the minikube cluster is gone", "delete")]

    def _load(self, reference: str, archive: Path | None) -> Action:
        return self._minikube(f"{reference} is in the cluster", "image", "load", archive or reference)

    def _minikube(self, state: str, *arguments: str | Path) -> Action:
        return Action(state, ("minikube", "--profile", NAME, *arguments))


ENGINE_CLUSTERS: Final[Mapping[str, type[EngineCluster]]] = {cluster.name: cluster for cluster in (Kind, Minikube)}
