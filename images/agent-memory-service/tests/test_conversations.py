"""Transcripts, over HTTP: complete, in order, each turn once, whatever comes how often and in which order."""

import asyncio
import random
from typing import Any

import httpx2
import pytest
from agent_memory_service.events import MAX_EVENT
from agent_memory_service.transcripts import APART_BYTES, NUMBERS_PER_PAGE, TURNS_PER_PAGE
from agent_memory_service.users import SESSIONS_PER_PAGE
from aiohttp import web
from daca_common.dapr import FOR_EVER
from support.events import conversation_updated
from support.serving import Start
from support.sidecar import MAX_BODY, FakeSidecar, hang_up, keys_of, reads

pytestmark = pytest.mark.timeout(120)  # many pages are written


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
    events = [conversation_updated(number) for number in range(NUMBERS_PER_PAGE)[1:]]
    statuses = await asyncio.gather(*(deliver(client, event) for event in events))
    for status, event in zip(statuses, events, strict=True):
        if status == "RETRY":
            assert await deliver(client, event) == "SUCCESS"
    assert contents(await history(client)) == messages(range(1, NUMBERS_PER_PAGE))


async def test_a_session_answers_for_the_user_who_wrote_first(client: httpx2.AsyncClient) -> None:
    for user_id in ("ann", "bob", "ann"):
        await deliver(client, conversation_updated(1, user_id=user_id, user_message=f"I am {user_id}"))
    assert contents(await history(client)) == ["I am ann"]
    for user_id in ("ann", "bob"):
        assert contents(await history(client, f"s1?user_id={user_id}")) == [f"I am {user_id}"]
    assert await history(client, "s1?user_id=carl") == []


async def test_of_users_who_write_first_at_once_one_is_first(client: httpx2.AsyncClient, start: Start) -> None:
    async with start() as other:
        events = [conversation_updated(1, user_id=f"user{number}") for number in range(10)]
        replicas = (client, other)
        statuses = await asyncio.gather(*(deliver(replicas[n % 2], event) for n, event in enumerate(events)))
        assert set(statuses) == {"SUCCESS"}
        first, again = await history(client), await history(other)
    assert first == again
    assert len(first) == 2


async def test_a_clock_that_is_behind_does_not_reorder_a_users_turns(client: httpx2.AsyncClient) -> None:
    for number, second in [(3, 40), (1, 30), (2, 10)]:
        await deliver(client, conversation_updated(number, occurred_at=f"2026-11-23T10:00:{second}Z"))
    assert contents(await history(client)) == messages(range(1, 4))


async def pages(client: httpx2.AsyncClient, limit: int, **more: Any) -> list[list[int]]:
    """The sequences of each page, as somebody reads them who goes backwards."""
    answered = []
    before: dict[str, int] = {}
    while True:
        answer = (await client.get("/conversations/s1", params={"limit": limit} | before | more)).json()
        answered.append([entry["sequence"] for entry in answer["history"] if entry["role"] == "user"])
        if answer["before"] is None:
            return answered
        before = {"before": answer["before"]}


@pytest.mark.parametrize("seed", range(4))
async def test_pages_are_read_backwards_and_make_up_the_whole(client: httpx2.AsyncClient, seed: int) -> None:
    random_numbers = random.Random(seed)
    span = random_numbers.choice([40, 5_000, 10**6, 2**53 - 1])
    numbers = sorted(random_numbers.sample(range(1, span), 30))
    for number in random_numbers.sample(numbers, len(numbers)):
        await deliver(client, conversation_updated(number, occurred_at="2026-11-23T10:00:00Z"))
    for limit in (1, 7, 29, 30, 31):
        answered = await pages(client, limit)
        assert [number for page in answered[::-1] for number in page] == numbers
        assert [len(page) for page in answered[:-1]] == [limit] * (len(answered) - 1)
    assert [entry["sequence"] for entry in await history(client)][::2] == numbers


async def test_the_plain_answer_is_the_tutorials(client: httpx2.AsyncClient) -> None:
    await deliver(client, conversation_updated(1))
    assert list((await client.get("/conversations/s1")).json()) == ["history"]
    assert (await client.get("/conversations/none?limit=5")).json() == {"history": [], "before": None}


async def test_turns_with_the_same_number_are_not_parted(client: httpx2.AsyncClient) -> None:
    for number, event_id in [(1, "a"), (2, "b"), (2, "c"), (3, "d")]:
        await deliver(client, conversation_updated(number, event_id=event_id))
    assert await pages(client, 2) == [[2, 2, 3], [1]]


@pytest.mark.parametrize("value", ["0", "-1", "x", "", "1.5", "99999999999999999999"])
@pytest.mark.parametrize("field", ["limit", "before"])
async def test_a_bad_page_is_a_problem_that_names_the_field(client: httpx2.AsyncClient, field: str, value: str) -> None:
    answer = await client.get("/conversations/s1", params={field: value})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


async def test_a_bad_user_of_a_conversation_is_a_problem_that_names_the_field(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/conversations/s1", params={"user_id": "a/b"})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["user_id"]


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


@pytest.mark.parametrize("text", ["🦊" * 100_000, "\x01" * 100_000], ids=["four bytes", "six as JSON"])
async def test_a_page_of_the_longest_texts_fits_the_sidecar(client: httpx2.AsyncClient, text: str) -> None:
    for number in range(NUMBERS_PER_PAGE, 2 * NUMBERS_PER_PAGE):
        event = conversation_updated(number, user_message=text, assistant_reply=text)
        assert await deliver(client, event) == "SUCCESS"
        assert await deliver(client, event) == "SUCCESS"
    assert contents(await history(client)) == [text] * NUMBERS_PER_PAGE


def test_a_full_page_fits_the_sidecar() -> None:
    assert TURNS_PER_PAGE * APART_BYTES * 2 < MAX_BODY


async def test_more_turns_with_one_number_than_a_page_holds_are_dropped(client: httpx2.AsyncClient) -> None:
    for number in range(TURNS_PER_PAGE):
        assert await deliver(client, conversation_updated(1, event_id=f"e{number}")) == "SUCCESS"
    assert await deliver(client, conversation_updated(1, event_id="one-more")) == "DROP"


async def test_a_page_that_is_listed_but_was_never_written_does_no_harm(
    client: httpx2.AsyncClient, sidecar: FakeSidecar
) -> None:
    async def fail(request: web.Request) -> web.Response | None:
        if not reads(request) and "turns-s1:junaid:5" in await keys_of(request):
            return web.json_response({"errorCode": "ERR_STATE_SAVE", "message": "no"}, status=500)
        return None

    sidecar.before = fail
    assert await deliver(client, conversation_updated(5 * NUMBERS_PER_PAGE)) == "RETRY"
    sidecar.before = None
    await deliver(client, conversation_updated(1))
    assert contents(await history(client)) == ["message 1"]


async def test_an_event_that_is_delivered_twice_at_once_is_handled_once(
    client: httpx2.AsyncClient, sidecar: FakeSidecar
) -> None:
    came, going_on = asyncio.Event(), asyncio.Event()
    pages: list[str] = []

    async def wait(request: web.Request) -> None:
        if reads(request):
            pages.extend(key for key in await keys_of(request) if key.startswith("turns-"))
            came.set()
            await going_on.wait()

    await deliver(client, conversation_updated(1))
    sidecar.before = wait
    first = asyncio.create_task(deliver(client, conversation_updated(2)))
    await came.wait()
    second = asyncio.create_task(deliver(client, conversation_updated(2)))
    going_on.set()
    assert [await first, await second] == ["SUCCESS", "SUCCESS"]
    assert len(pages) == 1


async def test_events_that_come_together_cost_few_requests_and_each_is_told_its_outcome(
    client: httpx2.AsyncClient, sidecar: FakeSidecar
) -> None:
    await deliver(client, conversation_updated(1))
    events = [conversation_updated(2), conversation_updated(3), conversation_updated(2)]
    events += [conversation_updated(1, session_id=f"s{number}", user_id=f"u{number}") for number in range(2, 6)]
    sidecar.requests.clear()
    assert await asyncio.gather(*(deliver(client, event) for event in events)) == ["SUCCESS"] * 7
    assert len(sidecar.requests) <= 12
    assert contents(await history(client)) == [f"message {number}" for number in (1, 2, 3)]
    assert contents(await history(client, "s4")) == ["message 1"]


async def test_one_that_cannot_be_stored_holds_up_none_that_came_with_it(
    client: httpx2.AsyncClient, sidecar: FakeSidecar
) -> None:
    await deliver(client, conversation_updated(1))
    page = sidecar.state["statestore"].get("turns-s1:junaid:0")
    sidecar.state["statestore"].restore("turns-s1:junaid:0", page | {"version": 99}, 1)
    events = [conversation_updated(2), conversation_updated(1, session_id="s2", user_id="aisha")]
    assert await asyncio.gather(*(deliver(client, event) for event in events)) == ["RETRY", "SUCCESS"]


async def test_what_a_later_release_put_into_a_page_stays(client: httpx2.AsyncClient, sidecar: FakeSidecar) -> None:
    await deliver(client, conversation_updated(1))
    state = sidecar.state["statestore"]
    for key in ("turns-s1:junaid:0", "turns-s1:junaid", "user-junaid"):
        page = state.get(key) | {"tomorrow": 1}
        if "turns" in page:
            page["turns"][0]["mood"] = "sunny"
        state.set(key, page, state.etag(key))
    await deliver(client, conversation_updated(2))
    await deliver(client, conversation_updated(20))
    await deliver(client, conversation_updated(21, session_id="s2"))
    assert state.get("turns-s1:junaid:0")["turns"][0]["mood"] == "sunny"
    for key in ("turns-s1:junaid:0", "turns-s1:junaid", "user-junaid"):
        assert state.get(key)["tomorrow"] == 1


async def test_a_document_in_a_form_of_later_is_refused_with_words_that_say_so(
    client: httpx2.AsyncClient, sidecar: FakeSidecar
) -> None:
    for key in ("turns-s1:junaid:0", "session-s1", "memory-junaid"):
        sidecar.state["statestore"].set(key, {"version": 99}, concurrency="first-write")
    assert await deliver(client, conversation_updated(1)) == "RETRY"
    for path in ("/conversations/s1", "/memories/junaid"):
        answer = await client.get(path)
        assert answer.status_code == 503
        assert answer.json()["type"] == "/problems/later-version"
        assert "99" in answer.json()["detail"]


async def test_retention_is_the_ttl_of_every_text(start: Start, sidecar: FakeSidecar) -> None:
    state = sidecar.state["statestore"]
    async with start(transcript_retention_seconds=100) as client:
        await deliver(client, conversation_updated(1))
        await deliver(client, conversation_updated(2, user_message="x" * APART_BYTES, event_id="long"))
        assert {state.ttl(f"turns-s1:junaid:0{more}") for more in ("", ":long")} == {100}
        # They expire: what is left of the session does no harm.
        for key in [key for key in state if key.startswith("turns-s1:junaid:0")]:
            state.delete(key)
        assert await history(client) == []
        await deliver(client, conversation_updated(3))
        assert contents(await history(client)) == ["message 3"]


async def test_without_retention_nothing_expires(client: httpx2.AsyncClient, sidecar: FakeSidecar) -> None:
    await deliver(client, conversation_updated(1))
    assert {sidecar.state["statestore"].ttl(key) for key in sidecar.state["statestore"]} == {None, FOR_EVER}


async def test_a_page_that_is_written_to_after_the_retention_ended_expires_no_more(
    start: Start, sidecar: FakeSidecar
) -> None:
    state = sidecar.state["statestore"]
    async with start(transcript_retention_seconds=100) as client:
        await deliver(client, conversation_updated(1))
    async with start() as client:
        await deliver(client, conversation_updated(2))
    assert state.ttl("turns-s1:junaid:0") == FOR_EVER


async def test_a_store_that_is_full_says_so_and_can_be_read(client: httpx2.AsyncClient, sidecar: FakeSidecar) -> None:
    await deliver(client, conversation_updated(1))

    async def full(request: web.Request) -> web.Response | None:
        if reads(request):
            return None
        message = (
            "possible etag mismatch. error from state store: OOM command not allowed when used memory > 'maxmemory'"
        )
        return web.json_response({"errorCode": "ERR_STATE_SAVE", "message": message}, status=409)

    sidecar.before = full
    assert await deliver(client, conversation_updated(2)) == "RETRY"
    memory = {"name": "J", "preferred_style": "casual", "user_summary": "J."}
    answer = await client.post("/memories/junaid/initialize", json=memory)
    assert answer.status_code == 503
    assert answer.json()["type"] == "/problems/store-full"
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
    assert [key for key in sidecar.state["statestore"] if key != "due-processes"] == []


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
        if not reads(request):
            return web.json_response({"errorCode": "ERR_STATE_SAVE", "message": "possible etag mismatch"}, status=409)
        return None

    sidecar.before = overtake
    assert await deliver(client, conversation_updated()) == "RETRY"


async def test_a_write_whose_answer_is_lost_is_not_repeated(client: httpx2.AsyncClient, sidecar: FakeSidecar) -> None:
    async def lose(request: web.Request) -> None:
        if not reads(request):
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


async def sessions(client: httpx2.AsyncClient, **asked: Any) -> tuple[list[str], str | None]:
    answer = await client.get("/memories/junaid/sessions", params=asked)
    assert answer.status_code == 200
    return [item["session_id"] for item in answer.json()["sessions"]], answer.json()["before"]


async def test_a_users_sessions_are_listed_with_the_time_of_their_last_turn(client: httpx2.AsyncClient) -> None:
    assert await sessions(client) == ([], None)
    for sequence, session_id in enumerate(("s1", "s2", "s1"), start=1):
        await deliver(client, conversation_updated(sequence, session_id=session_id))
    await deliver(client, conversation_updated(1, session_id="other", user_id="ayesha"))
    assert (await client.get("/memories/junaid/sessions")).json() == {
        "sessions": [
            {"session_id": "s2", "last_turn_at": "2026-11-23T00:00:02.000Z"},
            {"session_id": "s1", "last_turn_at": "2026-11-23T00:00:03.000Z"},
        ],
        "before": None,
    }


@pytest.mark.parametrize("limit", [1, 7, 64, 100])
async def test_sessions_are_listed_by_pages_each_once(client: httpx2.AsyncClient, limit: int) -> None:
    count = 2 * SESSIONS_PER_PAGE + 1
    for number in range(1, count + 1):
        await deliver(client, conversation_updated(number, session_id=f"s{number}"))
    listed, before = await sessions(client, limit=limit)
    while before is not None:
        page, before = await sessions(client, limit=limit, before=before)
        assert 1 <= len(page) <= limit
        listed += page
    assert listed == [f"s{number}" for number in range(count, 0, -1)]


async def test_a_place_that_is_no_longer_there_is_no_fault(client: httpx2.AsyncClient) -> None:
    await deliver(client, conversation_updated(1, session_id="s1"))
    assert await sessions(client, before="7.3") == (["s1"], None)
    assert await sessions(client, before="0.0") == ([], None)
    assert await sessions(client, before="0.999999999") == (["s1"], None)


@pytest.mark.parametrize(
    ("asked", "field"),
    [({"limit": 0}, "limit"), ({"limit": 101}, "limit"), ({"before": "1"}, "before"), ({"before": "-1.2"}, "before")],
)
async def test_sessions_are_asked_for_within_bounds(
    client: httpx2.AsyncClient, asked: dict[str, Any], field: str
) -> None:
    answer = await client.get("/memories/junaid/sessions", params=asked)
    assert answer.status_code == 422
    assert [(error["field"], error["location"]) for error in answer.json()["errors"]] == [(field, "query")]
