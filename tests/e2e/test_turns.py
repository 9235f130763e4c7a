"""Turns off the happy path, on the cluster: many at once, long lives, crashes, lost data, hang-ups, resume, erasure."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import quote, urlencode

import httpx2
import pytest
from support.sse import events

from cluster.client import CHAT

pytestmark = pytest.mark.e2e

PLENTY = 60
"""Seconds in which an event that is owed must arrive once everything is back."""
KEPT = 40
"""Exchanges that a document holds at most while events flow: 5 of the window, 20 that wait for the running summary, and
those whose event or receipt is on its way."""


def message(user_id, text, session_id=None):
    body = {"user_id": user_id, "text": text}
    return body | ({"metadata": {"session_id": session_id}} if session_id else {})


def said(history):
    return [entry["content"] for entry in history if entry["role"] == "user"]


@contextmanager
def no_broker(cluster):
    """Redis goes on as state store and refuses events."""
    cluster.redis("ACL", "SETUSER", "default", "-xadd")
    try:
        yield
    finally:
        cluster.redis("ACL", "SETUSER", "default", "+xadd")


@pytest.fixture(scope="module")
def slow_model(cluster):
    """A model that takes its time, so that something can happen meanwhile."""
    cluster.upgrade("--set", "offlineModel.latencyMs=1500")
    yield
    cluster.upgrade("--set", "offlineModel.latencyMs=0")


@pytest.fixture
def chat(cluster):
    """A client of the chat API that keeps its connections."""
    with httpx2.Client(base_url=cluster.reach.url(CHAT), timeout=60) as client:
        yield client


@pytest.fixture
def pods(cluster):
    """The addresses of two chat pods."""
    first, second = cluster.pods(CHAT)[:2]
    with cluster.pod_url(first, 8010) as one, cluster.pod_url(second, 8010) as two:
        yield one, two


class TestManyAtOnce:
    def test_fifty_clients_of_one_user_are_answered_one_after_the_other(self, cluster, chat, user_id):
        texts = [f"message {number}" for number in range(50)]
        session_id = f"session-{user_id}"
        with ThreadPoolExecutor(50) as pool:
            answers = list(pool.map(lambda text: chat.post("/chat/", json=message(user_id, text, session_id)), texts))
        assert {answer.status_code for answer in answers} == {200}
        assert sorted(answer.json()["sequence"] for answer in answers) == list(range(1, 51))
        by_sequence = {answer.json()["sequence"]: text for answer, text in zip(answers, texts, strict=True)}
        transcript = said(cluster.said(session_id, 100))
        assert transcript == [by_sequence[number] for number in range(1, 51)]

    def test_fifty_users_at_once_each_get_their_own(self, chat, user_id):
        with ThreadPoolExecutor(50) as pool:
            answers = list(pool.map(lambda n: chat.post("/chat/", json=message(f"{user_id}-{n}", "hi")), range(50)))
        assert [(answer.status_code, answer.json()["sequence"]) for answer in answers] == [(200, 1)] * 50

    def test_far_too_many_at_once_are_refused_at_once_and_the_pods_stay_what_they_were(self, cluster, user_id):
        before = restarts(cluster)
        limits = httpx2.Limits(max_connections=600)
        with httpx2.Client(base_url=cluster.reach.url(CHAT), timeout=60, limits=limits) as chat:

            def person(number):
                """Sends messages for some seconds, and comes back after a refusal when it is told to."""
                told, end = [], time.monotonic() + 8
                while time.monotonic() < end:
                    told.append(chat.post("/chat/", json=message(f"{user_id}-{number}", "hi")))
                    time.sleep(float(told[-1].headers.get("Retry-After", 0)))
                return told

            with ThreadPoolExecutor(300) as pool:
                answers = [answer for told in pool.map(person, range(300)) for answer in told]
        refused = [answer for answer in answers if answer.status_code != 200]
        assert {(answer.status_code, answer.json()["type"]) for answer in refused} == {(503, "/problems/overloaded")}
        assert {answer.headers["Retry-After"] for answer in refused} == {"1"}
        assert len(answers) - len(refused) > 100
        cluster.wait_for(lambda: restarts(cluster) == before)
        with httpx2.Client(base_url=cluster.reach.url(CHAT), timeout=60) as chat:
            assert chat.post("/chat/", json=message(f"{user_id}-0", "and now?")).status_code == 200

    @pytest.mark.parametrize("turns", [1000, pytest.param(10_000, marks=[pytest.mark.long, pytest.mark.timeout(1800)])])
    def test_one_user_sends_many_messages_back_to_back_and_what_is_kept_for_the_next_does_not_grow(
        self, cluster, chat, user_id, turns
    ):
        session_id = f"session-{user_id}"
        kept = []
        for number in range(1, turns + 1):
            answer = chat.post("/chat/", json=message(user_id, f"message {number}", session_id))
            assert (answer.status_code, answer.json()["sequence"]) == (200, number), answer.text
            if number % 250 == 0:
                kept.append(len(document(cluster, user_id)["exchanges"]))
        assert max(kept) <= KEPT, kept
        cluster.wait_for(lambda: said(page(cluster, session_id)["history"])[-1] == f"message {turns}", PLENTY)
        assert said(whole(cluster, session_id)) == [f"message {number}" for number in range(1, turns + 1)]


def restarts(cluster):
    """How often each container of the ready chat pods was started again."""
    return {
        (pod.metadata.name, status.name): status.restart_count
        for pod in cluster.pods(CHAT)
        for status in pod.status.container_statuses
    }


def page(cluster, session_id, **options):
    query = urlencode({"limit": 10} | options)
    return cluster.memory("GET", f"conversations/{quote(session_id)}?{query}").json()


def whole(cluster, session_id):
    """A transcript, read page by page from its end."""
    history, options = [], {"limit": 200}
    while True:
        found = page(cluster, session_id, **options)
        history = found["history"] + history
        if found.get("before") is None:
            return history
        options["before"] = found["before"]


def document(cluster, user_id):
    """What is written for a turn: the user's document as it is stored."""
    return json.loads(cluster.redis("HGET", f"chat-service||UserSessionActor||{user_id}||history-{user_id}", "data"))


class TestKeys:
    def test_a_retry_gets_the_same_reply_after_sixty_turns_a_cleared_history_and_another_activation(
        self, cluster, chat, user_id
    ):
        def retried():
            answer = chat.post("/chat/", json=message(user_id, "the first"), headers={"Idempotency-Key": "k1"})
            return answer.status_code, answer.content

        first = retried()
        assert first[0] == 200
        for number in range(60):
            assert chat.post("/chat/", json=message(user_id, f"message {number}")).status_code == 200
        assert retried() == first
        assert chat.delete(f"/chat/{user_id}/history").status_code == 200
        assert retried() == first
        cluster.delete_pod(cluster.actor(user_id, "Locate")["host"])
        cluster.settle()
        with httpx2.Client(base_url=cluster.reach.url(CHAT), timeout=60) as anew:
            answer = anew.post("/chat/", json=message(user_id, "the first"), headers={"Idempotency-Key": "k1"})
        assert (answer.status_code, answer.content) == first


class TestCrashes:
    def test_events_of_killed_pods_arrive_although_their_users_never_return(self, cluster, chat, user_id):
        users = [f"{user_id}-{number}" for number in range(20)]
        with no_broker(cluster):
            for user in users:
                assert chat.post("/chat/", json=message(user, "committed", f"session-{user}")).status_code == 200
            for pod in cluster.pods(CHAT):
                cluster.kube.core.delete_namespaced_pod(pod.metadata.name, cluster.namespace, grace_period_seconds=0)
            cluster.settle()
        for user in users:
            cluster.wait_for(lambda user=user: cluster.client.transcript(f"session-{user}"), PLENTY)

    @pytest.mark.parametrize("seconds", [30, pytest.param(120, marks=pytest.mark.long)])
    def test_a_broker_that_is_down_delays_events_and_stops_nobody(self, cluster, chat, user_id, seconds):
        session_id = f"session-{user_id}"
        sent = 0
        with no_broker(cluster):
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                sent += 1
                if sent <= 90:
                    answer = chat.post("/chat/", json=message(user_id, f"message {sent}", session_id))
                    assert answer.status_code == 200, answer.text
                else:
                    sent -= 1
                time.sleep(1)
        back = time.monotonic()
        history = cluster.said(session_id, 2 * sent)
        assert said(history) == [f"message {number}" for number in range(1, sent + 1)]
        assert time.monotonic() - back < 30


class TestLostData:
    def test_everybody_goes_on_after_redis_has_lost_everything(self, cluster, chat, user_id):
        users = [f"{user_id}-{number}" for number in range(5)]
        for user in users:
            for number in range(3):
                assert chat.post("/chat/", json=message(user, f"before {number}")).status_code == 200
        cluster.redis("FLUSHALL")
        for user in users:
            for number in range(3):
                key = {"Idempotency-Key": f"after-{number}"}
                answer = chat.post("/chat/", json=message(user, f"after {number}"), headers=key)
                assert answer.status_code == 200, answer.text
                again = chat.post("/chat/", json=message(user, f"after {number}"), headers=key)
                assert again.content == answer.content
            window = [item["user_text"] for item in cluster.actor(user, "GetConversationHistory")]
            assert [text for text in window if text.startswith("after")] == [f"after {number}" for number in range(3)]

    @pytest.mark.parametrize("count", ["1", "7", "5000"])
    def test_a_user_goes_on_after_an_older_value_was_restored_with_another_count(self, cluster, chat, user_id, count):
        key = f"chat-service||UserSessionActor||{user_id}||history-{user_id}"
        for number in range(3):
            assert chat.post("/chat/", json=message(user_id, f"before {number}")).status_code == 200
        older = json.loads(cluster.redis("HGET", key, "data"))
        for number in range(3, 5):
            assert chat.post("/chat/", json=message(user_id, f"before {number}")).status_code == 200
        cluster.redis("HSET", key, "data", json.dumps(older), "version", count)
        for number in range(3):
            answer = chat.post("/chat/", json=message(user_id, f"after {number}"))
            assert answer.status_code == 200, answer.text
        window = [item["user_text"] for item in cluster.actor(user_id, "GetConversationHistory")]
        assert window == ["before 1", "before 2", "after 0", "after 1", "after 2"]


@pytest.mark.usefixtures("slow_model")
class TestClientsThatLeave:
    def test_who_hangs_up_in_the_line_leaves_it(self, cluster, chat, user_id):
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(chat.post, "/chat/", json=message(user_id, "first"))
            cluster.wait_for(lambda: self._is_open(cluster, user_id))
            with pytest.raises(httpx2.TimeoutException):
                chat.post("/chat/", json=message(user_id, "gave up"), timeout=0.5)
            assert first.result().status_code == 200
        assert chat.post("/chat/", json=message(user_id, "next")).json()["sequence"] == 2
        assert self._window(cluster, user_id) == ["first", "next"]

    def test_who_hangs_up_while_the_model_runs_stores_nothing_and_holds_nobody_up(self, cluster, chat, user_id):
        with pytest.raises(httpx2.TimeoutException):
            chat.post("/chat/", json=message(user_id, "gave up"), timeout=0.7)
        started = time.monotonic()
        assert chat.post("/chat/", json=message(user_id, "next")).json()["sequence"] == 1
        assert time.monotonic() - started < 4  # the model's 1.5 s, not the lease's 5 before them
        assert self._window(cluster, user_id) == ["next"]

    def test_who_hangs_up_in_a_stream_without_a_key_stores_nothing(self, cluster, chat, user_id):
        with chat.stream("POST", "/chat/", json=message(user_id, "gave up"), headers={"Accept": "text/event-stream"}):
            pass
        assert chat.post("/chat/", json=message(user_id, "next")).json()["sequence"] == 1
        assert self._window(cluster, user_id) == ["next"]

    def test_a_stream_that_broke_is_resumed_through_another_pod(self, cluster, pods, user_id):
        one, two = pods
        headers = {"Accept": "text/event-stream", "Idempotency-Key": "k1"}
        with (
            httpx2.Client(timeout=60) as client,
            client.stream("POST", f"{one}/chat/", json=message(user_id, "hi"), headers=headers) as stream,
        ):
            seen = [event for event, _ in zip(events(stream.iter_lines()), range(3), strict=False)]
        assert {event.kind for event in seen} == {"token"}
        rest = httpx2.get(
            f"{two}/chat/{user_id}/turns/k1/events", headers={"Last-Event-ID": seen[-1].event_id}, timeout=60
        )
        *tokens, last = events(rest.text.split("\n"))
        assert last.kind == "message"
        assert {event.kind for event in tokens} <= {"token"}
        if tokens:  # where it was still running, nothing is missing and nothing twice
            assert "".join(event.data["text"] for event in [*seen, *tokens]) == last.data["reply"]
        state = httpx2.get(f"{one}/chat/{user_id}/turns/k1", timeout=60).json()
        assert (state["status"], state["reply"]["reply"]) == ("committed", last.data["reply"])

    def test_a_turn_is_stopped_through_another_pod(self, cluster, pods, user_id):
        one, two = pods
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(
                httpx2.post,
                f"{one}/chat/",
                json=message(user_id, "stop me"),
                headers={"Idempotency-Key": "k1"},
                timeout=60,
            )
            cluster.wait_for(lambda: httpx2.get(f"{two}/chat/{user_id}/turns/k1").json()["status"] == "open")
            stopped = httpx2.post(f"{two}/chat/{user_id}/turns/k1/cancel", timeout=60)
            assert stopped.json()["status"] == "not_committed"
            assert (asked.result().status_code, asked.result().json()["type"]) == (410, "/problems/cancelled")
        assert self._window(cluster, user_id) == []

    def _is_open(self, cluster, user_id):
        return cluster.actor(user_id, "BeginTurn", {"turn_id": "probe", "waits": False})["status"] == "busy"

    def _window(self, cluster, user_id):
        return [item["user_text"] for item in cluster.actor(user_id, "GetConversationHistory")]


class TestErasure:
    def test_nothing_of_an_erased_user_is_left_in_redis_nor_in_its_file(self, cluster, chat, user_id):
        secret = f"secret-{user_id}"
        session_id = f"session-{user_id}"
        for number in range(15):  # some have left the window and the document by then
            answer = chat.post("/chat/", json=message(user_id, f"{secret} {number}", session_id))
            assert answer.status_code == 200
        cluster.said(session_id, 30)
        cluster.client.initialise(user_id, {"name": "Ada", "preferred_style": "formal", "user_summary": secret})

        erased = cluster.memory("DELETE", f"memories/{user_id}")
        assert erased.status == 200, erased.text
        removed = erased.json()["removed"]
        assert (removed["memories"], removed["sessions"], removed["turns"]) == (1, 1, 15)
        assert cluster.client.transcript(session_id) == []
        assert cluster.actor(user_id, "GetConversationHistory") == []

        def forgotten():
            rewritten(cluster)
            return not found_in_file(cluster, secret)

        cluster.wait_for(forgotten, PLENTY)
        assert chat.post("/chat/", json=message(user_id, "hello again", session_id)).status_code == 200
        assert said(cluster.said(session_id, 2)) == ["hello again"]


def rewritten(cluster):
    """Has Redis write its append-only file anew, without what is gone."""
    cluster.redis("BGREWRITEAOF")
    cluster.wait_for(lambda: "aof_rewrite_in_progress:0" in cluster.redis("INFO", "persistence"), PLENTY)


def found_in_file(cluster, text):
    command = f"grep -rl -- '{text}' /data || true"
    return cluster.kube.target.kubectl(
        "exec", "-n", cluster.namespace, "redis-0", "-c", "redis", "--", "sh", "-c", command
    ).strip()
