"""How the actor is hosted: what goes to the sidecar and comes from it as JSON."""

from datetime import timedelta

import orjson
import pytest
from chat_service.hosting import JsonSerializer
from dapr.actor.runtime._timer_data import ActorTimerData


async def callback(_: object) -> None:
    """What a timer calls."""


def test_text_that_looks_like_a_date_or_a_duration_stays_text():
    said = {"user_text": "5m", "reply_text": "2026-11-23T17:14:48Z"}
    json = JsonSerializer()
    assert json.deserialize(json.serialize(said)) == said


def test_a_timer_of_the_sdk_is_written_with_daprs_durations():
    timer = ActorTimerData("summary", callback, None, timedelta(seconds=3), timedelta(minutes=5, milliseconds=20))
    written = orjson.loads(JsonSerializer().serialize(timer.as_dict()))
    assert written == {
        "callback": "callback",
        "data": None,
        "dueTime": "0h0m3s0ms0\u03bcs",
        "period": "0h5m0s20ms0\u03bcs",
    }


def test_what_is_not_json_is_refused():
    with pytest.raises(TypeError):
        JsonSerializer().serialize({"text": {1, 2}})
