"""``Accept`` by its grammar: weights, wildcards, case, several headers."""

import time

import pytest
from daca_common.accept import preferred
from daca_common.problems import Problem
from starlette.datastructures import Headers

JSON, STREAM = "application/json", "text/event-stream"


def chosen(*accept: str) -> str:
    return preferred(Headers(raw=[(b"accept", value.encode("latin-1")) for value in accept]), JSON, STREAM)


@pytest.mark.parametrize(
    "accept",
    [
        "text/event-stream",
        "Text/Event-Stream",
        "text/*",
        "text/event-stream; charset=utf-8",
        "text/event-stream, */*",
        "text/event-stream, application/json",
        "application/json;q=0.5, text/event-stream",
        "application/json; Q=0.5 ,text/event-stream;q=0.501",
        "*/*;q=0.1, application/json;q=0, text/html",
        'text/html;a="b,application/json", text/event-stream',
        "text/event-stream;q=1.000",
    ],
)
def test_a_stream_is_answered_where_it_is_preferred(accept: str) -> None:
    assert chosen(accept) == STREAM


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "application/json",
        "APPLICATION/*",
        "application/json, text/event-stream",
        "text/event-stream;q=0.5, application/json",
        "text/*;q=0.5, application/*;q=0.6",
        "text/event-stream;q=0, */*",
        "text/event-stream;q=0.0, application/json;q=0.001",
        "text/html, application/xhtml+xml, */*;q=0.8",
        "application/json, text/plain, */*",
        "application/json;version=2",
        "text/event-streams, */*;q=0.1",
        "json",
        "*/json",
        "text/event-stream;q=2",
        "text/event-stream;q=",
        ",, ;q=1,",
        "\u00fc",
        "x" * 5000 + ", text/event-stream",
    ],
)
def test_json_is_answered_where_that_is_preferred_or_nothing_is_said(accept: str) -> None:
    assert chosen(accept) == JSON


def test_several_headers_are_one_list() -> None:
    assert chosen("application/json;q=0.1", "text/event-stream") == STREAM
    assert chosen("text/html", "application/json") == JSON
    assert chosen() == JSON


@pytest.mark.parametrize(
    "accept", ["text/html", "*/*;q=0", "application/json;q=0, text/event-stream;q=0", "text/*;q=0", "image/*, a/b"]
)
def test_what_wants_none_of_them_is_a_406_that_names_them(accept: str) -> None:
    with pytest.raises(Problem) as raised:
        chosen(accept)
    problem = raised.value
    assert (problem.status, problem.kind) == (406, "/problems/not-acceptable")
    assert [(error["field"], error["location"]) for error in problem.errors] == [("Accept", "header")]
    assert JSON in problem.detail
    assert STREAM in problem.detail


def test_no_header_takes_long_to_read() -> None:
    began = time.process_time()
    for odd in ('"', '"\\', ";", "; ", ",", "a/b;q=0.5 ;"):
        chosen("*/*, " + odd * 20_000)
    assert time.process_time() - began < 1
