"""`make up`: a cluster, Dapr, the bundle, and the main job on it."""

import base64
import os
from pathlib import Path
from typing import Final

from rich.console import Console

from cluster import bare, demo, deploy, images, screen
from cluster.client import CHAT, MEMORY
from cluster.errors import CommandError
from cluster.kube import Kube, api_errors
from cluster.steps import say
from cluster.target import BARE_KUBECONFIG, Target, chosen
from cluster.versions import ROOT

MODELS: Final = ("offline", "gemini")
KEY_SECRET: Final = "gemini-api-key"  # noqa: S105 - a name


def up(requested: str, namespace: str, registry: str, model: str, values: str) -> None:
    """Brings up everything and shows that it works; run again, it mends and updates what is there.

    ``registry`` is where images are pushed with CLUSTER=current, ``values`` a values file of the user's own, ``model``
    one of :data:`MODELS` or empty: then the values decide.
    """
    if model and model not in MODELS:
        raise CommandError(
            f"MODEL={model} is none of {', '.join(MODELS)}: for others set model.* in a file and name it with VALUES=",
            exit_code=2,
        )
    key = os.environ.get("GEMINI_API_KEY", "").strip()
    if model == "gemini" and not key:
        raise CommandError("MODEL=gemini needs a key: GEMINI_API_KEY=<your key> make up MODEL=gemini", exit_code=2)
    if values and not Path(values).is_file():
        raise CommandError(f"VALUES={values} is no file", exit_code=2)
    target, why = chosen(requested, namespace)
    say(f"cluster: {target.cluster}, because {why}")
    references = _bare() if target.cluster == "bare" else _current(target, registry)
    kube = Kube(target)
    with api_errors():
        deploy.make_namespace(kube)
        target.record()
        if model == "gemini":
            _provide(kube, key)
        deploy.dapr(kube)
        deploy.wait_for_injector(kube)
        files = [ROOT / "cluster" / "values-bare.yaml"] if target.cluster == "bare" else []
        files += [Path(values)] if values else []
        deploy.daca(kube, references, files, {"model.provider": model} if model else {})
        console = screen.console()
        user_id = demo.run(kube, console, deploy.model(kube))
    _go_on(console, target, user_id)


def _bare() -> dict[str, str]:
    bare.up(BARE_KUBECONFIG)
    return bare.build_images(ROOT)


def _current(target: Target, registry: str) -> dict[str, str]:
    say(f"context: {target.context} of {target.kubeconfig}")
    if not registry:
        raise CommandError(
            "CLUSTER=current needs IMAGE_REGISTRY=<registry>: where this machine may push images and the cluster "
            "pulls them from (ghcr.io/you, or a registry beside kind)",
            exit_code=2,
        )
    return images.build_and_push(ROOT, registry)


def _provide(kube: Kube, key: str) -> None:
    """Puts the model's key where the sidecars find it."""
    namespace = kube.target.namespace
    data = {KEY_SECRET: base64.b64encode(key.encode()).decode()}
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
