"""Builds the project's images for a cluster that is not ours, and pushes them where it can pull from."""

import os
import shutil
from pathlib import Path

from cluster.content import SERVICES, content_tag
from cluster.errors import CommandError
from cluster.shell import run
from cluster.steps import step
from cluster.target import answering_engine


def build_and_push(root: Path, registry: str) -> dict[str, str]:
    """Builds every service's image with what this machine has, and pushes it to ``registry``; service -> reference.

    ``PYTHON_IMAGE`` in the environment names another base image than the Dockerfiles do (a mirror's, say).
    """
    builder = _builder()
    base = os.environ.get("PYTHON_IMAGE")
    arguments = ["--build-arg", f"PYTHON_IMAGE={base}"] if base else []
    cached = ["--layers"] if builder == "buildah" else []  # the others keep layers by themselves
    references = {}
    for service in SERVICES:
        references[service] = reference = f"{registry}/{service}:{content_tag(root, service, base or '')}"
        with step(f"{reference} is built ({builder})"):
            dockerfile = root / "images" / service / "Dockerfile"
            run([builder, "build", "-q", *cached, *arguments, "-t", reference, "-f", dockerfile, root / "images"])
        with step(f"{reference} is pushed"):
            run([builder, "push", reference])
    return references


def _builder() -> str:
    builder = answering_engine() or ("buildah" if shutil.which("buildah") else None)
    if builder is None:
        raise CommandError(
            "CLUSTER=current builds images, and neither Docker nor Podman answers and buildah is not installed: "
            "install or start one of the three"
        )
    return builder
