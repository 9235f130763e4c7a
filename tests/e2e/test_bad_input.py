"""Bad input gets a clear error that names the field, and changes nothing."""

import pytest

from cluster import rest
from cluster.client import CHAT, MEMORY
from cluster.errors import CommandError

pytestmark = pytest.mark.e2e

PROBLEM = "application/problem+json"
HOSTILE_IDS = ["", " ", "a b", "../../etc/passwd", "a/b", "a||b", "x" * 129, "line\nbreak", "\u202euser", "-first"]


def test_a_blank_text_is_refused(cluster, user_id):
    for text in ("", "   ", "\n\t"):
        answer = cluster.chat({"user_id": user_id, "text": text})
        assert (answer.status, answer.headers["content-type"]) == (400, PROBLEM)
        assert answer.json()["detail"] == "Message text cannot be empty"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"text": "Hi"}, "user_id"),
        ({"user_id": None, "text": "Hi"}, "user_id"),
        ({"user_id": 5, "text": "Hi"}, "user_id"),
        ({"user_id": "alice"}, "text"),
        ({"user_id": "alice", "text": 5}, "text"),
        ({"user_id": "alice", "text": "Hi", "metadata": "x"}, "metadata"),
        ({"user_id": "alice", "text": "Hi", "metadata": {"session_id": "a/b"}}, "metadata.session_id"),
        ({"user_id": "alice", "text": "Hi", "tags": "x"}, "tags"),
    ],
)
def test_a_missing_or_wrong_field_is_named(cluster, body, field):
    answer = cluster.chat(body)
    assert (answer.status, answer.headers["content-type"]) == (422, PROBLEM)
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.parametrize("user_id", HOSTILE_IDS)
def test_a_hostile_user_id_is_refused(cluster, user_id):
    answer = cluster.chat({"user_id": user_id, "text": "Hi"})
    assert answer.status == 422
    assert answer.json()["errors"][0]["field"] == "user_id"


def test_a_hostile_key_is_refused(cluster, user_id):
    answer = cluster.chat({"user_id": user_id, "text": "Hi"}, key="../x")
    assert answer.status == 422
    assert "idempotency-key" in answer.text.lower()


def test_a_body_that_is_not_json_is_refused(cluster):
    answer = cluster.chat(b"{user_id: alice")
    assert (answer.status, answer.headers["content-type"]) == (400, PROBLEM)


def test_a_body_that_is_not_sent_as_json_is_refused(cluster, user_id):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = rest.call("POST", f"{cluster.reach.url(CHAT)}/chat/", {"user_id": user_id, "text": "Hi"}, headers=form)
    assert (answer.status, answer.headers["content-type"]) == (415, PROBLEM)
    assert answer.json()["errors"][0]["field"] == "Content-Type"


def test_the_type_of_a_problem_leads_to_what_it_means(cluster):
    for service, answer in ((CHAT, cluster.chat(b"{")), (MEMORY, cluster.memory("GET", "memories/a%20b"))):
        told = rest.call("GET", cluster.reach.url(service) + answer.json()["type"])
        assert told.status == 200
        assert "What to do" in told.text


def test_a_text_of_a_megabyte_is_refused(cluster, user_id):
    answer = cluster.chat({"user_id": user_id, "text": "x" * 1024 * 1024})
    assert (answer.status, answer.headers["content-type"]) == (413, PROBLEM)
    assert cluster.actor(user_id, "GetConversationHistory") == []


def test_a_memory_with_a_wrong_field_is_refused(cluster, user_id):
    answer = cluster.memory("POST", f"memories/{user_id}/initialize", {"name": 5, "preferred_style": "casual"})
    assert answer.status == 422
    assert {error["field"] for error in answer.json()["errors"]} == {"name", "user_summary"}


def test_a_hostile_id_in_a_path_is_refused(cluster):
    for path in ("memories/a%7C%7Cb", "memories/a%20b", "conversations/..%2Fx", "conversations/a%7C%7Cb"):
        assert cluster.memory("GET", path).status in {404, 422}, path


def test_an_unknown_value_stops_the_installation(cluster):
    with pytest.raises(CommandError) as raised:
        cluster.upgrade("--set", "chatService.replica=3", "--dry-run=server")
    assert "replica" in f"{raised.value.said} {raised.value}"
