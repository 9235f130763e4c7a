"""The contract of UserSessionActor, called by name through a sidecar, as any other app of the cluster could."""

from uuid import uuid4

import pytest

pytestmark = pytest.mark.e2e


class Actor:
    """One user's actor."""

    def __init__(self, cluster, user_id):
        self._cluster = cluster
        self._user_id = user_id

    def __call__(self, method, **arguments):
        return self._cluster.actor(self._user_id, method, arguments)

    def begin(self, turn_id):
        return self("BeginTurn", turn_id=turn_id, fingerprint="")

    def complete(self, turn_id, grant, text="Hi there", reply="Hello"):
        return self(
            "CompleteTurn",
            turn_id=turn_id,
            lease_token=grant["lease_token"],
            turn_no=grant["turn_no"],
            session_id="session-1",
            user_text=text,
            reply_text=reply,
            fingerprint="",
        )


@pytest.fixture
def actor(cluster, user_id):
    return Actor(cluster, user_id)


def test_a_turn_is_granted_renewed_and_committed(actor):
    turn_id = uuid4().hex
    grant = actor.begin(turn_id)
    assert grant["status"] == "granted"
    assert (grant["turn_no"], grant["sequence"], grant["window"], grant["running_summary"]) == (1, 1, [], "")
    renewed = actor("RenewTurn", turn_id=turn_id, lease_token=grant["lease_token"])
    assert renewed["status"] == "renewed"
    committed = actor.complete(turn_id, grant)
    assert (committed["status"], committed["turn_no"], committed["reply_text"]) == ("committed", 1, "Hello")
    history = actor("GetConversationHistory")
    assert [(item["user_text"], item["reply_text"]) for item in history] == [("Hi there", "Hello")]


def test_every_answer_of_a_turn_names_host_and_activation(cluster, actor):
    turn_id = uuid4().hex
    grant = actor.begin(turn_id)
    answers = [
        grant,
        actor("RenewTurn", turn_id=turn_id, lease_token=grant["lease_token"]),
        actor.complete(turn_id, grant),
        actor("AbandonTurn", turn_id=turn_id, lease_token=grant["lease_token"]),
    ]
    pods = {pod.metadata.name for pod in cluster.pods("chat-service")}
    assert {answer["host"] for answer in answers} <= pods
    assert len({(answer["host"], answer["activation_id"]) for answer in answers}) == 1


def test_a_second_turn_is_busy_and_told_its_place(actor):
    first, second, third = (uuid4().hex for _ in range(3))
    grant = actor.begin(first)
    assert [actor.begin(turn_id)["place"] for turn_id in (second, third)] == [1, 2]
    assert actor.begin(second)["status"] == "busy"
    actor.complete(first, grant)
    assert actor.begin(second)["status"] == "granted"


def test_an_abandoned_turn_lets_the_next_one_begin(actor):
    first, second = uuid4().hex, uuid4().hex
    grant = actor.begin(first)
    assert actor("AbandonTurn", turn_id=first, lease_token=grant["lease_token"])["status"] == "abandoned"
    assert actor("RenewTurn", turn_id=first, lease_token=grant["lease_token"])["status"] == "lost"
    assert actor.begin(second)["status"] == "granted"


def test_a_committed_turn_is_replayed(actor):
    turn_id = uuid4().hex
    grant = actor.begin(turn_id)
    actor.complete(turn_id, grant)
    again = actor.complete(turn_id, grant, reply="something else")
    assert (again["status"], again["reply_text"]) == ("replayed", "Hello")
    begun_again = actor.begin(turn_id)
    assert (begun_again["status"], begun_again["reply_text"]) == ("replayed", "Hello")
    assert len(actor("GetConversationHistory")) == 1


def test_a_stale_completion_is_refused(actor):
    turn_id = uuid4().hex
    grant = actor.begin(turn_id)
    added = actor("AddMessage", user_text="I was", reply_text="faster")
    assert added["status"] == "committed"
    assert actor.complete(turn_id, grant)["status"] == "stale"
    assert [item["user_text"] for item in actor("GetConversationHistory")] == ["I was"]
    assert actor.complete(turn_id, actor.begin(turn_id))["status"] == "committed"


def test_the_window_keeps_the_last_five_exchanges(actor):
    for number in range(1, 8):
        actor("AddMessage", user_text=f"text {number}", reply_text=f"reply {number}")
    assert [item["user_text"] for item in actor("GetConversationHistory")] == [
        f"text {number}" for number in range(3, 8)
    ]


def test_clearing_keeps_counting(actor):
    actor("AddMessage", user_text="one", reply_text="1")
    assert actor("ClearHistory")["status"] == "cleared"
    assert actor("GetConversationHistory") == []
    grant = actor.begin(uuid4().hex)
    assert (grant["window"], grant["sequence"]) == ([], 2)


def test_wrong_arguments_are_named(actor):
    answer = actor("BeginTurn", turn_id="a b", colour="red")
    assert answer["status"] == "invalid"
    assert {error["field"] for error in answer["errors"]} == {"turn_id", "colour"}
