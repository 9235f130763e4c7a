"""Which cluster a command works on.

`up` chooses one and records it in ``.kube/cluster``; the other commands read that, so that `make chat` after
`make up CLUSTER=current` needs no settings again. ``CLUSTER`` and ``NAMESPACE`` win over the record.
"""

import json
import os
import platform
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Self

import kubernetes

from cluster import binaries
from cluster.engine import ENGINE_CLUSTERS, answering_engine
from cluster.errors import CommandError
from cluster.shell import run
from cluster.versions import ROOT

BARE_KUBECONFIG: Final = ROOT / ".kube" / "config"
RECORD: Final = ROOT / ".kube" / "cluster"
MADE: Final = ROOT / ".kube" / "made"
DEFAULT_NAMESPACE: Final = "daca"
CLUSTERS: Final = (*ENGINE_CLUSTERS, "bare", "current")


@dataclass(frozen=True)
class Target:
    """One namespace of one cluster, and how to reach it."""

    cluster: str
    """One of :data:`CLUSTERS`."""
    kubeconfig: str
    """As the variable KUBECONFIG takes it: a path, or several joined by ``:``."""
    context: str
    """The kubeconfig's context; it stays the same when the user switches to another one."""
    namespace: str = DEFAULT_NAMESPACE

    @classmethod
    def bare(cls, namespace: str) -> Self:
        """The bare node of this checkout; its kubeconfig has one context."""
        return cls("bare", str(BARE_KUBECONFIG), "", namespace)

    @classmethod
    def current(cls, namespace: str) -> Self:
        """The user's own cluster: the current context of their kubeconfig."""
        kubeconfig = _users_kubeconfig()
        try:
            _, context = kubernetes.config.list_kube_config_contexts(kubeconfig)  # type: ignore[no-untyped-call]
        except kubernetes.config.ConfigException as error:
            raise CommandError(
                f"CLUSTER=current needs a kubeconfig with a current context, and {kubeconfig} has none: "
                "set KUBECONFIG, or `kubectl config use-context <name>`"
            ) from error
        return cls("current", kubeconfig, str(context["name"]), namespace)

    @classmethod
    def in_engine(cls, cluster: str, namespace: str) -> Self:
        """``kind`` or ``minikube``, which write into the user's kubeconfig."""
        return cls(cluster, _users_kubeconfig(), ENGINE_CLUSTERS[cluster].context, namespace)

    def record(self) -> None:
        """Makes this the cluster that later commands work on."""
        RECORD.parent.mkdir(exist_ok=True)
        RECORD.write_text(json.dumps(asdict(self)) + "\n")

    def helm(self, *arguments: str | Path, timeout_seconds: float | None = None) -> str:
        """Runs helm on this cluster; its output."""
        return run(self.helm_command(*arguments), env=self.env(), timeout_seconds=timeout_seconds)

    def helm_command(self, *arguments: str | Path) -> list[str | Path]:
        """The command line of helm on this cluster."""
        helm = binaries.helm() if self.cluster == "bare" else binaries.program("helm")
        return [helm, *arguments, *(["--kube-context", self.context] if self.context else [])]

    def kubectl(self, *arguments: str | Path, timeout_seconds: float | None = None) -> str:
        """Runs kubectl on this cluster; its output."""
        return run(self.kubectl_command(*arguments), env=self.env(), timeout_seconds=timeout_seconds)

    def kubectl_command(self, *arguments: str | Path) -> list[str | Path]:
        """The command line of kubectl on this cluster."""
        kubectl = binaries.kubectl() if self.cluster == "bare" else binaries.program("kubectl")
        return [kubectl, *(["--context", self.context] if self.context else []), *arguments]

    def env(self) -> dict[str, str]:
        """The environment in which helm and kubectl reach this cluster."""
        return {**os.environ, "KUBECONFIG": self.kubeconfig}

    def typed(self, tool: str) -> str:
        """How a user types ``helm`` or ``kubectl`` for this cluster, for the hints that commands print."""
        command = self.helm_command() if tool == "helm" else self.kubectl_command()
        command = [tool if str(command[0]) == shutil.which(tool) else command[0], *command[1:]]
        words = " ".join(str(word) for word in command)
        return f"KUBECONFIG={self.kubeconfig} {words}" if self.cluster == "bare" else words


def chosen(requested: str, namespace: str) -> tuple[Target, str]:
    """The cluster that `up` works on, and why, in one line.

    ``requested`` is the value of CLUSTER, or empty: then the rule of docs/ decides.
    """
    namespace = namespace or DEFAULT_NAMESPACE
    if requested:
        return _named(requested, namespace), f"CLUSTER={requested} asks for it"
    engine = answering_engine()
    if engine:
        return Target.in_engine("kind", namespace), f"{engine} answers"
    if _is_root_on_linux():
        return Target.bare(namespace), "no Docker or Podman engine answers, and you are root on Linux"
    raise CommandError(
        "no Docker or Podman engine answers, and you are not root on Linux: start an engine, and kind will do; or type "
        "`make up CLUSTER=current IMAGE_REGISTRY=<registry>` for the cluster of your current context; or run `make up` "
        "as root on Linux for a single-machine Kubernetes",
        exit_code=2,
    )


def recorded(requested: str, namespace: str) -> Target:
    """The cluster that every command but `up` works on: ``requested``, or else the one that `up` made."""
    if requested:
        return _named(requested, namespace or DEFAULT_NAMESPACE)
    try:
        target = Target(**json.loads(RECORD.read_text()))
    except FileNotFoundError as error:
        raise CommandError("no cluster is up: `make up` starts one") from error
    except (ValueError, TypeError) as error:
        raise CommandError(f"{RECORD} is not what `make up` wrote: delete it, then `make up`") from error
    return replace(target, namespace=namespace or target.namespace)


def made() -> set[str]:
    """The clusters in an engine (``kind``, ``minikube``) that `up` made itself, so that `down` removes them."""
    return set(MADE.read_text().split()) if MADE.exists() else set()


def record_made(clusters: set[str]) -> None:
    """Writes what :func:`made` gives from now on."""
    if not clusters:
        MADE.unlink(missing_ok=True)
        return
    MADE.parent.mkdir(exist_ok=True)
    MADE.write_text(" ".join(sorted(clusters)) + "\n")


def _named(cluster: str, namespace: str) -> Target:
    if cluster == "bare":
        return Target.bare(namespace)
    if cluster == "current":
        return Target.current(namespace)
    if cluster in ENGINE_CLUSTERS:
        return Target.in_engine(cluster, namespace)
    raise CommandError(f"CLUSTER={cluster} is none of {', '.join(CLUSTERS)}", exit_code=2)


def _users_kubeconfig() -> str:
    return os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")


def _is_root_on_linux() -> bool:
    return platform.system() == "Linux" and os.geteuid() == 0
