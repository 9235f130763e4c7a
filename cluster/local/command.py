"""`make local`: sees that nothing is missing or in the way, and runs the programs."""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from cluster import binaries, demo, screen
from cluster.binaries import DAPR_CONTROL_PLANE, DAPRD
from cluster.cache import exclusive
from cluster.client import CHAT, MEMORY
from cluster.errors import CommandError
from cluster.local import ports, processes, programs, redis, runfile, secretfile
from cluster.local.layout import (
    DATA,
    LOGS,
    REDIS_PORT,
    REMINDERS,
    SECRETS,
    SIDECARS,
    STATE,
)
from cluster.local.programs import Programs
from cluster.local.run import Run
from cluster.local.runfile import App
from cluster.steps import say, step

TOOLS: Final = (DAPRD, DAPR_CONTROL_PLANE)
MODELS: Final = ("offline", "gemini")


def local(model: str) -> None:
    """Runs the services until Ctrl-C, or SIGTERM, or the end of the terminal; then stops everything and returns.

    ``model`` is one of :data:`MODELS`, or empty: then components/dapr.yaml decides.

    Raises:
        CommandError: something is missing or in the way, or a program has ended; everything is stopped by then.
    """
    if model and model not in MODELS:
        raise CommandError(
            f"MODEL={model} is none of {', '.join(MODELS)}: for others edit MODEL_PROVIDER in {runfile.RUN_FILE}",
            exit_code=2,
        )
    apps = programs.with_model(runfile.apps(), model)
    provider = programs.provider(apps)
    kept, source = secretfile.collect(provider, os.environ.get("GEMINI_API_KEY", "").strip())
    with _own_folder(), _only_one():
        _clear_away()
        planned = _provided(apps)
        for folder in (DATA, REMINDERS, SIDECARS):
            folder.mkdir(parents=True, exist_ok=True)
        programs.NAMES.write_text(programs.names(apps))
        secretfile.write(kept, SECRETS)
        say(source)
        try:
            Run(planned, lambda: _announce(planned, provider)).go()
        finally:
            SECRETS.unlink(missing_ok=True)


@contextmanager
def _own_folder() -> Iterator[None]:
    """Names the mend where the block may not write what an earlier run has written as another user."""
    try:
        yield
    except PermissionError as error:
        raise CommandError(f"{error.filename} is another user's: delete {STATE}, or give it back with chown") from error


@contextmanager
def _only_one() -> Iterator[None]:
    """Keeps a second run out of this checkout while the block lasts."""
    STATE.mkdir(parents=True, exist_ok=True)
    with (STATE / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            pid = file.read().strip()
            raise CommandError(
                f"`make local` runs already in this checkout (process {pid}): use that one, or end it first, with "
                f"Ctrl-C or `kill {pid}`"
            ) from error
        file.truncate(0)
        print(os.getpid(), file=file, flush=True)
        yield


def _clear_away() -> None:
    """Ends what a run that was killed has left."""
    if left := processes.leftovers():
        with step(f"ended, left by a run that was killed: {', '.join(map(str, left))}"):
            processes.end(left)


def _provided(apps: list[App]) -> Programs:
    """The programs of a run; what they need is fetched and built.

    All that can be in the way is looked for first, and named in one line.
    """
    # Which Redis there will be is not known yet; the ports are the same.
    uses = programs.programs(apps, (), {}, "").ports
    if taken := ports.taken(uses):
        mend = "end that first"
        if REDIS_PORT in taken:
            mend += " (what `dapr init` started: docker stop dapr_redis)"
        raise CommandError(f"{ports.told(taken, uses)}; {mend}")
    missing = binaries.missing(TOOLS)
    problems = [redis.problem(), binaries.go_problem(missing) if missing else None]
    if any(problems):
        raise CommandError("; ".join(problem for problem in problems if problem))
    for line in redis.plan():
        say(f"first: {line}")
    if missing:
        names = ", ".join(tool.name for tool in missing)
        say(f"first: build from Go modules: {names} (once; about 6 minutes on two cores)")
        with exclusive():
            binaries.build(missing)
    server = redis.server()
    say(f"Redis {server.version}: {server.command[0]}")
    return programs.programs(apps, server.command, server.env, secrets.token_hex(16))


def _announce(planned: Programs, provider: str) -> None:
    console = screen.console()
    if provider == programs.OFFLINE:
        console.rule("The offline model answers: deterministic, no key, no network")
        console.print("For Gemini: GEMINI_API_KEY=<your key> make local MODEL=gemini", markup=False)
    else:
        console.rule(f"{provider} answers")
    lines = [
        f"{service.app.name:22}http://localhost:{service.port}"
        + (f"   its sidecar: http://localhost:{service.sidecar_port}" if service.sidecar_port else "")
        for service in planned.services
    ]
    lines += [
        "",
        "In another terminal:",
        *tutorial(planned),
        "",
        f"logs   {LOGS}/",
        f"state  {STATE}/ (the conversations; delete it to start anew)",
    ]
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
    console.rule("Ctrl-C stops it")


def tutorial(planned: Programs) -> list[str]:
    """The tutorial's conversation, as one types it."""
    at = {service.app.name: f"http://localhost:{service.port}" for service in planned.services}
    post = "curl -X POST {} -H 'Content-Type: application/json' -d '{}'"
    return [
        post.format(f"{at[MEMORY]}/memories/junaid/initialize", json.dumps(demo.MEMORY)),
        *(post.format(f"{at[CHAT]}/chat/", json.dumps({"user_id": "junaid", "text": text})) for text in demo.MESSAGES),
        f"curl {at[MEMORY]}/memories/junaid",
        f"curl {at[MEMORY]}/conversations/<session_id of an answer>",
    ]
