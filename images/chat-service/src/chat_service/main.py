"""Puts the service together; what depends on what can be read here."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from daca_common import logs, problems, server
from daca_common.app_token import SidecarOnly
from daca_common.dapr import DaprClient, DaprError, DaprUnavailable
from daca_common.health import Health
from daca_common.model import ModelClient
from daca_common.paths import OneSpelling
from daca_common.settings import load
from dapr.ext.fastapi import DaprActor
from fastapi import FastAPI

from chat_service import hosting, routes
from chat_service.admission import Admission
from chat_service.agent import ChatAgent
from chat_service.cors import EXPOSED, Cors
from chat_service.events import EventPublisher
from chat_service.journal import Journal
from chat_service.memory import MemoryClient
from chat_service.open_turns import OpenTurns
from chat_service.protocol import NOTHING
from chat_service.relay import RELAYED, Relay
from chat_service.session import SessionHost
from chat_service.sessions import PUBLISH, Sessions
from chat_service.settings import Settings
from chat_service.store import DocumentStore, ReceiptStore
from chat_service.summary import Summarizer
from chat_service.turn import ATTEMPTS, COMPLETE_SECONDS, Turns


class Service:
    """The service's parts, made once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.health = Health()
        # Pools apart: a call of an actor may wait for the actor's state, here or in another pod, and neither may wait
        # for a broker that hangs.
        self.dapr = self._client()
        self.state = self._client()
        self.broker = self._client()
        self.model = ModelClient(settings, self.dapr)
        address = f"{settings.pod_ip}:{settings.port}"
        self.journal = Journal(self.state, settings.state_store, self._publish)
        self.events = EventPublisher(self.broker, settings.pubsub_name, settings.pubsub_topic, self.journal.hand_over)
        self.host = SessionHost(
            name=settings.pod_name,
            address=address,
            documents=DocumentStore(self.state, settings.session_retention_seconds),
            receipts=ReceiptStore(
                self.state, settings.state_store, settings.turn_key_seconds, settings.session_retention_seconds
            ),
            journal=self.journal,
            publisher=self.events,
            lease_seconds=settings.turn_lease_seconds,
            queue_limit=settings.turn_queue_limit,
        )
        self.sessions = Sessions(self.host, self.dapr)
        agent = ChatAgent(
            self.model,
            settings.model_timeout_seconds,
            settings.model_context_tokens,
            tools=settings.model_tools,
            on_length=settings.model_on_length,
            on_content_filter=settings.model_on_content_filter,
        )
        self.memory = MemoryClient(self.dapr, settings.memory_app_id, settings.memory_timeout_seconds)
        turns = Turns(self.sessions, self.memory, agent, settings.turn_wait_seconds)
        self.admission = Admission(settings.turn_open_limit, settings.turn_late_ms / 1000)
        self.open_turns = OpenTurns(turns, self.admission, settings.turn_resume_seconds)
        self.summarizer = Summarizer(self.sessions, agent)
        longest_turn = settings.turn_wait_seconds + ATTEMPTS * settings.model_timeout_seconds + COMPLETE_SECONDS
        self.relay = Relay(self.sessions, address, wait_seconds=settings.turn_wait_seconds, silent_seconds=longest_turn)
        self.app = self._app()

    async def drain(self) -> None:
        """SIGTERM: no new turn; the open ones and their events finish; then the sidecar goes, and this process last.

        Until then the sidecar calls the actors that live here: for turns of other pods, and to deactivate them.
        """
        self.health.draining = True
        await self.open_turns.drain()
        self.summarizer.stop()
        await self.events.drain()
        with contextlib.suppress(DaprError, DaprUnavailable):  # others see to whoever it still holds
            await self.journal.drain()
        self.health.drained = True
        await self.dapr.gone()

    def _client(self) -> DaprClient:
        return DaprClient(self.settings.dapr_http_port, api_token=self.settings.dapr_api_token)

    async def _publish(self, user_id: str) -> None:
        await self.sessions.call(user_id, PUBLISH, NOTHING)

    def _app(self) -> FastAPI:
        app = FastAPI(
            title="DACA Chat Service",
            description="Chat over HTTP; every user's session is a Dapr virtual actor.",
            version="0.1.0",
            lifespan=self._lifespan,
            responses=problems.RESPONSES,
            redirect_slashes=False,
        )
        problems.install(app)
        app.include_router(self.health.router())
        chat = routes.ChatRoutes(self.sessions, self.open_turns, self.relay, self.memory, self.settings.turn_when_busy)
        app.include_router(chat.router())
        hosting.configure(self.settings)
        self.actors = DaprActor(app)
        # From the inside out.
        app.add_middleware(problems.BodyLimit, limit=routes.MAX_BODY, exempt="/actors/")
        app.add_middleware(hosting.ActorCalls)
        app.add_middleware(SidecarOnly, token=self.settings.app_api_token, paths=("/actors/", "/dapr/"))
        app.add_middleware(logs.RequestLog, relayed=RELAYED)
        app.add_middleware(routes.RefuseEarly, admission=self.admission)
        app.add_middleware(problems.Unexpected)
        app.add_middleware(
            Cors,
            allow_origins=list(self.settings.cors_origins),
            allow_credentials=True,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=EXPOSED,
        )
        app.add_middleware(OneSpelling)
        return app

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        await hosting.register(self.actors, self.host, self.dapr, self.summarizer.start)
        watching = [
            asyncio.create_task(self.journal.run()),
            asyncio.create_task(self.admission.watch()),
            asyncio.create_task(hosting.end_untold(self.dapr, self.host)),
        ]
        becoming_ready = asyncio.create_task(self._become_ready())
        yield
        becoming_ready.cancel()
        for task in watching:
            task.cancel()
        self.summarizer.stop()
        await self.relay.close()
        await self.model.close()
        for client in (self.dapr, self.state, self.broker):
            await client.close()

    async def _become_ready(self) -> None:
        await hosting.wait_until_registered(self.dapr)
        self.health.ready = True


def main() -> None:
    """Runs chat-service with settings from the environment."""
    settings = load(Settings)
    logs.configure(settings.log_level)
    service = Service(settings)
    server.run(service.app, settings, service.drain)
