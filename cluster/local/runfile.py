"""components/dapr.yaml, the file of `dapr run -f`: read for the same services, ports and settings.

Its keys: https://docs.dapr.io/developing-applications/local-development/multi-app-dapr-run/multi-app-template/
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from cluster.errors import CommandError
from cluster.local.layout import COMPONENTS

RUN_FILE: Final = COMPONENTS / "dapr.yaml"

OPTIONS: Final = {
    "appID": "app-id",
    "appPort": "app-port",
    "appHealthCheckPath": "app-health-check-path",
    "appHealthProbeInterval": "app-health-probe-interval",
    "appHealthProbeTimeout": "app-health-probe-timeout",
    "appHealthThreshold": "app-health-threshold",
    "configFilePath": "config",
    "daprGRPCPort": "dapr-grpc-port",
    "daprHTTPPort": "dapr-http-port",
    "daprInternalGRPCPort": "dapr-internal-grpc-port",
    "enableAppHealthCheck": "enable-app-health-check",
    "logLevel": "log-level",
    "maxBodySize": "max-body-size",
    "metricsPort": "metrics-port",
    "resourcesPaths": "resources-path",
}
"""Key of the run file -> option of daprd, as the Dapr CLI translates them."""
_OTHER: Final = {"appDirPath", "command", "env"}
_PATHS: Final = {"configFilePath", "resourcesPaths"}
"""Relative to the run file."""


@dataclass(frozen=True)
class App:
    """A service of the run file, with what all of them have in common."""

    app_id: str
    port: int
    command: tuple[str, ...]
    env: Mapping[str, str]
    options: Mapping[str, str]
    """Of its sidecar, as daprd takes them."""
    sidecar_ports: Mapping[int, str]
    """Port -> what it is for. Empty: `make local` starts no sidecar, which the CLI would."""


def apps(path: Path = RUN_FILE) -> list[App]:
    """The services, in the order of the file.

    Raises:
        CommandError: the file can't be read, or has a key that `make local` does not know.
    """
    try:
        content = yaml.safe_load(path.read_text())
        common, services = content.get("common") or {}, content["apps"]
        return [_app(path, {**common, **app, "env": _env(common) | _env(app)}) for app in services]
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CommandError(f"{path} is not the run file that `make local` can read: {reason}") from error


def _app(path: Path, settings: Mapping[str, Any]) -> App:
    if unknown := settings.keys() - OPTIONS.keys() - _OTHER:
        raise CommandError(f"{path}: `make local` does not know {', '.join(sorted(unknown))}; take it out")
    app_id = str(settings["appID"])
    names = {"daprHTTPPort": "HTTP", "daprGRPCPort": "gRPC", "daprInternalGRPCPort": "inner", "metricsPort": "metrics"}
    given = {int(settings[key]): f"{name} port of {app_id}'s sidecar" for key, name in names.items() if key in settings}
    if given and len(given) < len(names):
        raise CommandError(f"{path}: {app_id} has some of {', '.join(names)}; a sidecar needs all of them")
    return App(
        app_id,
        int(settings["appPort"]),
        tuple(str(word) for word in settings["command"]),
        settings["env"],
        {OPTIONS[key]: _option(path, key, value) for key, value in settings.items() if key in OPTIONS},
        given,
    )


def _env(settings: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in (settings.get("env") or {}).items()}


def _option(path: Path, key: str, value: Any) -> str:
    if key in _PATHS:
        given = value if isinstance(value, list) else [value]
        return ",".join(str((path.parent / name).resolve()) for name in given)
    return str(value).lower() if isinstance(value, bool) else str(value)
