"""What a user sees: conversations, their order, their transcript."""

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from support.sse import events

from cluster import rest
from cluster.client import CHAT

pytestmark = pytest.mark.e2e


def test_the_second_answer_knows_the_first_message(cluster, user_id):
    memory = {"name": "Junaid", "preferred_style": "casual", "user_summary": "Junaid likes books."}
    initialised = cluster.memory("POST", f"memories/{user_id}/initialize", memory)
    assert initialised.status == 200
    assert initialised.json() == {"status": "success", "user_id": user_id, "metadata": memory}

    first = cluster.chat({"user_id": user_id, "text": "Hi there"})
    assert first.status == 200, first.text
    assert first.json()["user_id"] == user_id
    assert "Junaid" in first.json()["reply"]
    assert set(first.json()["metadata"]) == {"session_id", "timestamp"}

    second = cluster.chat({"user_id": user_id, "text": "What did I say before?"})
    assert second.status == 200, second.text
    assert "Hi there" in second.json()["reply"]


def test_what_has_changed_of_a_user_is_known_in_the_next_turn_through_any_pod(cluster, user_id):
    for name in ("Junaid", "Ayesha", "Bilal"):
        memory = {"name": name, "preferred_style": "casual", "user_summary": f"{name} likes books."}
        assert cluster.memory("POST", f"memories/{user_id}/initialize", memory).status == 200
        for pod in cluster.pods(CHAT):
            with cluster.pod_url(pod, 8010) as url:
                assert name in cluster.chat({"user_id": user_id, "text": "Hi there"}, url=url).json()["reply"]


def test_both_services_welcome(cluster):
    assert "Welcome" in cluster.client.welcome("chat-service")["message"]
    assert "Welcome" in cluster.client.welcome("agent-memory-service")["message"]


def test_an_unknown_user_has_the_memory_of_a_new_one(cluster, user_id):
    assert cluster.memory("GET", f"memories/{user_id}").json() == {
        "name": user_id,
        "preferred_style": "casual",
        "user_summary": f"{user_id} is a new user.",
    }


def test_the_agent_uses_its_tool_when_asked_for_the_time(cluster, user_id):
    reply = cluster.client.send(user_id, "What is the time?")["reply"]
    assert "UTC" in reply


def test_the_transcript_has_every_message_once_and_in_order(cluster, user_id):
    session_id = f"session-{user_id}"
    replies = [cluster.client.send(user_id, f"message {number}", session_id)["reply"] for number in range(1, 8)]
    history = cluster.said(session_id, 14)
    assert [(entry["role"], entry["content"]) for entry in history] == [
        entry
        for number, reply in enumerate(replies, start=1)
        for entry in (("user", f"message {number}"), ("assistant", reply))
    ]
    stamps = [entry["timestamp"] for entry in history]
    assert stamps == sorted(stamps)


def test_ten_messages_at_once_are_each_committed_once(cluster, user_id):
    session_id = f"session-{user_id}"

    def say(number):
        return cluster.chat({"user_id": user_id, "text": f"message {number}", "metadata": {"session_id": session_id}})

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(say, range(10)))
    assert [answer.status for answer in answers] == [200] * 10, [answer.text for answer in answers]

    sequences = {answer.json()["sequence"]: f"message {number}" for number, answer in enumerate(answers)}
    assert sorted(sequences) == list(range(1, 11))
    in_order = [sequences[sequence] for sequence in sorted(sequences)]
    window = cluster.actor(user_id, "GetConversationHistory")
    assert [exchange["user_text"] for exchange in window] == in_order[-5:]
    history = cluster.said(session_id, 20)
    assert [entry["content"] for entry in history if entry["role"] == "user"] == in_order


def test_a_retry_under_the_same_key_gets_the_same_reply(cluster, user_id):
    body = {"user_id": user_id, "text": "Hi there", "metadata": {"session_id": f"session-{user_id}"}}
    key = uuid4().hex
    first, second = cluster.chat(body, key=key), cluster.chat(body, key=key)
    assert (first.status, second.status) == (200, 200)
    assert second.json() == first.json()
    assert second.headers["idempotency-replayed"] == "true"
    assert len(cluster.actor(user_id, "GetConversationHistory")) == 1
    assert len(cluster.said(body["metadata"]["session_id"], 2)) == 2


def test_a_key_used_for_another_message_is_refused(cluster, user_id):
    key = uuid4().hex
    assert cluster.chat({"user_id": user_id, "text": "one"}, key=key).status == 200
    refused = cluster.chat({"user_id": user_id, "text": "another"}, key=key)
    assert refused.status == 422
    assert "Idempotency-Key" in refused.text


def test_a_cleared_history_is_forgotten_and_the_transcript_is_not(cluster, user_id):
    session_id = f"session-{user_id}"
    cluster.client.send(user_id, "Hi there", session_id)
    cluster.client.clear(user_id)
    assert cluster.actor(user_id, "GetConversationHistory") == []
    assert "Hi there" not in cluster.client.send(user_id, "What did I say before?", session_id)["reply"]
    assert cluster.said(session_id, 4)[0]["content"] == "Hi there"


@pytest.mark.parametrize(
    "text",
    ["5m", "2025-01-01", "null", '{"a": 1}', "\u0000 nul", "Zeile\r\nzwei", "日本語 🙂 \u202e", "x" * 100_000],
    ids=["duration", "date", "null", "json", "nul", "lines", "unicode", "longest"],
)
def test_a_text_survives_byte_for_byte(cluster, user_id, text):
    session_id = f"session-{user_id}"
    answer = cluster.chat({"user_id": user_id, "text": text, "metadata": {"session_id": session_id}})
    assert answer.status == 200, answer.text[:500]
    assert cluster.actor(user_id, "GetConversationHistory")[0]["user_text"] == text
    assert cluster.said(session_id, 2)[0]["content"] == text


def test_a_streamed_turn_ends_with_the_committed_reply(cluster, user_id):
    body = {"user_id": user_id, "text": "Hi there"}
    headers = {"Accept": "text/event-stream", "Idempotency-Key": "key-1"}
    answer = rest.call("POST", f"{cluster.reach.url(CHAT)}/chat/", body, headers=headers)
    assert answer.status == 200
    *tokens, last = events(answer.text.split("\n"))
    assert {token.kind for token in tokens} == {"token"}
    assert last.kind == "message"
    assert "".join(token.data["text"] for token in tokens) == last.data["reply"]
    assert cluster.chat(body, key="key-1").json() == last.data


def test_a_users_conversations_are_listed(cluster, user_id):
    sessions = [f"{name}-{user_id}" for name in ("first", "second")]
    for session_id in (*sessions, sessions[0]):
        cluster.client.send(user_id, "Hi there", session_id)
        cluster.said(session_id, 2)
    cluster.said(sessions[0], 4)
    url = f"{cluster.reach.url(CHAT)}/chat/{user_id}/sessions"
    listed = rest.call("GET", url).json()["sessions"]
    assert [item["session_id"] for item in listed] == sessions[::-1]
    assert listed[0]["last_turn_at"] < listed[1]["last_turn_at"]
    (newest,) = rest.call("GET", f"{url}?limit=1").json()["sessions"]
    assert newest == listed[0]


def test_nothing_redirects_behind_a_proxy_that_ends_tls(cluster, user_id):
    body, proxied = {"user_id": user_id, "text": "Hi there"}, {"X-Forwarded-Proto": "https", "Host": "chat.example.org"}
    for path in ("chat", "chat/"):
        assert rest.call("POST", f"{cluster.reach.url(CHAT)}/{path}", body, headers=proxied).status == 200
