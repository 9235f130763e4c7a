"""Transcripts, over HTTP: complete, in order, each turn once, whatever comes how often and in which order."""

import asyncio
import random
from typing import Any

import httpx2
import pytest
from agent_memory_service.routes import MAX_EVENT
from agent_memory_service.transcripts import TURNS_PER_PAGE
from aiohttp import web
from support.events import conversation_updated
from support.serving import Start
from support.sidecar import MAX_BODY, FakeSidecar, hang_up


async def deliver(client: httpx2.AsyncClient, event: dict[str, Any]) -> str:
    """Delivers an event as the sidecar does; the status it is answered with."""
    answer = await client.post("/conversations", json=event, headers={"content-type": "application/cloudevents+json"})
    assert answer.status_code == 200
    return str(answer.json()["status"])


async def history(client: httpx2.AsyncClient, session_id: str = "s1") -> list[dict[str, Any]]:
    answer = await client.get(f"/conversations/{session_id}")
    assert answer.status_code == 200
    return list(answer.json()["history"])


def contents(entries: list[dict[str, Any]], role: str = "user") -> list[str]:
    return [entry["content"] for entry in entries if entry["role"] == role]


def messages(numbers: range) -> list[str]:
    return [f"message {number}" for number in numbers]


async def test_a_session_nobody_has_heard_of_has_no_history(client: httpx2.AsyncClient) -> None:
    assert await history(client) == []


async def test_a_turn_becomes_a_message_and_a_reply(client: httpx2.AsyncClient) -> None:
    event = conversation_updated(7, user_message="Hi there", assistant_reply="Hey!")
    assert await deliver(client, event) == "SUCCESS"
    shared = {"timestamp": "2026-11-23T00:00:07.000Z", "user_id": "junaid", "turn_id": "turn-7", "sequence": 7}
    assert await history(client) == [
        {"role": "user", "content": "Hi there"} | shared,
        {"role": "assistant", "content": "Hey!"} | shared,
    ]


async def test_sessions_are_kept_apart(client: httpx2.AsyncClient) -> None:
    await deliver(client, conversation_updated(1, session_id="s"))
    await deliver(client, conversation_updated(2, session_id="s-0"))
    await deliver(client, conversation_updated(3, session_id="s0"))
    assert [contents(await history(client, session)) for session in ("s", "s-0", "s0")] == [
        ["message 1"],
        ["message 2"],
        ["message 3"],
    ]


async def test_an_event_that_comes_again_is_taken_once(client: httpx2.AsyncClient) -> None:
    for _ in range(3):
        assert await deliver(client, conversation_updated(1)) == "SUCCESS"
    assert contents(await history(client)) == ["message 1"]


async def test_an_event_that_comes_again_much_later_is_taken_once(client: httpx2.AsyncClient) -> None:
    for number in range(1, 41):
        await deliver(client, conversation_updated(number))
    assert await deliver(client, conversation_updated(1)) == "SUCCESS"
    assert contents(await history(client)) == messages(range(1, 41))


async def test_events_out_of_order_are_put_in_order(client: httpx2.AsyncClient) -> None:
    numbers = list(range(1, 31))
    random.Random(1).shuffle(numbers)
    for number in numbers:
        await deliver(client, conversation_updated(number))
    assert contents(await history(client)) == messages(range(1, 31))
    assert contents(await history(client), "assistant") == [f"reply {number}" for number in range(1, 31)]


async def test_events_that_come_at_once_and_again_are_all_kept_in_order(
    client: httpx2.AsyncClient, start: Start
) -> None:
    lot = [conversation_updated(number) for number in range(1, 61)] * 2
    random.Random(2).shuffle(lot)
    async with start() as other:  # a second replica beside the first

        async def worker(replica: httpx2.AsyncClient) -> None:
            while lot:
                event = lot.pop()
                if await deliver(replica, event) == "RETRY":
                    lot.insert(0, event)

        await asyncio.gather(*(worker(replica) for replica in (client, other) for _ in range(10)))
    assert contents(await history(client)) == messages(range(1, 61))


async def test_writers_that_meet_on_one_page_lose_nothing(client: httpx2.AsyncClient) -> None:
    events = [conversation_updated(1, user_id=f"user{number}") for number in range(8)]
    statuses = await asyncio.gather(*(deliver(client, event) for event in events))
    for status, event in zip(statuses, events, strict=True):
        if status == "RETRY":
            assert await deliver(client, event) == "SUCCESS"
    assert {entry["user_id"] for entry in await history(client)} == {f"user{number}" for number in range(8)}


async def test_the_turns_of_users_who_share_a_session_are_merged_by_time(client: httpx2.AsyncClient) -> None:
    times = [
        ("ann", 1, "10:00:00Z"),
        ("bob", 1, "10:00:01+00:00"),
        ("ann", 2, "11:00:02+01:00"),
        ("bob", 2, "10:00:03Z"),
    ]
    for user_id, sequence, time in reversed(times):
        event = conversation_updated(sequence, user_id=user_id, occurred_at=f"2026-11-23T{time}")
        await deliver(client, event)
    entries = [entry for entry in await history(client) if entry["role"] == "user"]
    assert [(entry["user_id"], entry["sequence"]) for entry in entries] == [(user, number) for user, number, _ in times]


async def test_a_clock_that_is_behind_does_not_reorder_a_users_turns(client: httpx2.AsyncClient) -> None:
    for number, second in [(1, 30), (2, 10), (3, 40)]:
        await deliver(client, conversation_updated(number, occurred_at=f"2026-11-23T10:00:{second}Z"))
    await deliver(client, conversation_updated(1, user_id="bob", occurred_at="2026-11-23T10:00:35Z"))
    entries = [entry for entry in await history(client) if entry["role"] == "user"]
    assert [(entry["user_id"], entry["sequence"]) for entry in entries] == [
        ("junaid", 1),
        ("junaid", 2),
        ("bob", 1),
        ("junaid", 3),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "x" * 100_000,
        "🦊" * 100_000,
        "\x00" * 100_000,
        "  \r\n\t spaces \u200b\u2028 stay  \n",
        '<script>&amp;"\\u0041"</script> 5m 2026-11-23 null',
        "e\u0301 é \ufeff \uffff \U0010ffff",
        "",
    ],
    ids=["longest", "longest of four bytes", "longest of NUL", "spaces", "markup", "unicode", "empty"],
)
async def test_text_survives_byte_for_byte(client: httpx2.AsyncClient, text: str) -> None:
    event = conversation_updated(1, user_message=text, assistant_reply=text[::-1])
    assert await deliver(client, event) == "SUCCESS"
    assert [entry["content"] for entry in await history(client)] == [text, text[::-1]]


async def test_the_longest_texts_fill_a_page(client: httpx2.AsyncClient) -> None:
    text = "🦊" * 100_000
    for number in range(TURNS_PER_PAGE, 2 * TURNS_PER_PAGE):
        event = conversation_updated(number, user_message=text, assistant_reply=text)
        assert await deliver(client, event) == "SUCCESS"
    assert contents(await history(client)) == [text] * TURNS_PER_PAGE


async def test_an_append_costs_the_same_at_the_end_of_a_long_transcript(
    client: httpx2.AsyncClient, sidecar: FakeSidecar
) -> None:
    async def cost(number: int) -> int:
        sidecar.requests.clear()
        await deliver(client, conversation_updated(number))
        return sum("/v1.0/state/" in request for request in sidecar.requests)

    early = [await cost(number) for number in range(2 * TURNS_PER_PAGE, 3 * TURNS_PER_PAGE)]
    for page in range(3, 2500):  # 10,000 turns: the pages between are listed, which is all that an append can notice
        sidecar.state["statestore"].set(f"transcript-s1:{page}", {"version": 1, "turns": []})
    index = {"version": 1, "pages": list(range(2500))}
    sidecar.state["statestore"].set("transcript-s1", index, sidecar.state["statestore"].etag("transcript-s1"))
    late = [await cost(number) for number in range(2500 * TURNS_PER_PAGE, 2501 * TURNS_PER_PAGE)]
    assert early == late == [4, *[2] * (TURNS_PER_PAGE - 1)]


async def test_a_page_that_is_listed_but_was_never_written_does_no_harm(
    client: httpx2.AsyncClient, sidecar: FakeSidecar
) -> None:
    sidecar.state["statestore"].set("transcript-s1", {"version": 1, "pages": [9, 0]}, concurrency="first-write")
    await deliver(client, conversation_updated(1))
    assert contents(await history(client)) == ["message 1"]


EVENT = conversation_updated()


def with_data(**change: Any) -> dict[str, Any]:
    return EVENT | {"data": EVENT["data"] | change}


def without(mapping: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name != key}


MALFORMED: list[tuple[str, Any]] = [
    ("null", None),
    ("a list", []),
    ("a string", "event"),
    ("an empty object", {}),
    ("no data", without(EVENT, "data")),
    ("data without an envelope", EVENT["data"]),
    ("data as a string", EVENT | {"data": "{}"}),
    ("data as null", EVENT | {"data": None}),
    *((f"no {field}", EVENT | {"data": without(EVENT["data"], field)}) for field in EVENT["data"]),
    ("another type of event", with_data(event_type="SomethingElse")),
    ("a sequence of 0", with_data(sequence=0)),
    ("a negative sequence", with_data(sequence=-1)),
    ("a sequence as a string", with_data(sequence="1")),
    ("a sequence with a fraction", with_data(sequence=1.5)),
    ("a sequence as true", with_data(sequence=True)),
    ("a sequence beyond JSON", with_data(sequence=2**60)),
    ("a time that is none", with_data(occurred_at="yesterday")),
    ("a time without a zone", with_data(occurred_at="2026-11-23T10:00:00")),
    ("a time as a number", with_data(occurred_at=1_795_444_217)),
    ("a message as null", with_data(user_message=None)),
    ("a message as a list", with_data(user_message=["Hi"])),
    ("a reply as a number", with_data(assistant_reply=1)),
    *(
        (f"the {field} {bad!r:.20}", with_data(**{field: bad}))
        for field in ("event_id", "turn_id", "user_id", "session_id")
        for bad in ("", "..", "a/b", "a||b", "a" * 129, 7, None)
    ),
]


@pytest.mark.parametrize("event", [event for _, event in MALFORMED], ids=[name for name, _ in MALFORMED])
async def test_a_malformed_event_is_dropped(client: httpx2.AsyncClient, sidecar: FakeSidecar, event: Any) -> None:
    assert await deliver(client, event) == "DROP"
    assert list(sidecar.state["statestore"]) == []


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b'{"data": {"user_message": "\\ud800"}}', b"null", b"[" * 100_000]
)
async def test_what_is_not_json_is_dropped(client: httpx2.AsyncClient, body: bytes) -> None:
    answer = await client.post("/conversations", content=body)
    assert (answer.status_code, answer.json()) == (200, {"status": "DROP"})


async def test_an_event_that_is_too_large_is_dropped(client: httpx2.AsyncClient) -> None:
    assert await deliver(client, conversation_updated(user_message="x" * MAX_EVENT)) == "DROP"


async def test_a_dropped_event_is_logged_without_what_was_said(
    client: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    await deliver(client, conversation_updated(user_message=["a secret"], user_id="../secret"))
    (record,) = [record for record in caplog.records if record.message == "event dropped"]
    assert "data.user_message: Input should be a valid string" in record.__dict__["errors"]
    assert "secret" not in str(record.__dict__)


async def test_fields_this_version_does_not_know_are_no_reason_to_drop(client: httpx2.AsyncClient) -> None:
    event = conversation_updated(tomorrows_field=1) | {"traceparent": "00-1-2-00", "pubsubname": "pubsub"}
    assert await deliver(client, event) == "SUCCESS"


async def test_an_event_is_delivered_again_when_the_sidecar_is_gone(
    client: httpx2.AsyncClient, sidecar: FakeSidecar
) -> None:
    await sidecar.stop()
    assert await deliver(client, conversation_updated()) == "RETRY"


async def test_an_event_is_delivered_again_when_the_store_fails(
    client: httpx2.AsyncClient, sidecar: FakeSidecar
) -> None:
    async def fail(_: web.Request) -> web.Response:
        return web.json_response({"errorCode": "ERR_STATE_GET", "message": "connection refused"}, status=500)

    sidecar.before = fail
    assert await deliver(client, conversation_updated()) == "RETRY"
    sidecar.before = None
    assert await deliver(client, conversation_updated()) == "SUCCESS"
    assert contents(await history(client)) == ["message 1"]


async def test_an_event_is_delivered_again_when_others_keep_writing_its_page(
    client: httpx2.AsyncClient, sidecar: FakeSidecar
) -> None:
    async def overtake(request: web.Request) -> web.Response | None:
        if request.method == "POST":
            return web.json_response({"errorCode": "ERR_STATE_SAVE", "message": "possible etag mismatch"}, status=409)
        return None

    sidecar.before = overtake
    assert await deliver(client, conversation_updated()) == "RETRY"


async def test_a_write_whose_answer_is_lost_is_not_repeated(client: httpx2.AsyncClient, sidecar: FakeSidecar) -> None:
    async def lose(request: web.Request) -> None:
        if request.method == "POST":
            hang_up(request)

    sidecar.after = lose
    statuses = [await deliver(client, conversation_updated()) for _ in range(3)]
    sidecar.after = None
    assert statuses[0] == "RETRY"
    assert await deliver(client, conversation_updated()) == "SUCCESS"
    assert contents(await history(client)) == ["message 1"]


async def test_a_transcript_that_cannot_be_read_is_a_503(client: httpx2.AsyncClient, sidecar: FakeSidecar) -> None:
    await sidecar.stop()
    answer = await client.get("/conversations/s1")
    assert answer.status_code == answer.json()["status"] == 503


@pytest.mark.parametrize("token", ["", "wrong"])
async def test_with_a_token_only_the_sidecar_delivers_events(start: Start, token: str) -> None:
    async with start(app_api_token="right") as client:
        answer = await client.post("/conversations", json=conversation_updated(), headers={"dapr-api-token": token})
        assert answer.status_code == answer.json()["status"] == 401
        answer = await client.post("/conversations", json=conversation_updated(), headers={"dapr-api-token": "right"})
        assert answer.json() == {"status": "SUCCESS"}
        assert contents(await history(client)) == ["message 1"]
        assert (await client.get("/memories/junaid")).status_code == 200


def test_a_page_of_the_longest_texts_fits_the_sidecar() -> None:
    assert TURNS_PER_PAGE * 2 * 100_000 * 4 < MAX_BODY
