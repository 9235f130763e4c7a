"""Builds the project's images with what the machine has, and names them by what is in them."""

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from cluster.actions import Action
from cluster.content import IMAGES, content_tag, context_of, dockerfile_of
from cluster.engine import answering_engine
from cluster.errors import CommandError
from cluster.versions import ROOT


def references(repository: str, images: Iterable[str] = IMAGES) -> dict[str, str]:
    """Image -> what it is called below ``repository``, as it would be built now."""
    return {image: f"{repository}/{image}:{content_tag(ROOT, image, _base() or '')}" for image in images}


def build(builder: str, images: Mapping[str, str]) -> list[Action]:
    """Builds ``images`` (image -> reference) with ``builder``: docker, podman or buildah.

    ``PYTHON_IMAGE`` in the environment names another base image than the Dockerfiles do (a mirror's, say).
    """
    base = _base()
    options = ["--quiet"]
    options += ["--layers"] if builder == "buildah" else []  # the others keep layers by themselves
    options += ["--build-arg", f"PYTHON_IMAGE={base}"] if base else []
    actions = []
    for image, reference in images.items():
        sources: list[str | Path] = ["--file", dockerfile_of(ROOT, image), context_of(ROOT, image)]
        command = (builder, "build", *options, "--tag", reference, *sources)
        actions.append(Action(f"{reference} is built ({builder})", command))
    return actions


def push(builder: str, images: Mapping[str, str]) -> list[Action]:
    """Pushes ``images`` to where their names say."""
    return [Action(f"{reference} is pushed", (builder, "push", reference)) for reference in images.values()]


def builder() -> str:
    """What builds images on this machine: an engine that answers, or buildah.

    Raises:
        CommandError: there is neither.
    """
    found = answering_engine() or ("buildah" if shutil.which("buildah") else None)
    if found is None:
        raise CommandError(
            "images have to be built, and neither Docker nor Podman answers and buildah is not installed: "
            "install or start one of the three"
        )
    return found


def _base() -> str | None:
    return os.environ.get("PYTHON_IMAGE")
