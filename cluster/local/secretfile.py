"""The file behind the secret store: the user's components/secrets.json, or a key from the environment."""

import json
from pathlib import Path
from typing import Any, Final

from cluster.errors import CommandError
from cluster.local.layout import COMPONENTS

USERS: Final = COMPONENTS / "secrets.json"
EXAMPLE: Final = COMPONENTS / "secrets.json.example"
KEY: Final = "gemini-api-key"
KEYED: Final = ("gemini", "openai")
"""Model providers that want a key."""


def collect(provider: str, key: str) -> tuple[dict[str, Any], str]:
    """What the secret store is to hold for a model provider, and where that is from, in words.

    ``key`` is that of the environment, which wins over the file's; empty: there is none.

    Raises:
        CommandError: the file is no JSON object, or the provider wants a key and there is none.
    """
    found, source = _users(), f"secrets are those of {USERS}"
    if not USERS.exists():
        source = f"the secret store is empty: there is no {USERS}, and the model provider {provider} needs none"
    if key and provider == "gemini":
        found, source = {**found, KEY: key}, "the model's key is GEMINI_API_KEY's"
    if provider in KEYED and found.get(KEY) in {None, "", json.loads(EXAMPLE.read_text())[KEY]}:
        typed = "GEMINI_API_KEY=<your key> make local MODEL=gemini, or " if provider == "gemini" else ""
        raise CommandError(
            f"the model provider {provider} needs a key: {typed}copy {EXAMPLE} to {USERS.name} and put it there",
            exit_code=2,
        )
    return found, source


def write(secrets: dict[str, Any], path: Path) -> None:
    """Makes the file that the sidecars read, and nobody else may."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps(secrets))


def _users() -> dict[str, Any]:
    try:
        found = json.loads(USERS.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CommandError(f"{USERS} cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise CommandError(f"{USERS} is no JSON object: it should look like {EXAMPLE}")
    return found
