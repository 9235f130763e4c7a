"""What clients of every kind bring: proxies, odd headers, other origins, keys as the IETF has them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import orjson
import pytest
from support.chat import JUNAID, STREAM, Pod, SlowModel, Start, kind
from support.sse import events
from support.waiting import until

ORIGIN = {"Origin": "http://localhost:3000"}
BODY = {"user_id": "junaid", "text": "hi"}


def fields(answer: httpx2.Response) -> list[tuple[str, str]]:
    return [(error["field"], error["location"]) for error in answer.json()["errors"]]


class TestPaths:
    async def test_nothing_redirects_behind_a_proxy_that_ends_tls(self, pod: Pod):
        proxied = {"Host": "chat.example.org", "X-Forwarded-Proto": "https"}
        await pod.say("hi", key="k1")
        for method, path in (
            ("POST", "/chat"),
            ("POST", "/chat/"),
            ("GET", "/chat/junaid/turns/k1/"),
            ("GET", "/chat/junaid/turns/k1/events/"),
            ("POST", "/chat/junaid/turns/k1/cancel/"),
            ("DELETE", "/chat/junaid/history/"),
            ("GET", "/docs/"),
            ("GET", "/readyz/"),
        ):
            answer = await pod.client.request(
                method, path, json=BODY if path.strip("/")[-1] == "t" else None, headers=proxied
            )
            assert answer.status_code == 200, path

    async def test_an_id_in_a_path_is_named_whatever_is_encoded_in_it(self, pod: Pod):
        await pod.say("hi")
        for path, field in (
            ("/chat/junaid%2Fhistory/history", "user_id"),
            ("/chat/%00/history", "user_id"),
            ("/chat/junaid%0A/history", "user_id"),
            ("/chat/..%2Fjunaid/history", "user_id"),
        ):
            answer = await pod.client.delete(path)
            assert (answer.status_code, fields(answer)) == (422, [(field, "path")])
        assert (await pod.client.delete("/chat/junaid/history%0A")).status_code == 404
        assert (await pod.client.delete("/chat/junaid%2Fhistory")).status_code == 404
        assert pod.history() == ["hi"]

    async def test_head_is_get_without_a_body(self, pod: Pod):
        answer = await pod.client.head("/")
        assert (answer.status_code, answer.content) == (200, b"")
        assert kind(await pod.client.options("/chat/")) == (405, "/problems/method-not-allowed")


class TestAccept:
    @pytest.mark.parametrize("accept", ["TEXT/event-stream", "text/*", "application/json;q=0.5, text/event-stream"])
    async def test_a_client_that_prefers_events_gets_them(self, pod: Pod, accept: str):
        answer = await pod.say("hi", headers={"Accept": accept})
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert list(events(answer.text.split("\n")))[-1].kind == "message"

    @pytest.mark.parametrize("accept", ["", "*/*", "application/json, text/event-stream", "text/event-stream;q=0, */*"])
    async def test_others_get_json(self, pod: Pod, accept: str):
        assert (await pod.say("hi", headers={"Accept": accept})).json()["user_id"] == "junaid"

    async def test_who_wants_neither_is_refused_and_nothing_is_committed(self, pod: Pod):
        refused = await pod.say("hi", headers={"Accept": "text/html"})
        assert kind(refused) == (406, "/problems/not-acceptable")
        assert fields(refused) == [("Accept", "header")]
        assert pod.history() == []

    async def test_it_is_heeded_wherever_the_session_lives(self, start: Start):
        pods = await start(2)
        await pods[0].say("hi")
        for pod in pods:
            answer = await pod.say("hi", headers={"Accept": "application/json;q=0.1,Text/Event-Stream"})
            assert list(events(answer.text.split("\n")))[-1].kind == "message"

    async def test_no_proxy_is_to_hold_events_back(self, pod: Pod):
        streamed = await pod.say("hi", key="k1", headers=STREAM)
        resumed = await pod.client.get("/chat/junaid/turns/k1/events", headers=STREAM)
        assert [answer.headers["x-accel-buffering"] for answer in (streamed, resumed)] == ["no", "no"]


class TestKeys:
    @pytest.mark.parametrize("spelled", ['"key-1"', '"key-1";a=1', '"key-1"; b; c="d"'])
    async def test_a_quoted_key_and_the_bare_one_are_the_same(self, pod: Pod, spelled: str):
        first = await pod.say("hi", key="key-1")
        again = await pod.say("hi", key=spelled)
        assert (again.content, again.headers["idempotency-key"]) == (first.content, "key-1")
        assert pod.history() == ["hi"]

    @pytest.mark.parametrize(
        "spelled",
        [
            "",
            '"',
            '""',
            '"a',
            'a"',
            '"a"b',
            '"a", "b"',
            '"a\\"b"',
            '"a\\\\"',
            '"a\\b"',
            '"a b"',
            "a/b",
            "'a'",
            ":YQ==:",
            "k\u00fc",
        ],
    )
    async def test_what_is_no_key_is_refused_by_name(self, pod: Pod, spelled: str):
        refused = await pod.client.post("/chat/", json=BODY, headers=[(b"Idempotency-Key", spelled.encode("latin-1"))])
        assert (refused.status_code, fields(refused)) == (422, [("Idempotency-Key", "header")])
        assert pod.history() == []

    async def test_two_keys_are_refused(self, pod: Pod):
        headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
        refused = await pod.client.post("/chat/", json=BODY, headers=headers)
        assert (refused.status_code, fields(refused)) == (422, [("Idempotency-Key", "header")])

    async def test_a_retry_that_names_the_session_of_the_first_answer_is_the_same_request(self, pod: Pod):
        first = await pod.say("hi", key="k1")
        session = {"metadata": {"session_id": first.json()["metadata"]["session_id"]}}
        again = await pod.say("hi", key="k1", body=session)
        assert (again.status_code, again.content) == (200, first.content)
        assert again.headers["idempotency-replayed"] == "true"
        other = await pod.say("hi", key="k1", body={"metadata": {"session_id": "another"}})
        assert kind(other) == (422, "/problems/key-reused")

    async def test_a_session_that_no_try_names_is_the_same_for_each_try_under_a_key(self, pod: Pod):
        sessions = []
        for user_id in ("junaid", "junaid", "ayesha"):
            answer = await pod.say("hi", user_id=user_id, key="k1")
            sessions.append(answer.json()["metadata"]["session_id"])
            await pod.tell("Erase", user_id)  # nothing tells of the try before
        assert sessions[0] == sessions[1] != sessions[2]

    async def test_a_retry_that_meets_the_end_of_a_try_whose_client_hung_up_is_answered(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ):
        model = SlowModel()
        (pod,) = await start(model=model.app)
        turns, go_on = pod.service.open_turns.turns, asyncio.Event()
        abandon = turns._abandon

        async def slow(*told: Any) -> None:
            await go_on.wait()
            await abandon(*told)

        monkeypatch.setattr(turns, "_abandon", slow)
        first = asyncio.create_task(pod.say("hi", key="k1"))
        await until(lambda: model.open)
        opened = pod.service.open_turns.find("junaid", "k1")
        assert opened is not None
        first.cancel()
        await until(lambda: opened.left)
        again = asyncio.create_task(pod.say("hi", key="k1"))
        await until(lambda: pod.service.open_turns.find("junaid", "k1") is not opened)
        go_on.set()
        model.finish()
        assert (await again).status_code == 200
        assert pod.history() == ["hi"]
        assert pod.service.admission.open == 0


class TestOtherOrigins:
    async def refusals(self, pod: Pod) -> AsyncIterator[httpx2.Response]:
        yield await pod.say("", headers=ORIGIN)
        yield await pod.say("hi", user_id="a/b", headers=ORIGIN)
        yield await pod.say("hi", headers=ORIGIN | {"Accept": "text/html"})
        yield await pod.say("x" * 3_000_000, headers=ORIGIN)
        yield await pod.client.post("/chat/", content=b"{", headers=ORIGIN | {"Content-Type": "application/json"})
        yield await pod.client.get("/nothing", headers=ORIGIN)
        yield await pod.client.put("/chat/", headers=ORIGIN)
        yield await pod.client.put("/actors/UserSessionActor/a/method/Erase", headers=ORIGIN)
        pod.service.admission.open = 1_000_000
        yield await pod.say("hi", headers=ORIGIN)
        pod.service.admission.open = 0

    async def test_a_page_can_read_every_answer(self, start: Start):
        (pod,) = await start(app_api_token="token-1")
        statuses = []
        async for answer in self.refusals(pod):
            statuses.append(answer.status_code)
            assert answer.headers["access-control-allow-origin"] == ORIGIN["Origin"]
            exposed = answer.headers["access-control-expose-headers"].split(", ")
            assert {"Retry-After", "Trace-Id", "Idempotency-Key", "Idempotency-Replayed"} <= set(exposed)
            assert answer.json()["type"].startswith("/problems/")
        assert statuses == [400, 422, 406, 413, 400, 404, 405, 401, 503]

    async def test_a_fault_of_ours_can_be_read_too(self, pod: Pod, monkeypatch: pytest.MonkeyPatch):
        async def fail(*_: Any) -> None:
            raise RuntimeError("nobody expected this")

        monkeypatch.setattr(pod.service.memory, "sessions", fail)
        answer = await pod.client.get("/chat/junaid/sessions", headers=ORIGIN)
        assert kind(answer) == (500, "/problems/unexpected")
        assert answer.headers["access-control-allow-origin"] == ORIGIN["Origin"]

    async def test_a_preflight_that_is_refused_says_of_what(self, pod: Pod):
        headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
        refused = await pod.client.options("/chat/", headers=headers)
        assert kind(refused) == (403, "/problems/cors-refused")
        assert "origin" in refused.json()["detail"]
        assert "access-control-allow-origin" not in refused.headers


class TestTraces:
    async def test_an_answer_names_its_trace(self, pod: Pod):
        trace = "0af7651916cd43dd8448eb211c80319c"
        answer = await pod.say("hi", headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
        assert answer.headers["trace-id"] == trace

    @pytest.mark.parametrize("sent", ["a-b-c-d", "00-junaid-said-so", "00-" + "0" * 32 + "-b7ad6b7169203331-01", "-"])
    async def test_what_is_no_trace_context_is_not_taken_for_one(
        self, pod: Pod, sent: str, caplog: pytest.LogCaptureFixture
    ):
        with caplog.at_level("INFO"):
            answer = await pod.say("hi", headers={"traceparent": sent})
        assert len(answer.headers["trace-id"]) == 32
        assert set(answer.headers["trace-id"]) != {"0"}
        (line,) = [record for record in caplog.records if getattr(record, "route", "") == "/chat/"]
        assert vars(line)["trace_id"] == answer.headers["trace-id"]


class TestConversations:
    async def test_a_users_conversations_are_listed(self, pod: Pod):
        asked = []
        listed = {"sessions": [{"session_id": "s1", "last_turn_at": "2026-11-26T20:00:00Z"}], "before": "0.3"}

        async def memory(method: str, path: str, _: bytes) -> tuple[int, bytes]:
            asked.append((method, path))
            return 200, orjson.dumps(listed)

        pod.sidecar.services["agent-memory-service"] = memory
        answer = await pod.client.get("/chat/junaid@example.com/sessions?limit=1&before=0.4")
        assert (answer.status_code, answer.json()) == (200, listed)
        assert asked == [("GET", "memories/junaid%40example.com/sessions?limit=1&before=0.4")]

    @pytest.mark.parametrize(
        ("query", "field"),
        [("limit=0", "limit"), ("limit=101", "limit"), ("limit=x", "limit"), ("before=../x", "before")],
    )
    async def test_they_are_asked_for_within_bounds(self, pod: Pod, query: str, field: str):
        answer = await pod.client.get(f"/chat/junaid/sessions?{query}")
        assert (answer.status_code, fields(answer)) == (422, [(field, "query")])

    @pytest.mark.parametrize("told", [b"{}", b"[]", orjson.dumps(JUNAID)])
    async def test_without_the_memory_service_they_are_a_503(self, pod: Pod, told: bytes):
        async def memory(*_: Any) -> tuple[int, bytes]:
            return 200, told

        pod.sidecar.services["agent-memory-service"] = memory
        answer = await pod.client.get("/chat/junaid/sessions")
        assert kind(answer) == (503, "/problems/memory-unavailable")
        assert answer.headers["retry-after"] == "1"
        pod.sidecar.services.clear()
        assert kind(await pod.client.get("/chat/junaid/sessions")) == (503, "/problems/memory-unavailable")
