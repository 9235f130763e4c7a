"""A session: who may take the next turn, and what is committed when writes are refused, lost or repeated."""

import asyncio
from typing import Any

import pytest
from chat_service.session import AddMessage, BeginTurn, CompleteTurn, Session, SessionHost, TurnRef
from daca_common.dapr import DaprUnavailable
from support.store import MemoryStore


class Hosts:
    """Hosts that share a store, as pods do."""

    def __init__(self, lease_seconds: float = 5.0) -> None:
        self.store = MemoryStore()
        self.outboxes: list[Session] = []
        self.lease_seconds = lease_seconds

    async def session(self, pod: str = "pod-a") -> Session:
        host = SessionHost(pod, self.store, self.lease_seconds, self.outboxes.append, lambda _: None)  # type: ignore[arg-type]
        return await host.activate("alice")


@pytest.fixture
def hosts() -> Hosts:
    return Hosts()


def completion(grant: dict[str, Any], turn_id: str, text: str = "hi") -> CompleteTurn:
    return CompleteTurn(
        turn_id=turn_id,
        lease_token=grant["lease_token"],
        turn_no=grant["turn_no"],
        session_id="s",
        user_text=text,
        reply_text=f"reply to {text}",
        fingerprint=text,
    )


async def taken(session: Session, turn_id: str, text: str = "hi") -> dict[str, Any]:
    grant = await session.begin(BeginTurn(turn_id=turn_id, fingerprint=text))
    assert grant["status"] == "granted"
    return await session.complete(completion(grant, turn_id, text))


async def test_every_answer_names_the_host_and_the_activation(hosts: Hosts):
    session = await hosts.session("pod-7")
    grant = await session.begin(BeginTurn(turn_id="t1"))
    answers = [
        grant,
        await session.begin(BeginTurn(turn_id="t2")),
        await session.renew(TurnRef(turn_id="t1", lease_token=grant["lease_token"])),
        await session.complete(completion(grant, "t1")),
        await session.abandon(TurnRef(turn_id="t1", lease_token=grant["lease_token"])),
        await session.add_message(AddMessage(user_text="a", reply_text="b")),
        await session.clear(),
        session.invalid([]),
    ]
    assert {(item["host"], item["activation_id"]) for item in answers} == {("pod-7", session.activation_id)}


async def test_a_turn_is_granted_with_the_window_and_commits_once(hosts: Hosts):
    session = await hosts.session()
    first = await taken(session, "t1", "Hi there")
    assert (first["status"], first["sequence"], first["reply_text"]) == ("committed", 1, "reply to Hi there")
    grant = await session.begin(BeginTurn(turn_id="t2"))
    assert [item["user_text"] for item in grant["window"]] == ["Hi there"]
    assert grant["turn_no"] == 2


async def test_beginning_and_renewing_write_nothing(hosts: Hosts):
    session = await hosts.session()
    grant = await session.begin(BeginTurn(turn_id="t1"))
    await session.renew(TurnRef(turn_id="t1", lease_token=grant["lease_token"]))
    await session.abandon(TurnRef(turn_id="t1", lease_token=grant["lease_token"]))
    assert hosts.store.writes == 0


async def test_a_second_turn_is_told_its_place_in_the_queue_and_granted_in_order(hosts: Hosts):
    session = await hosts.session()
    grant = await session.begin(BeginTurn(turn_id="t1"))
    assert (await session.begin(BeginTurn(turn_id="t2")))["place"] == 1
    assert (await session.begin(BeginTurn(turn_id="t3")))["place"] == 2
    await session.complete(completion(grant, "t1"))
    assert (await session.begin(BeginTurn(turn_id="t3")))["status"] == "busy"
    assert (await session.begin(BeginTurn(turn_id="t2")))["status"] == "granted"


async def test_a_place_in_the_queue_ages_out_when_nobody_asks_for_it(hosts: Hosts, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("chat_service.session.QUEUE_AGES_OUT", 0.02)
    session = await hosts.session()
    grant = await session.begin(BeginTurn(turn_id="t1"))
    await session.begin(BeginTurn(turn_id="gone"))
    await session.complete(completion(grant, "t1"))
    assert (await session.begin(BeginTurn(turn_id="t3")))["status"] == "busy"
    await asyncio.sleep(0.03)
    assert (await session.begin(BeginTurn(turn_id="t3")))["status"] == "granted"


async def test_a_lease_that_nobody_renews_falls_to_the_next_turn():
    session = await Hosts(lease_seconds=0.02).session()
    await session.begin(BeginTurn(turn_id="t1"))
    assert (await session.begin(BeginTurn(turn_id="t2")))["status"] == "busy"
    await asyncio.sleep(0.03)
    assert (await session.begin(BeginTurn(turn_id="t2")))["status"] == "granted"


async def test_a_renewed_lease_lasts():
    session = await Hosts(lease_seconds=0.05).session()
    grant = await session.begin(BeginTurn(turn_id="t1"))
    for _ in range(3):
        await asyncio.sleep(0.03)
        renewed = await session.renew(TurnRef(turn_id="t1", lease_token=grant["lease_token"]))
        assert renewed["status"] == "renewed"
    assert (await session.begin(BeginTurn(turn_id="t2")))["status"] == "busy"
    assert (await session.renew(TurnRef(turn_id="t1", lease_token="of another")))["status"] == "lost"


async def test_an_abandoned_turn_frees_the_session(hosts: Hosts):
    session = await hosts.session()
    grant = await session.begin(BeginTurn(turn_id="t1"))
    assert (await session.abandon(TurnRef(turn_id="t1", lease_token=grant["lease_token"])))["status"] == "abandoned"
    assert (await session.begin(BeginTurn(turn_id="t2")))["status"] == "granted"
    assert hosts.store.stored == {}


async def test_a_begin_that_dapr_delivers_twice_is_granted_once(hosts: Hosts):
    session = await hosts.session()
    first = await session.begin(BeginTurn(turn_id="t1", claim="c"))
    again = await session.begin(BeginTurn(turn_id="t1", claim="c"))
    assert again["lease_token"] == first["lease_token"]
    other_caller = await session.begin(BeginTurn(turn_id="t1", claim="d"))
    assert other_caller["status"] == "busy"


async def test_a_retry_under_the_same_id_gets_the_same_reply(hosts: Hosts):
    session = await hosts.session()
    first = await taken(session, "t1", "once")
    replayed = await session.begin(BeginTurn(turn_id="t1", fingerprint="once"))
    assert replayed == first | {"status": "replayed"}


async def test_an_id_that_was_used_for_another_message_is_a_mismatch(hosts: Hosts):
    session = await hosts.session()
    await taken(session, "t1", "once")
    assert (await session.begin(BeginTurn(turn_id="t1", fingerprint="twice")))["status"] == "mismatch"


async def test_a_completion_that_was_overtaken_is_stale(hosts: Hosts):
    session = await hosts.session()
    grant = await session.begin(BeginTurn(turn_id="t1"))
    await session.add_message(AddMessage(user_text="a", reply_text="b"))
    stale = await session.complete(completion(grant, "t1"))
    assert (stale["status"], stale["turn_no"]) == ("stale", 2)
    assert [item["user_text"] for item in await session.history()] == ["a"]
    assert (await session.begin(BeginTurn(turn_id="t1")))["status"] == "granted"


async def test_a_history_cleared_during_a_turn_makes_the_turn_stale(hosts: Hosts):
    session = await hosts.session()
    await taken(session, "t1")
    grant = await session.begin(BeginTurn(turn_id="t2"))
    await session.clear()
    assert (await session.complete(completion(grant, "t2")))["status"] == "stale"
    assert await session.history() == []


async def test_an_expired_lease_is_no_reason_to_refuse_a_turn_that_nobody_overtook():
    session = await Hosts(lease_seconds=0.01).session()
    grant = await session.begin(BeginTurn(turn_id="t1"))
    await asyncio.sleep(0.02)
    assert (await session.complete(completion(grant, "t1")))["status"] == "committed"


@pytest.mark.parametrize("fault", ["lost before", "lost after"])
async def test_a_write_whose_answer_is_lost_commits_exactly_once(hosts: Hosts, fault: str):
    session = await hosts.session()
    hosts.store.faults = [fault]
    answer = await taken(session, "t1", "hello")
    assert answer["status"] in {"committed", "replayed"}
    assert answer["reply_text"] == "reply to hello"
    assert [item.turn_id for item in hosts.store.stored["alice"].exchanges] == ["t1"]
    assert hosts.outboxes == [session]


async def test_a_write_that_never_gets_through_raises_and_leaves_nothing(hosts: Hosts):
    session = await hosts.session()
    hosts.store.faults = ["lost before"] * 4
    with pytest.raises(DaprUnavailable):
        await taken(session, "t1")
    assert hosts.store.stored == {}
    assert await session.history() == []


async def test_of_two_activations_only_one_commits_on_a_turn_number(hosts: Hosts):
    old, new = await hosts.session("old"), await hosts.session("new")
    old_grant = await old.begin(BeginTurn(turn_id="t-old"))
    new_grant = await new.begin(BeginTurn(turn_id="t-new"))
    assert old_grant["turn_no"] == new_grant["turn_no"]
    answers = await asyncio.gather(
        old.complete(completion(old_grant, "t-old")), new.complete(completion(new_grant, "t-new"))
    )
    assert sorted(item["status"] for item in answers) == ["committed", "stale"]
    assert len(hosts.store.stored["alice"].exchanges) == 1


async def test_a_retry_at_a_new_activation_finds_what_the_old_one_committed(hosts: Hosts):
    old, new = await hosts.session("old"), await hosts.session("new")
    await taken(old, "t1", "hello")
    grant = await new.begin(BeginTurn(turn_id="t1", fingerprint="hello"))
    assert grant["status"] == "granted"  # the new activation read the document before the commit
    answer = await new.complete(completion(grant, "t1", "hello"))
    assert answer["status"] == "replayed"
    assert len(hosts.store.stored["alice"].exchanges) == 1


async def test_publications_ride_along_with_the_next_commit(hosts: Hosts):
    session = await hosts.session()
    await taken(session, "t1")
    session.sent = frozenset({"t1"})
    await taken(session, "t2")
    assert [item.turn_id for item in hosts.store.stored["alice"].outbox] == ["t2"]
    assert (hosts.store.writes, session.sent) == (2, frozenset())


async def test_publications_are_written_down_where_no_commit_follows(hosts: Hosts):
    session = await hosts.session()
    await taken(session, "t1")
    session.sent = frozenset({"t1"})
    await session.mark_published()
    await session.mark_published()
    assert hosts.store.stored["alice"].outbox == ()
    assert hosts.store.writes == 2


async def test_bookkeeping_does_not_make_an_open_turn_stale(hosts: Hosts):
    session = await hosts.session()
    await taken(session, "t1")
    grant = await session.begin(BeginTurn(turn_id="t2"))
    session.sent = frozenset({"t1"})
    await session.mark_published()
    assert (await session.complete(completion(grant, "t2")))["status"] == "committed"


async def test_an_activation_with_unpublished_events_has_them_published(hosts: Hosts):
    session = await hosts.session("first")
    await taken(session, "t1")
    hosts.outboxes.clear()
    again = await hosts.session("second")
    assert hosts.outboxes == [again]


async def test_an_outbox_that_is_full_refuses_the_turn_before_the_model_is_asked(hosts: Hosts, monkeypatch):
    monkeypatch.setattr("chat_service.document.BACKLOG", 1)
    session = await hosts.session()
    await taken(session, "t1")
    assert (await session.begin(BeginTurn(turn_id="t2")))["status"] == "full"


async def test_many_turns_at_once_are_all_committed_in_the_order_they_queued(hosts: Hosts):
    session = await hosts.session()

    async def take(turn_id: str) -> None:
        while True:
            grant = await session.begin(BeginTurn(turn_id=turn_id))
            if grant["status"] == "granted":
                await session.complete(completion(grant, turn_id))
                return
            await asyncio.sleep(0.001)

    names = [f"t{number:02}" for number in range(30)]
    await asyncio.gather(*(take(name) for name in names))
    document = hosts.store.stored["alice"]
    assert [item.turn_id for item in document.exchanges] == names
    assert document.sequence == 30
