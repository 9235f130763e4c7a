"""`make bench` on the cluster, and the benches that run ours without one. Nothing is timed here."""

import asyncio
import json
import subprocess
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from bench.activations import VISIT
from bench.actor_calls import Caller
from bench.wrk import Wrk

from cluster.client import CHAT
from cluster.versions import ROOT

pytestmark = pytest.mark.e2e


def run(target, options, folder):
    done = subprocess.run(
        ["make", target, f"BENCH_OPTIONS={options} --to {folder}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


class FakeSidecar:
    """Actors that count their writes; some of them have lost theirs."""

    def __init__(self, lost=0):
        self.written = {}
        self.lost = lost

    @asynccontextmanager
    async def served(self):
        app = web.Application()
        app.router.add_post("/v1.0/actors/{type}/{id}/method/{method}", self._call)
        app.router.add_get("/v1.0/metadata", self._metadata)
        app.router.add_get("/v1.0/healthz/outbound", self._health)
        async with TestServer(app) as server:
            yield str(server.make_url("")).rstrip("/")

    async def _call(self, request):
        actor = request.match_info["id"]
        if request.match_info["method"] == "ClearHistory":
            self.written[actor] = self.written.get(actor, 0) + 1
            return web.json_response({"turn_no": self.written[actor]})
        if self.lost:
            self.lost -= 1
            return web.json_response({"errorCode": "ERR_ACTOR_INVOKE_METHOD"}, status=500)
        return web.json_response({"turn_no": self.written.get(actor, 0) + 1})

    async def _metadata(self, _):
        active = [{"type": "UserSessionActor", "count": len(self.written)}, {"type": "Other", "count": 7}]
        return web.json_response({"actorRuntime": {"activeActors": active}})

    async def _health(self, _):
        return web.Response(status=204)


async def test_every_actor_is_called_once_and_wrong_answers_are_failures():
    sidecar = FakeSidecar(lost=3)
    async with sidecar.served() as address:
        caller = Caller(Wrk(), address, range(50), at_once=8)
        first = await asyncio.to_thread(caller.all, "write", "ClearHistory", {}, 1)
        again = await asyncio.to_thread(caller.all, "read", "BeginTurn", VISIT, 2)

        assert await asyncio.to_thread(caller.active) == 50
    assert set(sidecar.written.values()) == {1}
    assert (first.calls, first.failed) == (50, {})
    assert again.failed == {"status 500 ERR_ACTOR_INVOKE_METHOD": 3}
    assert 0 < first.p50_ms <= first.p99_ms


def test_ours_and_the_peers_take_turns_and_every_turn_is_answered(cluster, tmp_path):
    pods = len(cluster.pods(CHAT))
    systems = ("peer", "dapr-session", "tutorial", "cluster")
    run(
        "bench",
        f"--systems {','.join(systems)} --pods 1 --clients 1 --rounds 1 --seconds 3 --users 5 --calls",
        tmp_path,
    )
    told = json.loads((tmp_path / "bench.json").read_text())
    steps = told["steps"]
    assert [step["system"] for step in steps] == ["peer", "dapr-session", "tutorial", "cluster, 1 pod"]
    assert [set(step["load"]["statuses"]) for step in steps] == [{"200"}] * len(steps)
    assert [step["first_token_ms"] is not None for step in steps] == [True, True, False, True]
    asked = told["calls_a_turn"]["tutorial"]
    published, handled = (asked[f"Redis command {name}"] for name in ("xadd", "xack"))
    assert min(published, handled) > 0.5  # of a turn: its event, and the memory service's answer to that
    assert (tmp_path / "bench.png").stat().st_size
    cluster.settle()
    assert len(cluster.pods(CHAT)) == pods


def test_actors_are_activated_deactivated_and_found_as_they_were(tmp_path):
    run("bench-activations", "--users 50", tmp_path)
    found = json.loads((tmp_path / "activations.json").read_text())
    assert [(one["calls"], one["failed"]) for one in found["passes"]] == [(50, {})] * 2
    assert found["about"]["active_at_once"] >= 50


def test_a_turn_is_measured_late_in_a_session_and_beside_many_users(tmp_path):
    run("bench-long", "--messages 10,20 --users 1,30 --turns 10", tmp_path)
    points = json.loads((tmp_path / "long.json").read_text())["points"]
    assert [point["at"] for point in points] == [10, 20, 1, 30]
    assert all({"chat-service", "agent-memory-service", "Redis"} <= set(point["cpu_ms"]) for point in points)
    assert (tmp_path / "long.png").stat().st_size


def test_actors_and_rounds_of_placement_are_measured_for_the_capacity(tmp_path):
    run("bench-capacity", "--what actors,rounds --most-actors 5000", tmp_path)
    actors, rounds = (json.loads((tmp_path / f"{kind}.json").read_text())["looks"] for kind in ("actors", "rounds"))
    assert [(look["active"], look["failed"]) for look in actors] == [(0, 0), (5000, 0)]
    assert {"chat-service", "chat-service's daprd"} == set(actors[0]["memory"])
    assert all(min(look["seconds"]) > 0 for look in rounds)
