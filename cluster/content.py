"""What an image is made of, as a tag."""

import hashlib
from pathlib import Path
from typing import Final

SERVICES: Final = ("chat-service", "agent-memory-service", "offline-model")
PLACEMENT_RELAY: Final = "placement-relay"
IMAGES: Final = (*SERVICES, PLACEMENT_RELAY)
"""What charts/daca runs, Redis apart."""
LOAD_TESTS: Final = "load-tests"
IGNORED: Final = ("tests", "__pycache__", "*.egg-info")


def context_of(root: Path, image: str) -> Path:
    """The folder that an image is built from: that of all services, or the load tests' own."""
    return root / LOAD_TESTS if image == LOAD_TESTS else root / "images"


def dockerfile_of(root: Path, image: str) -> Path:
    """What an image is built by."""
    folder = context_of(root, image)
    return (folder if image == LOAD_TESTS else folder / image) / "Dockerfile"


def content_tag(root: Path, image: str, base: str) -> str:
    """``dev-<12 hex digits>``: the same sources on the same base get the same tag, so what has not changed stays."""
    digest = hashlib.sha256(base.encode())
    own = dockerfile_of(root, image).parent
    for folder in [own.parent / "common", own] if image in SERVICES else [own]:
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder)
            if path.is_file() and not any(Path(part).match(name) for part in inside.parts for name in IGNORED):
                digest.update(f"{folder.name}/{inside}\0{path.stat().st_size}\0".encode())
                digest.update(path.read_bytes())
    return f"dev-{digest.hexdigest()[:12]}"
