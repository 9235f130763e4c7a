"""Puts the service together; what depends on what can be read here."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from daca_common import logs, problems, server
from daca_common.app_token import SidecarOnly
from daca_common.dapr import DaprClient, DaprError, DaprUnavailable
from daca_common.health import Health, OpenRequests
from daca_common.model import ModelClient
from daca_common.paths import OneSpelling
from daca_common.settings import load
from fastapi import APIRouter, FastAPI, Request, Response

from agent_memory_service import routes
from agent_memory_service.dead_letters import DeadLetters
from agent_memory_service.documents import Contended, Documents, LaterVersion
from agent_memory_service.due import Due
from agent_memory_service.erasure import Erasure
from agent_memory_service.events import Events
from agent_memory_service.memories import Memories
from agent_memory_service.sessions import Sessions
from agent_memory_service.settings import Settings
from agent_memory_service.summaries import Summaries
from agent_memory_service.transcripts import Transcripts
from agent_memory_service.users import Users

_log = logging.getLogger(__name__)


class Service:
    """The service's parts, made once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.health = Health()
        self.dapr = DaprClient(settings.dapr_http_port, api_token=settings.dapr_api_token)
        self.model = ModelClient(settings, self.dapr)
        documents = Documents(self.dapr, settings.state_store)
        users = Users(documents)
        sessions = Sessions(self.dapr)
        memories = Memories(documents, sessions)
        transcripts = Transcripts(documents, users, settings.transcript_retention_seconds)
        self.summaries = Summaries(memories, transcripts, Due(documents), self.model, settings)
        dead_letters = DeadLetters(documents, users)
        erasure = Erasure(
            sessions,
            users=users,
            memories=memories,
            transcripts=transcripts,
            summaries=self.summaries,
            dead_letters=dead_letters,
        )
        self.events = Events(transcripts, self.summaries)
        self.app = self._app(
            routes.router(
                memories=memories,
                users=users,
                transcripts=transcripts,
                events=self.events,
                dead_letters=dead_letters,
                erasure=erasure,
            )
        )

    async def drain(self) -> None:
        """SIGTERM: the open requests finish, then the summaries that are due; then the sidecar may go."""
        await self.health.quiet()
        self._rolling_up.cancel()
        await self.summaries.drain()
        self.health.drained = True

    async def leave(self) -> None:
        """SIGTERM: drains, and stays until the sidecar is gone.

        It hands over events until it has noticed that this process is drained. One that finds nobody here waits for
        half a minute before another pod gets it.
        """
        await self.drain()
        await self.dapr.gone()

    def _app(self, router: APIRouter) -> FastAPI:
        app = FastAPI(
            title="DACA Agent Memory Service",
            description="What is known of a user, and the transcript of every session.",
            version="0.1.0",
            responses=problems.RESPONSES,
            lifespan=self._lifespan,
            redirect_slashes=False,
        )
        problems.install(app)
        for error in (DaprError, DaprUnavailable, Contended, LaterVersion):
            app.add_exception_handler(error, _on_store_error)
        app.include_router(self.health.router())
        app.include_router(router)
        # From the inside out.
        app.add_middleware(problems.BodyLimit, limit=routes.MAX_BODY, exempt=("/conversations", "/dead-letters"))
        paths = ("/conversations", "POST /dead-letters")
        app.add_middleware(SidecarOnly, token=self.settings.app_api_token, paths=paths)
        app.add_middleware(logs.RequestLog)
        app.add_middleware(OpenRequests, health=self.health)
        app.add_middleware(problems.Unexpected)
        app.add_middleware(OneSpelling)
        return app

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        self._rolling_up = asyncio.create_task(self.summaries.run())
        becoming_ready = asyncio.create_task(self._become_ready())
        yield
        becoming_ready.cancel()
        self._rolling_up.cancel()
        await self.summaries.stop()
        await self.model.close()
        await self.dapr.close()

    async def _become_ready(self) -> None:
        """Ready once the sidecar answers, which it does when it has its components."""
        while not self.health.ready:
            try:
                await self.dapr.metadata()
                self.health.ready = True
            except (DaprError, DaprUnavailable):
                await asyncio.sleep(0.2)


async def _on_store_error(_: Request, error: Exception) -> Response:
    _log.warning("the state store failed", extra={"error": str(error)})
    kind, detail = "/problems/store-unavailable", "The state store cannot be reached or is too busy; send it again."
    if isinstance(error, DaprError) and error.store_full:
        kind = "/problems/store-full"
        detail = "The state store is full: it takes no writes until its operator gives it memory; reads go on."
    elif isinstance(error, LaterVersion):
        kind, detail = "/problems/later-version", f"This release of the service is too old: {error}."
    return problems.Problem(503, detail, kind=kind, headers={"Retry-After": "1"}).response()


def main() -> None:
    """Runs agent-memory-service with settings from the environment."""
    settings = load(Settings)
    logs.configure(settings.log_level)
    service = Service(settings)
    server.run(service.app, settings, service.leave)
