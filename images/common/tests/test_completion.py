"""What servers send, read: what can be understood in one way is taken, anything else is told as odd."""

from typing import Any

import orjson
import pytest
from daca_common.completion import Completion, Events, Gathering, Odd, Told, parse


def chunk(delta: dict[str, Any] | None, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def gathered(*pieces: Any, told: list[str] | None = None) -> Completion:
    gathering = Gathering(told.append if told is not None else None, streamed=True)
    for piece in pieces:
        gathering.add(piece)
    return gathering.end()


def read(payload: Any, *, streamed: bool) -> Completion:
    gathering = Gathering(None, streamed=streamed)
    gathering.add(payload)
    return gathering.end()


def whole(message: Any, finish: str | None = "stop") -> Completion:
    return read({"choices": [{"message": message, "finish_reason": finish}]}, streamed=False)


@pytest.mark.parametrize(
    "content",
    [
        "Hello!",
        ["Hello!"],
        [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo!"}],
        [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "Hello!"}],
        [{"text": "Hello!"}],
        {"type": "text", "text": "Hello!"},
        "<think>They greet.\nSo do I.</think>\n\nHello!",
    ],
)
def test_a_text_is_understood_in_each_form(content: object):
    assert whole({"role": "assistant", "content": content}).text == "Hello!"
    told: list[str] = []
    assert gathered(chunk({"content": content}), chunk({}, "stop"), told=told).text == "Hello!"
    assert "".join(told) == "Hello!"


@pytest.mark.parametrize(
    "payload",
    [
        None,
        7,
        [],
        "text",
        {},
        {"choices": None},
        {"choices": []},
        {"choices": [None]},
        {"choices": "none"},
        {"choices": {"0": {}}},
        {"choices": [{"message": None}]},
        {"choices": [{"message": "Hello!"}]},
        {"choices": [{"message": {"content": None}}]},
        {"choices": [{"message": {"content": " \n"}}]},
        {"choices": [{"message": {"content": 7}}]},
        {"choices": [{"message": {"content": [{"type": "image_url", "image_url": {}}]}}]},
        {"choices": [{"message": {"content": "Hel"}, "finish_reason": "error"}]},
        {"choices": [{"message": {"content": "\ud83d"}}]},
        {"choices": [{"message": {"tool_calls": {"id": "1"}}}]},
        {"choices": [{"message": {"tool_calls": [None]}}]},
        {"choices": [{"message": {"tool_calls": [{"id": "1", "function": None}]}}]},
        {"choices": [{"message": {"tool_calls": [{"id": "1", "function": {"name": None}}]}}]},
    ],
)
def test_what_is_no_answer_is_odd_and_its_words_quote_nothing(payload: Any):
    for streamed in (False, True):
        with pytest.raises(Odd) as odd:
            read(payload, streamed=streamed)
        assert "Hel" not in str(odd.value)


@pytest.mark.parametrize(
    "payload",
    [
        {"error": {"message": "no"}},
        {"error": "no", "choices": []},
        [{"error": {"code": 503}}],
        {"object": "error", "message": "no"},
        {"choices": [{"error": {"code": 502}, "finish_reason": "error"}]},
    ],
)
def test_an_error_in_the_place_of_an_answer_is_told(payload: Any):
    for streamed in (False, True):
        with pytest.raises(Told):
            Gathering(None, streamed=streamed).add(payload)


def test_what_is_not_looked_at_may_be_anything():
    odd = {"id": None, "created": "now", "model": 7, "usage": "3 tokens", "system_fingerprint": []}
    choice = {"index": "0", "message": {"content": "Hello!", "role": None}, "logprobs": 1}
    assert read(odd | {"choices": [choice]}, streamed=False).text == "Hello!"


@pytest.mark.parametrize(
    ("finish", "read"),
    [
        ("stop", "stop"),
        (None, "stop"),
        ("eos", "stop"),
        ("length", "length"),
        ("MAX_TOKENS", "length"),
        ("content_filter", "content_filter"),
        ("SAFETY", "content_filter"),
    ],
)
def test_why_it_ended_is_read_whatever_a_server_calls_it(finish: str | None, read: str):
    assert whole({"content": "Once"}, finish).finish == read


def test_a_refusal_without_a_text_is_filtered_and_one_beside_a_text_is_not():
    assert whole({"content": None, "refusal": "No."}).finish == "content_filter"
    assert gathered(chunk({"refusal": "N"}), chunk({"refusal": "o."}), chunk({}, "stop")).finish == "content_filter"
    assert whole({"content": "Yes.", "refusal": "No."}).finish == "stop"


class TestPiecesOfText:
    def test_an_emoji_whose_halves_come_in_two_pieces_is_one(self):
        told: list[str] = []
        pieces = [
            parse(b'{"choices":[{"delta":{"content":"%b"}}]}' % half) for half in (b"A\\ud83d", b"\\ude00b", b"c")
        ]
        assert gathered(*pieces, chunk({}, "stop"), told=told).text == "A\U0001f600bc"
        assert told == ["A\U0001f600b", "c"]

    def test_so_is_one_whose_bytes_do(self):
        told: list[str] = []
        pieces = [parse(b'{"choices":[{"delta":{"content":"%b"}}]}' % half) for half in (b"A\xf0\x9f", b"\x98\x80")]
        assert gathered(*pieces, chunk({}, "stop"), told=told).text == "A\U0001f600"
        assert told == ["A\U0001f600"]

    def test_a_half_that_stays_one_is_odd_and_never_shown(self):
        told: list[str] = []
        with pytest.raises(Odd, match="Unicode"):
            gathered(chunk({"content": "A"}), chunk({"content": "\ude00"}), chunk({}, "stop"), told=told)
        assert told == ["A"]

    def test_thoughts_in_pieces_of_any_size_are_left_out_and_the_rest_is_shown_as_it_comes(self):
        said = " \n<think>Is it <b>late</b>?</think>\n It is <think> late."
        for size in (1, 2, 3, 7, 100):
            told: list[str] = []
            pieces = [chunk({"content": said[start : start + size]}) for start in range(0, len(said), size)]
            assert gathered(*pieces, chunk({}, "stop"), told=told).text == "It is <think> late."
            assert "".join(told) == "It is <think> late."

    def test_what_only_begins_like_a_thought_is_text(self):
        for said in ("<thin", "  <", "<thinking> is a tag"):
            assert gathered(*(chunk({"content": letter}) for letter in said), chunk({}, "stop")).text == said

    def test_a_thought_without_an_end_is_no_answer(self):
        assert gathered(chunk({"content": "<think>hm"}), chunk({}, "length")).text == ""
        with pytest.raises(Odd):
            gathered(chunk({"content": "<think>hm"}), chunk({}, "stop"))

    def test_a_stream_that_ends_before_the_reply_is_half_of_it(self):
        for nothing in (None, "", False):
            with pytest.raises(Odd, match="finish_reason"):
                gathered(chunk({"content": "Hel"}, nothing))  # type: ignore[arg-type]


class TestToolCalls:
    def test_pieces_are_put_together_by_their_index(self):
        first = {"index": 0, "id": "a", "type": "function", "function": {"name": "one", "arguments": ""}}
        second = {"index": 1, "id": "b", "type": "function", "function": {"name": "two", "arguments": "{"}}
        rest = [{"index": 0, "function": {"arguments": "{}"}}, {"index": 1, "function": {"arguments": "}"}}]
        calls = gathered(chunk({"tool_calls": [first, second]}), chunk({"tool_calls": rest}), chunk({}, "stop")).calls
        assert [(call.id, call.name, call.arguments) for call in calls] == [("a", "one", "{}"), ("b", "two", "{}")]

    def test_calls_that_are_not_counted_or_all_counted_as_the_first_are_told_apart(self):
        for index in ({}, {"index": 0}, {"index": None}):
            pieces = [
                chunk({"tool_calls": [index | {"id": call_id, "function": {"name": "now", "arguments": "{}"}}]})
                for call_id in ("a", "b")
            ]
            assert [call.id for call in gathered(*pieces, chunk({}, "tool_calls")).calls] == ["a", "b"]

    def test_a_name_that_comes_with_each_piece_is_one_name(self):
        pieces = [
            chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "now", "arguments": half}}]})
            for half in ('{"a"', ":1}")
        ]
        (call,) = gathered(*pieces, chunk({}, "tool_calls")).calls
        assert (call.name, call.arguments) == ("now", '{"a":1}')

    def test_two_calls_without_ids_get_two(self):
        call = {"function": {"name": "now", "arguments": None}}
        first, second = whole({"tool_calls": [call, call | {"id": ""}]}).calls
        assert first.id
        assert second.id
        assert first.id != second.id

    def test_marks_of_a_models_format_are_no_part_of_a_name(self):
        call = {"id": "a", "function": {"name": " get_time<|channel|>commentary", "arguments": "{}"}}
        (read,) = whole({"tool_calls": [call]}).calls
        assert read.name == "get_time"

    def test_what_comes_along_goes_back_with_it(self):
        extra = {"google": {"thought_signature": "c2ln"}}
        call = {"index": 0, "id": "a", "function": {"name": "now", "arguments": "{}"}, "extra_content": extra}
        message = gathered(
            chunk({"role": "assistant", "reasoning": "The "}),
            chunk({"reasoning": "time.", "tool_calls": [call]}),
            chunk({}, "tool_calls"),
        ).message
        function = {"name": "now", "arguments": "{}"}
        assert message == {
            "role": "assistant",
            "content": None,
            "reasoning": "The time.",
            "tool_calls": [{"extra_content": extra, "id": "a", "type": "function", "function": function}],
        }


class TestEvents:
    STREAM = (
        b'\xef\xbb\xbfevent: chunk\r\nid: 1\r\ndata: {"a":\r\ndata: 1}\r\n\r\n'
        b'data:{"b": 2}\n\nretry: 3\n\n: ping\n\ndata:\n\ndata: [DONE]\n\ndata: {"c": 3}\n\n'
    )

    def test_they_are_the_same_wherever_the_pieces_end(self):
        for size in (1, 5, 1000):
            events = Events()
            read = [
                payload
                for start in range(0, len(self.STREAM), size)
                for payload in events.feed(self.STREAM[start : start + size])
            ]
            assert read == [{"a": 1}, {"b": 2}]
            assert events.done

    def test_the_last_one_needs_no_line_end(self):
        events = Events()
        assert [*events.feed(b'data: {"a": 1}'), *events.end()] == [{"a": 1}]

    def test_an_event_called_error_is_one_whatever_it_holds(self):
        for data, error in ((b'{"message": "no"}', {"message": "no"}), (b"no", "no"), (b'{"error": "no"}', "no")):
            with pytest.raises(Told) as told:
                list(Events().feed(b"event: error\ndata: " + data + b"\n\n"))
            assert told.value.error == error

    def test_data_that_is_not_json_is_odd(self):
        with pytest.raises(Odd):
            list(Events().feed(b'data: {"id": "c", "choi\n\n'))


@pytest.mark.parametrize("data", [b"", b"<html></html>", b'{"a": ', b"[" * 100_000, b"\xff\xfe{\x00}\x00"])
def test_what_is_not_json_is_odd(data: bytes):
    with pytest.raises(Odd):
        parse(data)


def test_json_may_begin_with_a_byte_order_mark():
    assert parse(b"\xef\xbb\xbf" + orjson.dumps({"a": 1})) == {"a": 1}
