"""What a run's record holds, and for how long it grows. Whole runs are in test_runs.py."""

import time

from actor_load.options import Options
from actor_load.recorder import MESSAGE_FIELD, Recorder, Tally
from locust.env import Environment


def test_the_record_of_a_run_that_is_over_does_not_grow_while_its_report_is_drawn():
    environment = Environment()
    worker = Tally(environment, "worker")
    recorder = Recorder(environment, dict)
    recorder.begin(Options(), "a run")
    environment.events.worker_report.fire(client_id="worker", data={MESSAGE_FIELD: worker.take()})
    record = recorder.finish()
    written = record.model_dump()
    assert {sample["process"] for sample in written["generator"]} == {"local", "worker"}

    environment.events.request.fire(
        request_type="POST", name="turn", response_time=1, response_length=1, exception=None, start_time=time.time()
    )
    environment.events.worker_report.fire(client_id="worker", data={MESSAGE_FIELD: worker.take()})
    recorder.event("phase", "later")

    assert record.model_dump() == written


def answered(environment, seconds, *, name="turn", began, error=None):
    environment.events.request.fire(
        request_type="POST",
        name=name,
        response_time=seconds * 1000,
        response_length=1,
        exception=error,
        start_time=began,
    )


def counted(recorder, environment, worker):
    environment.events.worker_report.fire(client_id="worker", data={MESSAGE_FIELD: worker.take()})
    return recorder


def test_turns_belong_to_when_they_were_due_however_late_they_are_answered_and_by_whichever_process():
    environment = Environment()
    worker = Tally(environment, "worker")
    recorder = Recorder(environment, dict)
    recorder.begin(Options(scenario="scale"), "a run")
    now = time.time()
    answered(environment, 25.0, began=now - 25, error=ValueError("no answer"))
    answered(environment, 24.0, name="turn (due)", began=now - 24.5)
    answered(environment, 0.1, began=now)
    answered(environment, 24.0, name="BeginTurn", began=now - 24.5)  # no turn
    seen = counted(recorder, environment, worker).due(now - 26, now - 20)
    assert (seen.answered, seen.failed, seen.slowest_ms) == (2, 1, 25_000)
    assert recorder.record.summary(now - 26, now - 20).answered == 0  # none was answered then


def test_failed_requests_have_latencies_of_their_own():
    environment = Environment()
    recorder = Recorder(environment, dict)
    recorder.begin(Options(), "a run")
    began = time.time()
    for _ in range(9):
        answered(environment, 0.001, began=began, error=ValueError("refused"))
    answered(environment, 0.5, began=began)
    seen = recorder.finish().summary()
    assert (seen.answered, seen.failed) == (10, 9)
    assert seen.percentile_ms(50) == 500
    assert seen.failed_ms == {1.0: 9}
