"""A run of the load tests as it might have been, for what shows one: five minutes, 1 -> 3 -> 6 -> 2 pods under load."""

import random
from collections import Counter
from itertools import pairwise

from actor_load.placement.ring import Ring
from actor_load.record import (
    Check,
    Container,
    Event,
    Failure,
    Figure,
    GeneratorSample,
    Host,
    PlacementSample,
    PodSample,
    Record,
    Second,
    Section,
    Table,
    rounded,
)

STARTED = 1_795_464_000.4
SECONDS = 300
SCALES = ((0, 1), (60, 3), (140, 6), (220, 2))
"""Second of the run -> pods from then on."""
SETTLING = 6
"""Seconds until placement has the new table."""
IDS = 4000
NAMES = ("turn", "turn (long session)", "GetConversationHistory", "retry turn")
MIB = 1024 * 1024


def pods_at(second):
    """How many pods were asked for."""
    return [count for since, count in SCALES if since <= second][-1]


def load_run(seconds=SECONDS, seed=5):
    """The record; the same seed gives the same one. With fewer ``seconds`` it ends earlier."""
    chance = random.Random(seed)
    answered = [second for at in range(seconds) for second in _second(at, chance)]
    return Record(
        title="Tour: ramp, scale, report",
        started=STARTED,
        ended=STARTED + seconds,
        settings={"target": "http://198.18.0.1:30010", "scenario": "tour", "pods": "1,3,6,2", "max_p95": "300"},
        versions={"Locust": "2.47.0", "Dapr sidecar": "1.18.1", "Kubernetes": "v1.34.4"},
        seconds=answered,
        due=[second.model_copy() for second in answered if second.name.startswith("turn")],
        failures=[Failure(name="turn", error="HTTPError: 503 Server Error <no host> & more", count=9)],
        generator=[sample for at in range(seconds) for sample in _generator(at, chance)],
        events=[event for event in _events() if event.at <= STARTED + seconds],
        placement=_placement(seconds, chance),
        sections=_sections() if seconds == SECONDS else [],
        checks=[
            Check(name="p95", passed=False, detail="p95 412 ms is above --max-p95 300 ms"),
            Check(name="error rate", passed=True, detail="error rate 0.03 % keeps within 1 %"),
        ],
    )


def _since_change(second):
    """Seconds since the cluster was scaled; far away at first."""
    return min((second - since for since, _ in SCALES[1:] if second >= since), default=1000)


def _second(at, chance):
    users = min(40, 4 + at)
    shaken = _since_change(at) < SETTLING
    for name, share, usual in zip(NAMES, (0.9, 0.1, 1.5, 0), (24, 46, 4, 24), strict=True):
        answered = int(users * share * chance.uniform(0.85, 1.1)) if name != "retry turn" else 3 * shaken
        if not answered:
            continue
        latencies = Counter(
            rounded(usual * chance.lognormvariate(0, 0.45) * (chance.choice((1, 4, 30)) if shaken else 1))
            for _ in range(answered)
        )
        failed = 3 if name == "turn" and _since_change(at) in {1, 2, 3} and pods_at(at) == 2 else 0
        yield Second(at=int(STARTED) + at, name=name, answered=answered, failed=failed, latency_ms=latencies)


def _generator(at, chance):
    for process, load in (("master", 0.05), ("worker-0", 0.55), ("worker-1", 0.5)):
        busy = load * min(1, (4 + at) / 40) * chance.uniform(0.9, 1.1) * (1.7 if at in range(250, 260) else 1)
        users = 0 if process == "master" else min(20, 2 + at // 2)
        yield GeneratorSample(
            at=STARTED + at + 0.1, process=process, cpu_cores=busy, memory_bytes=90 * MIB, users=users
        )


def _events():
    said: list[tuple[int, str, str, str | None]] = [
        (0, "phase", "ramp to 40 users", "ramp"),
        (40, "phase", "steady", "load"),
    ]
    for (_, before), (since, count) in pairwise(SCALES):
        said.append((since, "action", f"scaled from {before} to {count} pods", "change"))
        said.append((since + SETTLING, "settled", f"placement's table has {count} hosts", None))
    said.append((222, "problem", "9 turns failed: 503 Server Error", None))
    return [Event(at=STARTED + second, kind=kind, text=text, phase=phase) for second, kind, text, phase in said]


def _placement(seconds, chance):
    samples, pods, version = [], [], 41
    table: tuple[str, ...] = ()
    gone = Counter()
    for at in range(0, seconds, 2):
        asked = pods_at(at)
        while len(pods) < asked:
            number = chance.randrange(36**5)
            pods.append((f"chat-service-6f7d8c9b4-{_letters(number)}", f"10.244.0.{20 + number % 200}"))
        leaving = pods[asked:] if _since_change(at) < SETTLING else []
        pods = pods[: asked + len(leaving)]
        ready = [pod for pod in pods if pod not in leaving]
        hosts = tuple(
            f"{ip}:50002" for _, ip in (ready if _since_change(at) >= SETTLING or not table else ready[: len(table)])
        )
        if hosts != table:
            version, table = version + 1, hosts
            for name, _ in pods:
                gone[name] += 400
        active = Ring(hosts).hosts_of(f"person-{number}" for number in range(min(IDS, 200 + 40 * at)))
        samples.append(
            PlacementSample(
                at=STARTED + at + 0.3,
                version=version,
                hosts=[Host(address=host, app_id="chat-service", actor_types=["UserSessionActor"]) for host in hosts],
                pods=[
                    PodSample(
                        name=name,
                        node="node-1",
                        ip=ip,
                        ready=(name, ip) in ready,
                        leaving=(name, ip) in leaving,
                        restarts=0,
                        active_actors={"UserSessionActor": active.get(f"{ip}:50002", 0)},
                        pending_calls=chance.randrange(12) if _since_change(at) < SETTLING else 0,
                        rebalanced=gone[name],
                        deactivated=gone[name] + at,
                        containers={
                            "chat-service": _container(0.9, 120, at, asked, chance),
                            "daprd": _container(0.4, 60, at, asked, chance),
                        },
                    )
                    for name, ip in pods
                ],
                problems=["metrics of a pod: timed out"] if at == 60 else [],
            )
        )
    return samples


def _letters(number):
    return "".join("bcdfghjklmnpqrstvwxz2456789"[number // 27**place % 27] for place in range(5))


def _container(cores, memory, at, pods, chance):
    return Container(
        cpu_cores=cores * min(1, (4 + at) / 40) / pods * chance.uniform(0.85, 1.15),
        memory_bytes=int((memory + at * 0.05) * MIB),
    )


def _sections():
    return [
        Section(
            title=f"Scale from {before} to {count} pods",
            text="Pods were added or taken while everybody went on talking.",
            started=STARTED + since - 10,
            ended=STARTED + since + 40,
            figures=[
                Figure(name="failed turns", value="9" if count == 2 else "0"),
                Figure(name="settled after", value=f"{SETTLING} s", note="from the command to a table that stays"),
                Figure(name="moved", value="66.1 %", note="the ring predicts 65.8 %"),
            ],
            tables=[
                Table(title="Moved actors", columns=["from", "to", "actors"], rows=[["abcde", "fghij", "1,204"]]),
            ],
            checks=[
                Check(name="no turn failed", passed=count != 2, detail=f"{9 if count == 2 else 0} of 1,204 failed")
            ],
        )
        for (_, before), (since, count) in pairwise(SCALES)
    ]
