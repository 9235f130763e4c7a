"""`make up`: a cluster, Dapr, the bundle, and the main job on it."""

import base64
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from cluster import bare, demo, deploy, images, screen
from cluster.actions import take
from cluster.client import CHAT, MEMORY
from cluster.engine import ENGINE_CLUSTERS, LOCAL_REPOSITORY, answering_engine
from cluster.errors import CommandError
from cluster.kube import Kube, api_errors
from cluster.steps import say
from cluster.target import BARE_KUBECONFIG, Target, chosen, made, record_made
from cluster.versions import ROOT

MODELS: Final = ("offline", "gemini")
NODES: Final = ("1", "2", "3")
KEY_SECRET: Final = "gemini-api-key"  # noqa: S105 - a name


@dataclass(frozen=True)
class Settings:
    """What `make up` can be told; empty is the default."""

    cluster: str = ""
    """CLUSTER."""
    namespace: str = ""
    """NAMESPACE."""
    registry: str = ""
    """IMAGE_REGISTRY: with CLUSTER=current, where images are pushed."""
    model: str = ""
    """MODEL: one of :data:`MODELS`; empty leaves it to the values."""
    values: str = ""
    """VALUES: a values file of the user's own."""
    nodes: str = ""
    """NODES: of the bare node, one of :data:`NODES`; empty keeps as many as there are."""

    def check(self) -> None:
        """Raises :class:`CommandError` for what cannot be, before anything is built."""
        wrong = None
        if self.model and self.model not in MODELS:
            wrong = (
                f"MODEL={self.model} is none of {', '.join(MODELS)}: "
                "for others set model.* in a file and name it with VALUES="
            )
        elif self.model == "gemini" and not _key():
            wrong = "MODEL=gemini needs a key: GEMINI_API_KEY=<your key> make up MODEL=gemini"
        elif self.values and not Path(self.values).is_file():
            wrong = f"VALUES={self.values} is no file"
        elif self.nodes and self.nodes not in NODES:
            wrong = f"NODES={self.nodes} is none of {', '.join(NODES)}"
        if wrong:
            raise CommandError(wrong, exit_code=2)

    def check_with(self, target: Target) -> None:
        """Raises :class:`CommandError` for what cannot be on the cluster that was chosen."""
        if self.nodes and target.cluster != "bare":
            raise CommandError(
                f"NODES= is for the bare node, and the cluster is {target.cluster}: give it more nodes by its own "
                "means (kind: `role: worker` lines in cluster/kind.yaml; minikube: `minikube node add -p daca`)",
                exit_code=2,
            )
        if target.cluster == "current" and not self.registry:
            raise CommandError(
                "CLUSTER=current needs IMAGE_REGISTRY=<registry>: where this machine may push images and the cluster "
                "pulls them from (ghcr.io/you, or a registry beside the cluster)",
                exit_code=2,
            )

    @property
    def values_files(self) -> list[Path]:
        """Of the user's."""
        return [Path(self.values)] if self.values else []

    @property
    def single_values(self) -> dict[str, str]:
        """Values that win over all files."""
        return {"model.provider": self.model} if self.model else {}


def up(settings: Settings) -> None:
    """Brings up everything and shows that it works; run again, it mends and updates what is there."""
    settings.check()
    target, why = chosen(settings.cluster, settings.namespace)
    settings.check_with(target)
    say(f"cluster: {target.cluster}, because {why}")
    if target.cluster == "bare":
        bare.up(BARE_KUBECONFIG, int(settings.nodes) if settings.nodes else None)
        references = bare.build_images(ROOT)
    elif target.cluster == "current":
        references = _push(target, settings.registry)
    else:
        references = _load(target)
    kube = Kube(target)
    with api_errors():
        deploy.make_namespace(kube)
        target.record()
        if settings.model == "gemini":
            _provide(kube)
        deploy.dapr(kube)
        deploy.wait_for_injector(kube)
        deploy.daca(kube, references, settings.values_files, settings.single_values)
        console = screen.console()
        user_id = demo.run(kube, console, deploy.model(kube))
    _go_on(console, target, user_id)


def plan(settings: Settings) -> Iterator[str]:
    """The commands that :func:`up` would run for a new cluster of kind or minikube, as a script; it changes nothing.

    Raises:
        CommandError: the settings are wrong, or the cluster is another: what is done there depends on what it has.
    """
    settings.check()
    target, why = chosen(settings.cluster, settings.namespace)
    settings.check_with(target)
    if target.cluster not in ENGINE_CLUSTERS:
        raise CommandError(f"DRY_RUN= is for kind and minikube, not for {target.cluster}", exit_code=2)
    yield f"# cluster: {target.cluster}, because {why}"
    engine = answering_engine() or "docker"
    cluster = ENGINE_CLUSTERS[target.cluster](engine)
    references = images.references(LOCAL_REPOSITORY)
    actions = [*cluster.create(), *images.build(engine, references), *cluster.load(references)]
    actions += deploy.actions(target, references, settings.values_files, settings.single_values)
    for action in actions:
        yield str(action)


def _load(target: Target) -> dict[str, str]:
    """Sees that the engine's cluster runs and has the images."""
    engine = answering_engine()
    if engine is None:
        raise CommandError(
            f"CLUSTER={target.cluster} needs an engine, and neither Docker nor Podman answers: start one of the two"
        )
    cluster = ENGINE_CLUSTERS[target.cluster](engine)
    if cluster.exists():
        take(cluster.start())
    else:
        record_made(made() | {target.cluster})  # before it is made: `down` removes what broke half-way
        take(cluster.create())
    references = images.references(LOCAL_REPOSITORY)
    take([*images.build(engine, references), *cluster.load(references)])
    return references


def _push(target: Target, registry: str) -> dict[str, str]:
    """Puts the images into the registry that the user's cluster pulls from."""
    say(f"context: {target.context} of {target.kubeconfig}")
    references = images.references(registry)
    builder = images.builder()
    take([*images.build(builder, references), *images.push(builder, references)])
    return references


def _key() -> str:
    return os.environ.get("GEMINI_API_KEY", "").strip()


def _provide(kube: Kube) -> None:
    """Puts the model's key where the sidecars find it."""
    namespace = kube.target.namespace
    data = {KEY_SECRET: base64.b64encode(_key().encode()).decode()}
    secrets = {secret.metadata.name: secret for secret in kube.core.list_namespaced_secret(namespace).items}
    if KEY_SECRET not in secrets:
        kube.core.create_namespaced_secret(namespace, {"metadata": {"name": KEY_SECRET}, "data": data})
    elif secrets[KEY_SECRET].data != data:
        kube.core.patch_namespaced_secret(KEY_SECRET, namespace, {"data": data})
        # A pod asks for a key as long as it has none; one that had the old key keeps it.
        kube.target.kubectl("rollout", "restart", "deployment", "-n", namespace, CHAT, MEMORY)


def _go_on(console: Console, target: Target, user_id: str) -> None:
    console.rule("How to go on")
    for line in (
        "make chat                      talk to it",
        f"make inspect USER={user_id}  the session actor of the user above",
        "make status                    what runs, and where it answers",
        "make e2e                       the tests that need a cluster",
        "make down                      removes everything again",
        f"{target.typed('helm')} test daca -n {target.namespace}",
        f"{target.typed('kubectl')} get pods -n {target.namespace}",
    ):
        console.print(line, markup=False, soft_wrap=True)
