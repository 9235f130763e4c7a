"""Events on their way from the broker to the transcript: repeated, out of order, malformed."""

import pytest
from support.events import conversation_updated

from cluster import rest
from cluster.client import CHAT

pytestmark = pytest.mark.e2e


def publish(cluster, event):
    with cluster.sidecar(cluster.pods("chat-service")[0]) as sidecar:
        answer = sidecar.call("POST", "/v1.0/publish/pubsub/conversations", event, "application/cloudevents+json")
    assert answer.status == 204, answer.text


def test_repeated_and_late_events_make_one_transcript_in_order(cluster, user_id):
    session_id = f"session-{user_id}"
    for sequence in (2, 1, 2, 3, 1):
        publish(cluster, conversation_updated(sequence, user_id, session_id))
    publish(cluster, conversation_updated(4, user_id, session_id))
    history = cluster.said(session_id, 8)
    assert [entry["content"] for entry in history if entry["role"] == "user"] == [f"message {n}" for n in range(1, 5)]


def test_a_malformed_event_goes_to_the_dead_letters_and_holds_nobody_up(cluster, user_id):
    publish(cluster, conversation_updated(1, user_id, f"session-{user_id}", turn_id="no id"))
    publish(cluster, conversation_updated(2, user_id, f"session-{user_id}"))
    assert [entry["content"] for entry in cluster.said(f"session-{user_id}", 2)] == ["message 2", "reply 2"]

    def filed():
        listed = cluster.memory("GET", "dead-letters?limit=1000").json()["dead_letters"]
        return [letter for letter in listed if letter["user_id"] == user_id]

    (letter,) = cluster.wait_for(filed)
    assert "turn_id" in letter["reason"]
    replayed = cluster.memory("POST", f"dead-letters/{letter['id']}/replay")
    assert (replayed.status, replayed.json()["type"]) == (422, "/problems/malformed-event")
    assert cluster.memory("DELETE", f"dead-letters/{letter['id']}").status == 200
    assert filed() == []


def test_what_was_read_is_trimmed_from_the_streams(cluster, user_id):
    publish(cluster, conversation_updated(1, user_id, f"session-{user_id}"))
    cluster.said(f"session-{user_id}", 2)
    cluster.wait_for(lambda: int(cluster.redis("XLEN", "conversations")) == 0, 60)


def test_only_the_sidecar_may_deliver_events_and_call_actors(cluster, user_id):
    forged = cluster.memory("POST", "conversations", conversation_updated(1, user_id, f"session-{user_id}"))
    assert (forged.status, forged.json()["type"]) == (401, "/problems/sidecar-only")
    url = f"{cluster.reach.url(CHAT)}/actors/UserSessionActor/{user_id}/method/ClearHistory"
    assert rest.call("PUT", url, {}).status == 401
