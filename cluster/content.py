"""What an image is made of, as a tag."""

import hashlib
from pathlib import Path
from typing import Final

SERVICES: Final = ("chat-service", "agent-memory-service", "offline-model")
IGNORED: Final = ("tests", "__pycache__", "*.egg-info")


def content_tag(root: Path, service: str, base: str) -> str:
    """``dev-<12 hex digits>``: the same sources on the same base get the same tag, so what has not changed stays."""
    digest = hashlib.sha256(base.encode())
    for folder in (root / "images" / "common", root / "images" / service):
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder)
            if path.is_file() and not any(Path(part).match(name) for part in inside.parts for name in IGNORED):
                digest.update(f"{folder.name}/{inside}\0{path.stat().st_size}\0".encode())
                digest.update(path.read_bytes())
    return f"dev-{digest.hexdigest()[:12]}"
