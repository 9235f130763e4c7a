"""What a run of a day keeps, and that nothing that was asked of it is lost on the way."""

import copy
import random

import pytest
from actor_load import recorder as recording
from actor_load.history import FINE_SECONDS, ROLL_SECONDS, roll_up
from actor_load.options import Options
from actor_load.record import (
    Container,
    Event,
    GeneratorSample,
    Host,
    PlacementSample,
    PodSample,
    Record,
    Second,
    Summary,
    rounded,
)
from actor_load.recorder import MESSAGE_FIELD, Recorder
from actor_load.report import series
from actor_load.subjects import summary
from locust.env import Environment

pytestmark = pytest.mark.timeout(120)  # whole days of a run are added up

STARTED = 1_800_000_000
DAY = 24 * 3600


def look(at, version=1, problems=(), restarts=0):
    pods = [
        PodSample(
            name=name,
            node="n",
            ip="10.0.0.1",
            ready=True,
            leaving=False,
            restarts=restarts,
            containers={"app": Container(cpu_cores=0.5, memory_bytes=10**8)},
        )
        for name in ("a", "b")
    ]
    hosts = [Host(address="10.0.0.1:50002", app_id="chat-service", actor_types=["A"])]
    return PlacementSample(at=at, version=version, hosts=hosts, pods=pods, problems=list(problems))


def second(at, name="turn", chance=random.Random(1), answered=5):  # noqa: B008 - one for all
    latencies = [rounded(chance.lognormvariate(3, 0.5)) for _ in range(answered)]
    return Second(
        at=STARTED + at, name=name, answered=answered, latency_ms={one: latencies.count(one) for one in latencies}
    )


def run(lasted, every=1, **more):
    """A record of so many seconds, as it would be if nothing were added up."""
    answered = [second(at, name) for at in range(0, lasted, every) for name in ("turn", "BeginTurn")]
    due = [one for one in copy.deepcopy(answered) if one.name == "turn"]
    return Record(title="soak", started=STARTED, ended=STARTED + lasted, seconds=answered, due=due, **more)


@pytest.fixture
def clock(monkeypatch):
    """The recorder's: ``clock[0]`` is now."""
    now = [float(STARTED)]
    monkeypatch.setattr(recording.time, "time", lambda: now[0])
    return now


def test_a_soak_of_a_day_keeps_a_bounded_number_of_buckets_and_loses_no_request(clock):
    environment = Environment()
    kept = Recorder(environment, dict)
    kept.begin(Options(shape="soak"), "soak")
    record = kept.record
    every, most = 10, 0
    for at in range(0, DAY, every):
        clock[0] = STARTED + at
        seconds = [vars(second(at, name)) for name in ("turn", "BeginTurn")]
        generator = {"at": clock[0], "process": "w0", "cpu_cores": 0.5, "memory_bytes": 1, "users": 5}
        counted = {"seconds": seconds, "due": seconds[:1], "told": None, "failures": [], "generator": generator}
        environment.events.worker_report.fire(client_id="w0", data={MESSAGE_FIELD: counted})
        kept.sample(look(clock[0]))
        most = max(most, len(record.due))

    fine = (FINE_SECONDS + ROLL_SECONDS) / every + 1
    assert most <= 20 * 3600 / 60 + fine, "the most are there when all is in minutes"
    assert len(record.due) <= DAY / 300 + fine
    assert len(record.seconds) == 2 * len(record.due)
    assert len(record.placement) <= len(record.due)
    assert len([sample for sample in record.generator if sample.process == "w0"]) <= len(record.due)
    for what in ("turn", "call"):
        assert summary(record, what).answered == DAY / every * 5
        assert sum(summary(record, what).latency_ms.values()) == DAY / every * 5
    assert kept.finish() is record, "a copy of it would take as much memory again"


def test_what_is_added_up_has_the_same_percentiles_in_the_run_and_in_each_phase():
    def phased():
        events = [
            Event(at=STARTED + at + 0.4, kind="phase", text=name, phase=name)
            for at, name in ((0, "usual"), (3333, "spike"), (4444, "back"))
        ]
        return run(3 * 3600, every=7, events=events)

    before, after = phased(), phased()
    before.seconds, before.due = after.seconds, after.due
    before = before.model_copy(deep=True)
    roll_up(after, after.ended)
    assert len(after.seconds) < len(before.seconds)
    for what in ("turn", "call"):
        for phase in (None, "usual", "spike", "back"):
            assert summary(after, what, phase) == summary(before, what, phase)


@pytest.mark.parametrize(("hours", "width"), [(1, 5), (4, 30), (6, 60), (12, 60), (24, 300), (60, 300)])
def test_the_charts_of_the_whole_run_are_the_same_as_without(hours, width):
    plain = run(hours * 3600, every=13)
    rolled = plain.model_copy(deep=True)
    for at in range(ROLL_SECONDS, hours * 3600 + 1, 7 * ROLL_SECONDS):
        later = [one for one in rolled.seconds if one.at >= STARTED + at]
        sofar = rolled.model_copy(update={"seconds": [one for one in rolled.seconds if one.at < STARTED + at]})
        roll_up(sofar, STARTED + at)
        rolled.seconds = [*sofar.seconds, *later]
    for drawn in (series.latencies, series.rates):
        assert drawn(plain, series.Span.of(plain), "call") == drawn(rolled, series.Span.of(rolled), "call")
    assert max(one.width for one in rolled.seconds) == width


def test_the_charts_of_a_part_are_no_finer_than_what_was_kept_of_it():
    found = run(8 * 3600, every=5)
    roll_up(found, found.ended)
    span = series.Span.of(found, STARTED + 100, STARTED + 700)
    assert span.width == 60
    assert all(row["answered"] > 0 for row in series.rates(found, span, "turn"))


def test_a_run_of_minutes_and_the_last_half_hour_of_a_long_one_keep_every_second():
    short, long = run(1800), run(4 * 3600)
    for record in (short, long):
        roll_up(record, record.ended)
    assert {one.width for one in short.seconds} == {1}
    lately = [one for one in long.due if one.at >= long.ended - FINE_SECONDS]
    assert len(lately) == FINE_SECONDS
    assert {one.width for one in lately} == {1}
    assert Summary.of(long.due, 1).answered == 4 * 3600 * 5


def test_of_placement_every_change_stays_and_of_the_generator_the_busiest_sample():
    looks = [look(STARTED + at) for at in range(0, 3600, 2)]
    looks[10] = look(STARTED + 20, problems=["a kubelet is silent"])
    looks[50] = look(STARTED + 100, version=2)
    looks[99] = look(STARTED + 198, restarts=1)
    cores = [0.9 if at == 77 else 0.1 for at in range(3600)]
    samples = [
        GeneratorSample(at=STARTED + at, process=process, cpu_cores=of, memory_bytes=1, users=1)
        for at, of in enumerate(cores)
        for process in ("w0", "w1")
    ]
    found = Record(title="r", started=STARTED, ended=STARTED + 3600, placement=looks, generator=samples)
    roll_up(found, found.ended)
    assert [sample.problems for sample in found.placement if sample.problems] == [["a kubelet is silent"]]
    assert 2 in {sample.version for sample in found.placement}
    assert 1 in {sample.pods[0].restarts for sample in found.placement}
    assert found.placement[-1].at == STARTED + 3598
    assert len(found.placement) < 1300
    assert [(one.at - STARTED, one.process) for one in found.generator if one.cpu_cores == 0.9] == [
        (77, "w0"),
        (77, "w1"),
    ]
    assert len(found.generator) == 2 * (1800 + 1800 / 5)
