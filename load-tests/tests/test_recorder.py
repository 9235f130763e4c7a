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
