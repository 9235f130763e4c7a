"""The images that the node's pods run, built without an engine and pushed to the node's registry."""

import hashlib
import http.client
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cluster import binaries, rest
from cluster.bare.components import HELPER_IMAGE, PAUSE_IMAGE
from cluster.bare.layout import FIRST, HERE, REGISTRY
from cluster.bare.packages import unpacked
from cluster.cache import CACHE, exclusive
from cluster.content import IMAGES, content_tag, context_of, dockerfile_of
from cluster.errors import CommandError
from cluster.logs import run_logged
from cluster.shell import run, succeeds
from cluster.steps import step
from cluster.versions import VERSIONS

DEBIAN_RELEASE: Final = "bookworm"
KEPT_TAGS: Final = 3
"""Of one service, the newest: more are of no use, and each takes a hundred megabytes."""

ANSWER_SECONDS: Final = 10.0

# The certificates are there from the start: later they are borrowed, and can't be written.
_DEBOOTSTRAP: Final = ("debootstrap", "--variant=minbase", "--include=ca-certificates", DEBIAN_RELEASE)
# What apt has fetched is of no use in an image.
_LEFT_OUT: Final = ("--exclude=./var/cache/apt/*", "--exclude=./var/lib/apt/lists/*")
_DOCKERFILES: Final = HERE / "dockerfiles"
CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
# pip and apt work in a build as they do on this machine, whatever certificates or mirrors it is set up for.
BORROWED: Final = ("/etc/ssl/certs", "/etc/resolv.conf", "/etc/pip.conf")
# Buildah's mounts end with it, even when it is killed.
_OWN_MOUNTS: Final = ("unshare", "--mount", "--propagation", "slave", "--")
_MANIFESTS: Final = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"


@dataclass(frozen=True)
class BaseImage:
    """An image of the node's own: a Dockerfile of ours, and files for it."""

    reference: str
    dockerfile: str | Path
    """Folder below dockerfiles/, or one elsewhere by its whole path."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Path in the build context -> file."""
    arguments: Mapping[str, str] = field(default_factory=dict)
    mounts: Mapping[str, Path] = field(default_factory=dict)
    """Path in the build -> folder that is there while it is built. The arguments have to tell what is in it."""

    @property
    def key(self) -> str:
        """A hash of all that decides what is built."""
        return _key(
            (_DOCKERFILES / self.dockerfile / "Dockerfile").read_bytes(),
            *(f"{name}={_identity(path)}" for name, path in self.files.items()),
            *(f"{name}={value}" for name, value in self.arguments.items()),
        )


def base_images() -> list[BaseImage]:
    """What every node needs in its registry: its own two images, those of the official Dapr chart, Redis, Python."""
    packaged = unpacked()
    dapr = [(binaries.DAPRD, "daprd", VERSIONS["DAPR_SIDECAR_VERSION"])] + [
        (binaries.DAPR_CONTROL_PLANE, program, VERSIONS["DAPR_VERSION"])
        for program in ("injector", "operator", "placement", "scheduler", "sentry")
    ]
    return [
        BaseImage(PAUSE_IMAGE, "pause", {"catatonit": packaged / "usr" / "bin" / "catatonit"}),
        BaseImage(HELPER_IMAGE, "busybox", {"busybox": packaged / "bin" / "busybox"}),
        BaseImage(
            f"{REGISTRY}/redis:{VERSIONS['DEBIAN_REDIS_VERSION']}",
            "redis",
            arguments={"DEBIAN_IMAGE": debian_image(), "VERSION": VERSIONS["DEBIAN_REDIS_VERSION"]},
        ),
        BaseImage(
            f"{REGISTRY}/python:{VERSIONS['PYTHON_VERSION']}", "python", arguments={"DEBIAN_IMAGE": debian_image()}
        ),
        *(
            BaseImage(
                f"{REGISTRY}/dapr/{program}:{version}",
                "dapr",
                {program: tool.folder / program, CERTIFICATES.name: CERTIFICATES},
                {"PROGRAM": program},
            )
            for tool, program, version in dapr
        ),
    ]


def debian_image() -> str:
    """The name, in the cache, of the Debian image that others start from."""
    folder = _DOCKERFILES / "debian"
    key = _key(*_DEBOOTSTRAP, *_LEFT_OUT, *(path.read_bytes() for path in sorted(folder.iterdir())))
    return f"localhost/debian:{DEBIAN_RELEASE}-{key}"


def python_image() -> str:
    """The name, in the cache, of the Python image that the services' images start from."""
    key = _key(debian_image(), (_DOCKERFILES / "python" / "Dockerfile").read_bytes())
    return f"localhost/python:{VERSIONS['PYTHON_VERSION']}-{key}"


def push_base_images() -> None:
    """Builds and pushes what the node's registry does not have as it would be built now."""
    for image in base_images():
        keyed = f"{image.reference.rpartition(':')[0]}:key-{image.key}"
        if (digest := _digest(keyed)) and digest == _digest(image.reference):
            continue
        with step(f"{image.reference} is in the registry"):
            build_base(image)
            _push(image.reference, image.reference, keyed)
        _prune(image.reference, "key-", kept=1)


def build_images(root: Path, images: Iterable[str] = IMAGES) -> dict[str, str]:
    """Builds ``images`` from the checkout ``root`` and pushes them; image -> reference.

    Raises:
        CommandError: no node runs, or a build failed; then the end of what was said has been shown.
    """
    base = python_image()
    references = {image: f"{REGISTRY}/{image}:{content_tag(root, image, base)}" for image in images}
    with exclusive():
        for image, reference in references.items():
            if _digest(reference):
                continue
            ensure_python()
            with step(f"{reference} is in the registry"):
                _bud(dockerfile_of(root, image), context_of(root, image), reference, {"PYTHON_IMAGE": base})
                _push(reference, reference)
            _prune(reference, "dev-", kept=KEPT_TAGS)
    return references


def build_image(reference: str, context: Path, target: str) -> None:
    """Builds one service's image under the name that Skaffold asks for, and pushes it.

    Args:
        reference: the image's name; before the tag it ends with the service's.
        context: the folder images/ of a checkout.
        target: the stage of the Dockerfile; empty: the last one.

    Raises:
        CommandError: no node runs, or the build failed; then the end of what was said has been shown.
    """
    service = reference.rpartition(":")[0].rpartition("/")[2]
    _digest(reference)  # asked so that a node that does not run is told before anything is built
    with exclusive():
        ensure_python()
        with step(f"{reference} is in the registry"):
            _bud(context / service / "Dockerfile", context, reference, {"PYTHON_IMAGE": python_image()}, target=target)
            _push(reference, reference)
        _prune(reference, "skaffold-", kept=KEPT_TAGS)


def _key(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"\0")
    return digest.hexdigest()[:12]


def _identity(path: Path) -> str:
    """What stands for a file's content. The path of a built program changes with it: no need to read a lot."""
    if path.is_relative_to(CACHE / "tools"):
        return str(path.relative_to(CACHE))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def ensure_debian() -> None:
    """Makes :func:`debian_image`, unless the cache has it."""
    if in_cache(debian_image()):
        return
    with step(f"{debian_image()} is made (debootstrap)"), tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        context = Path(scratch)
        shutil.copytree(_DOCKERFILES / "debian", context, dirs_exist_ok=True)
        root = context / "root"
        run_logged([*_OWN_MOUNTS, *_DEBOOTSTRAP, root, *_mirror()], CACHE / "log" / "debootstrap.log")
        run(["tar", "-C", root, *_LEFT_OUT, "-cf", context / "rootfs.tar", "."])
        shutil.rmtree(root)
        _bud(context / "Dockerfile", context, debian_image(), {})


def ensure_python() -> None:
    """Makes :func:`python_image`, unless the cache has it."""
    if in_cache(python_image()):
        return
    ensure_debian()
    with step(f"{python_image()} is made"), tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        dockerfile = _DOCKERFILES / "python" / "Dockerfile"
        _bud(dockerfile, Path(scratch), python_image(), {"DEBIAN_IMAGE": debian_image()})


def _mirror() -> list[str]:
    """The mirror that apt uses for the release, if it does; else debootstrap knows one itself."""
    wanted = [f"Codename: {DEBIAN_RELEASE}", "Component: main", "Created-By: Packages"]
    return run(["apt-get", "indextargets", "--format", "$(SITE)", *wanted]).split()[:1]


def build_base(image: BaseImage) -> None:
    """Builds ``image`` into the cache."""
    if "DEBIAN_IMAGE" in image.arguments:
        ensure_debian()
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        for name, path in image.files.items():
            copy = Path(scratch) / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
        dockerfile = _DOCKERFILES / image.dockerfile / "Dockerfile"
        _bud(dockerfile, Path(scratch), image.reference, image.arguments, mounts=image.mounts)


def _bud(
    dockerfile: Path,
    context: Path,
    tag: str,
    arguments: Mapping[str, str],
    *,
    target: str = "",
    mounts: Mapping[str, Path] | None = None,
) -> None:
    log = CACHE / "log" / f"image-{tag.rpartition('/')[2].partition(':')[0]}.log"
    options = ["--isolation", "chroot", "--network", "host", "--layers", "--pull-never", "--tag", tag]
    for path in BORROWED:
        if Path(path).exists():
            options += ["--volume", f"{path}:{path}:ro"]
    for path, folder in (mounts or {}).items():
        options += ["--volume", f"{folder}:{path}:ro"]
    for name, value in arguments.items():
        options += ["--build-arg", f"{name}={value}"]
    if target:
        options += ["--target", target]
    buildah("bud", *options, "--file", dockerfile, context, log=log)


def _push(image: str, *references: str) -> None:
    for reference in references:
        buildah("push", "--tls-verify=false", image, f"docker://{reference}", log=CACHE / "log" / "push.log")


def in_cache(image: str) -> bool:
    """Whether the cache has an image of that name."""
    return succeeds(*_buildah_command(), "inspect", "--type", "image", image)


def buildah(*arguments: str | Path, log: Path) -> None:
    """Runs a command of buildah on the images of the cache; what it says goes to ``log``."""
    run_logged([*_buildah_command(), *arguments], log)


def _buildah_command() -> list[str | Path]:
    storage = CACHE / "buildah"
    return [*_OWN_MOUNTS, "buildah", "--root", storage / "images", "--runroot", storage / "run"]


def _digest(reference: str) -> str | None:
    """The digest of an image in the node's registry; ``None`` when it has none of that name."""
    repository, _, tag = reference.removeprefix(f"{REGISTRY}/").rpartition(":")
    url = f"http://{REGISTRY}/v2/{repository}/manifests/{tag}"
    try:
        answer = rest.call("HEAD", url, headers={"Accept": _MANIFESTS}, timeout_seconds=ANSWER_SECONDS)
    except rest.Unreachable as error:
        raise CommandError("the registry of the bare node does not answer: `make up CLUSTER=bare` mends it") from error
    return answer.headers.get("Docker-Content-Digest") if answer.status == http.client.OK else None


def _prune(reference: str, prefix: str, kept: int) -> None:
    """Drops all but the newest tags of an image that begin with ``prefix``, and what only they held."""
    name = reference.rpartition(":")[0]
    repository = name.removeprefix(f"{REGISTRY}/")
    tags = CACHE / "registry" / "docker" / "registry" / "v2" / "repositories" / repository / "_manifests" / "tags"
    newest_first = sorted(tags.glob(f"{prefix}*"), key=lambda tag: tag.stat().st_mtime, reverse=True)
    for tag in newest_first[kept:]:
        shutil.rmtree(tag)
        succeeds(*_buildah_command(), "rmi", f"{name}:{tag.name}")
    if newest_first[kept:]:
        succeeds(*_buildah_command(), "rmi", "--prune")
        registry = unpacked() / "usr" / "bin" / "docker-registry"
        run([registry, "garbage-collect", "--delete-untagged", FIRST.etc / "registry.json"])
