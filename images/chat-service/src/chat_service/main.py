"""Puts the service together; what depends on what can be read here."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from daca_common import logs, problems, server
from daca_common.app_token import SidecarOnly
from daca_common.dapr import DaprClient
from daca_common.health import Health
from daca_common.model import ModelClient
from daca_common.settings import load
from dapr.ext.fastapi import DaprActor
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from chat_service import hosting, routes
from chat_service.agent import ChatAgent
from chat_service.events import EventPublisher
from chat_service.memory import MemoryClient
from chat_service.session import SessionHost
from chat_service.settings import Settings
from chat_service.store import DocumentStore
from chat_service.turn import Turns


class Service:
    """The service's parts, made once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.health = Health()
        self.dapr = DaprClient(settings.dapr_http_port, api_token=settings.dapr_api_token)
        self.model = ModelClient(settings, self.dapr)
        self.events = EventPublisher(self.dapr, settings.pubsub_name, settings.pubsub_topic)
        self.host = SessionHost(
            settings.pod_name,
            DocumentStore(self.dapr),
            settings.turn_lease_seconds,
            self.events.start,
            self.events.stop,
        )
        self.turns = Turns(
            self.dapr,
            MemoryClient(self.dapr, settings.memory_app_id, settings.memory_timeout_seconds),
            ChatAgent(self.model, settings.model, settings.model_timeout_seconds),
            settings,
        )
        self.app = self._app()

    async def drain(self) -> None:
        """SIGTERM: no new turn; the open ones and their events finish; then the sidecar goes, and this process last.

        Until then the sidecar calls the actors that live here: for turns of other pods, and to deactivate them.
        """
        self.health.draining = True
        await self.turns.drain()
        await self.events.drain()
        self.health.drained = True
        await self.dapr.gone()

    def _app(self) -> FastAPI:
        app = FastAPI(
            title="DACA Chat Service",
            description="Chat over HTTP; every user's session is a Dapr virtual actor.",
            version="0.1.0",
            lifespan=self._lifespan,
            responses=problems.RESPONSES,
        )
        problems.install(app)
        app.include_router(self.health.router())
        app.include_router(routes.router(self.turns))
        hosting.configure(self.settings)
        self.actors = DaprActor(app)
        app.add_middleware(problems.BodyLimit, limit=routes.MAX_BODY, exempt="/actors/")
        app.add_middleware(SidecarOnly, token=self.settings.app_api_token, paths=("/actors/", "/dapr/"))
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(self.settings.cors_origins),
            allow_credentials=True,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["Idempotency-Replayed"],
        )
        app.add_middleware(logs.RequestLog)
        return app

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        await hosting.register(self.actors, self.host, self.dapr)
        becoming_ready = asyncio.create_task(self._become_ready())
        yield
        becoming_ready.cancel()
        await self.model.close()
        await self.dapr.close()

    async def _become_ready(self) -> None:
        await hosting.registered(self.dapr)
        self.health.ready = True


def main() -> None:
    """Runs chat-service with settings from the environment."""
    settings = load(Settings)
    logs.configure(settings.log_level)
    service = Service(settings)
    server.run(service.app, settings, service.drain)
