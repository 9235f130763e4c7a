"""Two pods: a message that reaches the one is answered where its user's session lives, whatever happens to that."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from chat_service.document import Document
from chat_service.hosting import COUNTS
from chat_service.sessions import REPEATED_SECONDS
from support.chat import STREAM, Pod, SlowModel, Start, kind
from support.sse import events
from support.waiting import until

ALICE = ("UserSessionActor", "junaid")


@pytest.fixture
def model() -> SlowModel:
    return SlowModel()


@pytest.fixture
async def pods(start: Start) -> list[Pod]:
    """Two pods; the session of junaid lives in the first."""
    found = await start(2)
    assert (await found[0].say("Hi there")).status_code == 200
    return found


def calls(pod: Pod, method: str) -> int:
    return sum(method in request for request in pod.sidecar.requests)


class TestRelayed:
    async def test_a_message_is_answered_by_the_pod_where_the_session_lives(self, pods: list[Pod]):
        _, two = pods
        answer = await two.say("What did I say before?", key="k1")
        assert (answer.status_code, answer.json()["sequence"]) == (200, 2)
        assert "Hi there" in answer.json()["reply"]
        assert answer.headers["Idempotency-Key"] == "k1"
        assert two.service.host.find("junaid") is None

    async def test_where_it_lives_is_asked_once(self, pods: list[Pod]):
        for number in range(5):
            assert (await pods[1].say(f"m{number}")).status_code == 200
        assert calls(pods[1], "Locate") == 1
        assert calls(pods[1], "BeginTurn") == 0

    async def test_a_stream_is_handed_on_as_it_comes(self, pods: list[Pod]):
        *tokens, last = events((await pods[1].say("hello", headers=STREAM)).text.split("\n"))
        assert {event.kind for event in tokens} == {"token"}
        assert "".join(event.data["text"] for event in tokens) == last.data["reply"]

    async def test_a_replay_says_so_through_either_pod(self, pods: list[Pod]):
        first = await pods[0].say("once", key="k1")
        again = await pods[1].say("once", key="k1")
        assert (again.content, again.headers["Idempotency-Replayed"]) == (first.content, "true")

    async def test_problems_come_back_as_they_are(self, pods: list[Pod]):
        await pods[0].say("once", key="k1")
        assert kind(await pods[1].say("another", key="k1")) == (422, "/problems/key-reused")

    async def test_messages_through_both_pods_are_answered_in_the_order_in_which_they_arrived(
        self, start: Start, model: SlowModel
    ):
        pods = await start(2, model=model.app)
        texts = [f"m{number}" for number in range(8)]
        waiting = []
        for number, text in enumerate(texts):
            waiting.append(asyncio.create_task(pods[number % 2].say(text)))
            await until(lambda number=number: pods[0].service.admission.open == number + 1)  # type: ignore[misc]
        model.finish()
        assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}
        assert pods[0].history() == texts

    async def test_a_request_that_was_handed_on_is_never_handed_on_again(self, pods: list[Pod]):
        answer = await pods[1].say("hi", headers={"Daca-Relayed": "true"})
        assert kind(answer) == (421, "/problems/misdirected")


class TestMoves:
    async def test_a_session_that_has_moved_is_looked_for_again(self, pods: list[Pod]):
        one, two = pods
        await two.say("through the other")
        await one.move(two)
        await two.move(one)
        await one.move(two)
        assert (await one.say("to the old host")).json()["sequence"] == 3
        assert one.service.host.find("junaid") is None
        assert two.history() == ["Hi there", "through the other", "to the old host"]

    async def test_a_stream_of_a_session_that_has_moved_comes_from_where_it_is_now(self, start: Start):
        one, two, three = await start(3)
        await one.say("Hi there")
        await two.say("two knows now where the session is")
        await one.move(three)
        kinds = [event.kind for event in events((await two.say("and now?", headers=STREAM)).text.split("\n"))]
        assert (kinds[-1], "restart" in kinds) == ("message", False)
        assert three.history()[-1] == "and now?"
        assert two.service.host.find("junaid") is None

    async def test_a_turn_whose_session_moves_while_the_model_runs_is_committed_once(
        self, start: Start, model: SlowModel
    ):
        one, two = await start(2, model=model.app)
        asked = asyncio.create_task(one.say("hi"))
        await until(lambda: model.open)
        await one.move(two)
        model.finish()
        assert (await asked).json()["sequence"] == 1
        assert (one.history(), model.calls) == (["hi"], 1)

    async def test_those_who_wait_for_a_session_that_moves_are_answered_in_their_order(
        self, start: Start, model: SlowModel
    ):
        one, two = await start(2, model=model.app)
        texts = [f"m{number}" for number in range(4)]
        waiting = []
        for number, text in enumerate(texts):
            waiting.append(asyncio.create_task(one.say(text)))
            await until(lambda number=number: one.service.admission.open == number + 1)  # type: ignore[misc]
        await until(lambda: model.open)
        await one.move(two)
        model.finish()
        assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}
        assert one.history() == texts

    async def test_events_of_a_session_that_moves_before_they_left_are_published_without_its_user(
        self, pods: list[Pod]
    ):
        one, two = pods
        down = True

        async def broker(request: Any) -> Any:
            if down and "/publish/" in request.path:
                request.transport.close()
            return None

        one.sidecar.before = two.sidecar.before = broker
        await one.say("committed")
        await one.move(two)
        down = False
        await until(
            lambda: [item.event["data"]["user_message"] for item in one.sidecar.published].count("committed"), 10
        )


class TestSessionsThatEndWithoutAWord:
    """As a sidecar does that takes its app for unhealthy, or that was killed."""

    async def test_it_ends_here_too(self, pods: list[Pod]):
        one, _ = pods
        del one.sidecar.backend.active[ALICE]
        await until(lambda: one.service.host.find("junaid") is None, 10)
        answer = await one.say("What did I say before?")
        assert (answer.json()["sequence"], "Hi there" in answer.json()["reply"]) == (2, True)

    async def test_one_in_which_a_turn_runs_goes_on(self, start: Start, model: SlowModel):
        (one,) = await start(1, model=model.app)
        saying = asyncio.create_task(one.say("first"))
        await until(lambda: model.open)
        counted = calls(one, "metadata")
        del one.sidecar.backend.active[ALICE]
        await until(lambda: calls(one, "metadata") > counted + COUNTS, 10)
        assert one.service.host.find("junaid") is not None
        model.finish()
        assert (await saying).status_code == 200

    async def test_one_that_comes_back_is_another_activation(self, pods: list[Pod]):
        one, two = pods
        before = await one.tell("Locate")
        one.sidecar.backend.active[ALICE] = two.sidecar
        assert (await two.tell("Locate"))["host"] != before["host"]
        await until(lambda: one.service.host.find("junaid") is None, 10)
        await two.move(one)
        after = await one.tell("Locate")
        assert after["host"] == before["host"]
        assert after["activation_id"] != before["activation_id"]


class TestPodsThatGo:
    async def test_a_pod_that_drains_leaves_its_turns_to_the_others(self, pods: list[Pod]):
        one, two = pods
        one.service.open_turns.draining = True
        assert (await two.say("What did I say before?")).json()["sequence"] == 2
        refused = await one.say("directly")
        assert kind(refused) == (503, "/problems/draining")
        assert refused.headers["Connection"] == "close"

    async def test_who_waits_at_a_pod_that_drains_is_answered_by_the_pod_that_handed_them_on(
        self, start: Start, model: SlowModel
    ):
        one, two = await start(2, model=model.app)
        first = asyncio.create_task(one.say("first"))
        await until(lambda: model.open)
        second = asyncio.create_task(two.say("second"))
        await until(lambda: one.service.admission.open == 2)
        streamed = asyncio.create_task(two.say("streamed", headers=STREAM))
        await until(lambda: one.service.admission.open == 3)
        third = asyncio.create_task(one.say("third, directly"))
        await until(lambda: one.service.admission.open == 4)
        draining = asyncio.create_task(one.service.open_turns.drain())
        assert kind(await third) == (503, "/problems/draining")
        model.finish()
        assert [(await task).status_code for task in (first, second)] == [200, 200]
        assert [event.kind for event in events((await streamed).text.split("\n"))][-1] == "message"
        await draining
        assert one.history() == ["first", "second", "streamed"]

    async def test_a_host_that_can_not_be_reached_directly_is_called_through_dapr(self, pods: list[Pod]):
        one, two = pods
        one.service.host.address = "127.0.0.1:1"  # nothing gets from pod to pod
        assert (await two.say("What did I say before?")).json()["sequence"] == 2
        assert calls(two, "CompleteTurn") == 1

    @pytest.mark.parametrize("method", ["Locate", "BeginTurn", "CompleteTurn"])
    async def test_a_call_that_a_stopping_sidecar_never_answers_is_repeated_soon(self, pods: list[Pod], method: str):
        one, two = pods
        if method != "Locate":
            one.service.host.address = "127.0.0.1:1"  # so that the turn runs in the second pod

        async def lost(request: Any) -> Any:
            if request.path.endswith(f"/{method}") and calls(two, method) == 1:
                await asyncio.Event().wait()
            return None

        two.sidecar.before = lost
        async with asyncio.timeout(REPEATED_SECONDS + 4):
            assert (await two.say("What did I say before?")).json()["sequence"] == 2
        assert calls(two, method) > 1

    async def test_a_stream_whose_host_goes_in_the_middle_starts_again_and_is_committed_once(
        self, start: Start, model: SlowModel
    ):
        one, two = await start(2, model=model.app)
        seen: list[str] = []

        async def ask() -> None:
            body = {"user_id": "junaid", "text": "tell me"}
            async with two.client.stream("POST", "/chat/", json=body, headers=STREAM) as stream:
                async for line in stream.aiter_lines():
                    seen.append(line)  # noqa: PERF401 - each is looked at as it comes

        # The session lives in the first pod.
        await one.tell("Locate")
        asked = asyncio.create_task(ask())
        model.go_on.release()
        await until(lambda: model.open)
        await until(lambda: seen)
        self._die(one, two)
        await until(lambda: model.calls == 2)
        model.finish()
        await asyncio.wait_for(asked, 10)
        kinds = [event.kind for event in events(seen)]
        assert (kinds[0], kinds[-1], kinds.count("restart"), kinds.count("message")) == ("token", "message", 1, 1)
        assert two.history() == ["tell me"]

    def _die(self, host: Pod, other: Pod) -> None:
        """The host's turns end without a word, its connections break, and its actors are nowhere."""
        for of_user in host.service.open_turns._open.values():
            for turn in of_user.values():
                turn._tell = lambda *_: None  # type: ignore[method-assign]
                turn._task.cancel()
        host.service.host._sessions.clear()
        host.sidecar.backend.active.clear()
        host.sidecar.backend.hosts.remove(host.sidecar)
        for connection in list(other.service.relay._client.connector._acquired):
            connection.transport.abort()


class TestLostData:
    async def test_a_user_goes_on_after_everything_was_lost(self, pods: list[Pod]):
        one, _ = pods
        one.sidecar.actor_state.clear()
        for number in range(4):
            answer = await pods[number % 2].say(f"after {number}", key=f"k{number}")
            assert answer.status_code == 200
            again = await pods[number % 2].say(f"after {number}", key=f"k{number}")
            assert again.content == answer.content
        assert [text for text in one.history() if text.startswith("after")] == [f"after {n}" for n in range(4)]

    @pytest.mark.parametrize("count", [1, 3, 40])
    async def test_a_user_goes_on_after_an_older_value_was_restored(self, pods: list[Pod], count: int):
        one, _ = pods
        state = one.sidecar.actor_state[ALICE]
        older = json.loads(json.dumps(state.get("history-junaid")))
        await one.say("lost")
        state.restore("history-junaid", older, count)
        for number in range(3):
            assert (await pods[number % 2].say(f"after {number}")).status_code == 200
        assert one.history() == ["Hi there", "after 0", "after 1", "after 2"]

    async def test_a_value_that_somebody_wrote_without_an_etag_is_gone_on_from(self, pods: list[Pod]):
        one, _ = pods
        state = one.sidecar.actor_state[ALICE]
        written = replace(Document.load(state.get("history-junaid")), running_summary="by hand")
        state.set("history-junaid", written.dump())
        for number in range(2):
            assert (await one.say(f"after {number}")).status_code == 200
        assert one.history() == ["Hi there", "after 0", "after 1"]
        assert Document.load(state.get("history-junaid")).running_summary == "by hand"
