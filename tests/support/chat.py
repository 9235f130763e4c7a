"""The whole of chat-service, with a sidecar in memory and a model behind it: one pod or several."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
import orjson
from chat_service import sessions
from chat_service.main import Service
from chat_service.sessions import Method
from chat_service.settings import Settings
from chat_service.store import ActiveElsewhere
from daca_common.dapr import DaprError, DaprUnavailable
from daca_common.health import Health
from offline_model.main import create_app
from offline_model.settings import Settings as OfflineSettings
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from support.serving import free_port, serving
from support.sidecar import Backend, FakeSidecar
from support.sse import Event, events

METHODS = {method.name: method for method in vars(sessions).values() if isinstance(method, Method)}

STREAM = {"Accept": "text/event-stream"}

JUNAID = {"name": "Junaid", "preferred_style": "casual", "user_summary": "Junaid likes books."}


async def memory(method: str, path: str, _: bytes) -> tuple[int, bytes]:
    assert (method, path.split("/", maxsplit=1)[0]) == ("GET", "memories")
    return 200, json.dumps(JUNAID).encode()


class OneOfSeveral(FakeSidecar):
    """The sidecar of one of several pods in one process. The SDK has one actor runtime for all of a process, so actors
    are called past it."""

    service: Service

    async def call_actor(self, actor_type: str, actor_id: str, method: str, body: bytes) -> tuple[int, bytes]:
        called: Any = METHODS[method]
        try:
            session = await self.service.host.activate(actor_id)
            answer = await called.do(session, called.takes.model_validate_json(body or b"{}"))
        except (DaprError, DaprUnavailable, ActiveElsewhere) as error:
            return 500, str(error).encode()
        return 200, orjson.dumps(answer)

    async def end_actor(self, actor_type: str, actor_id: str) -> None:
        self.service.host.deactivate(actor_id)


class Pod:
    """A running chat-service, its sidecar, and a client of it."""

    def __init__(self, sidecar: FakeSidecar, service: Service, client: httpx2.AsyncClient) -> None:
        self.sidecar = sidecar
        self.service = service
        self.client = client

    async def say(
        self, text: Any, *, user_id: Any = "junaid", key: str | None = None, **options: Any
    ) -> httpx2.Response:
        body = {"user_id": user_id, "text": text} | options.pop("body", {})
        headers = options.pop("headers", {}) | ({"Idempotency-Key": key} if key else {})
        return await self.client.post("/chat/", json=body, headers=headers, **options)

    async def tell(self, method: str, user_id: str = "junaid") -> Any:
        """Calls a method of a user's actor through the sidecar, wherever it lives; its answer."""
        url = f"http://127.0.0.1:{self.sidecar.port}/v1.0/actors/UserSessionActor/{user_id}/method/{method}"
        async with httpx2.AsyncClient() as client:
            return (await client.post(url)).raise_for_status().json()

    def history(self, user_id: str = "junaid") -> list[str]:
        stored = self.sidecar.actor_state["UserSessionActor", user_id].get(f"history-{user_id}")
        return [item["user_text"] for item in stored["exchanges"]] if stored else []

    async def move(self, to: "Pod", user_id: str = "junaid") -> None:
        """Moves a user's actor, as placement does when pods come or go."""
        key = ("UserSessionActor", user_id)
        await self.sidecar.backend.active[key].deactivate(*key)
        self.sidecar.backend.active[key] = to.sidecar  # the next call makes it active there


Start = Callable[..., Awaitable[list[Pod]]]


@asynccontextmanager
async def cluster() -> AsyncIterator[Start]:
    """Starts pods of one cluster, until the block ends: how many, the model's app or the offline model's settings, the
    service's settings."""
    async with AsyncExitStack() as stack:

        async def started(
            pods: int = 1, model: ASGIApp | None = None, offline: OfflineSettings | None = None, **settings: Any
        ) -> list[Pod]:
            url = await stack.enter_async_context(serving(model or create_app(offline or OfflineSettings(), Health())))
            backend = Backend()
            found = []
            for number in range(pods):
                kind = FakeSidecar if pods == 1 else OneOfSeveral
                sidecar = kind(actor_types=("UserSessionActor",), backend=backend)
                await stack.enter_async_context(sidecar)
                sidecar.services["agent-memory-service"] = memory
                port = free_port()
                options = {"model_base_url": f"{url}/v1", "pod_name": f"pod-{chr(ord('a') + number)}"} | settings
                # Clients, sidecar and model share the event loop with the service, so how late that is tells nothing.
                shared = {"turn_late_ms": 10_000}
                given: dict[str, Any] = {"dapr_http_port": sidecar.port, "port": port} | shared | options
                service = Service(Settings(**given))
                if isinstance(sidecar, OneOfSeveral):
                    sidecar.service = service
                sidecar.app_url = await stack.enter_async_context(serving(service.app, port))
                limits = httpx2.Limits(max_connections=None, max_keepalive_connections=20)
                client = httpx2.AsyncClient(base_url=sidecar.app_url, timeout=20, limits=limits)
                found.append(Pod(sidecar, service, await stack.enter_async_context(client)))
            return found

        yield started


class SlowModel:
    """Answers word by word, each when it is told to; counts the calls that are open."""

    def __init__(self) -> None:
        self.calls = 0
        self.open = 0
        self.go_on = asyncio.Semaphore(0)
        self.words = ["one ", "two ", "three"]
        self.app = Starlette(routes=[Route("/v1/chat/completions", self.answer, methods=["POST"])])

    def finish(self) -> None:
        """Lets all go on that run, or will."""
        for _ in range(1000):
            self.go_on.release()

    async def answer(self, request: Request) -> Response:
        self.calls += 1
        if (await request.json()).get("stream"):
            return StreamingResponse(self._words(), media_type="text/event-stream")
        self.open += 1
        going = asyncio.create_task(self.go_on.acquire())
        gone = asyncio.create_task(self._gone(request))
        await asyncio.wait({going, gone}, return_when=asyncio.FIRST_COMPLETED)
        for task in (going, gone):
            task.cancel()
        self.open -= 1
        message = {"role": "assistant", "content": "".join(self.words)}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return JSONResponse({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]})

    async def _gone(self, request: Request) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    async def _words(self) -> AsyncIterator[str]:
        self.open += 1
        try:
            for word in self.words:
                await self.go_on.acquire()
                yield self._chunk({"role": "assistant", "content": word}, None)
            yield self._chunk({}, "stop")
            yield "data: [DONE]\n\n"
        finally:
            self.open -= 1

    def _chunk(self, delta: dict[str, str], finish: str | None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        return f"data: {json.dumps(chunk)}\n\n"


def kind(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"]


async def read(answer: httpx2.Response, count: int | Callable[[Event], bool]) -> list[Event]:
    """The next events of a stream: so many, or up to one."""
    seen: list[Event] = []
    lines: list[str] = []
    async for line in answer.aiter_lines():
        lines.append(line)
        seen = list(events(lines))
        if seen and (len(seen) == count if isinstance(count, int) else count(seen[-1])):
            break
    return seen
