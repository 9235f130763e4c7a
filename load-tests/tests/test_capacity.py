"""The capacity model: what is planted is found, what does not fit is said, and the page is what the runs say."""

import json
import random
from dataclasses import replace

import pytest
from capacity import __main__ as command
from capacity import actors, page, rounds, users
from capacity.fit import Estimate, Fit
from capacity.model import FITTED_ACTORS, NODE, PARTS, Demand, Model, part_ms
from capacity.runs import DISTURBED, FILES, RUNS, Runs, Step
from capacity.users import kind_of

from cluster.client import CHAT
from cluster.errors import CommandError

CLIENTS = (8, 16, 32)
ABOUT = {"began": "2026-01-01T00:00:00", "revision": "abc", "cores": 2, "command": "make bench-capacity"}
A_MS, HOP_MS, IDLE_MS = 1.0, 0.5, 2.0
"""Of each part's CPU, as planted."""
PROCESSES = [part if part != NODE else "Kubernetes" for part in PARTS]
SERVICE = "chat-service"
SIDECAR = "chat-service's daprd"


def steps(pods, *, more=0.0, seed=0, noise=0.01):
    """As the model has it, with some noise; ``more``: milliseconds of each part that it does not know of."""
    chance = random.Random(seed)
    for count in pods:
        for clients in CLIENTS:
            for _ in range(4):
                each = A_MS + HOP_MS * (1 - 1 / count) + IDLE_MS * count / clients + more
                cpu_ms = {name: each * chance.gauss(1, noise) for name in PROCESSES}
                yield Step(count, clients, 1000 * 1.8 / sum(cpu_ms.values()), cpu_ms, 0.0)


def planted(*, four_pods_more=0.0):
    chance = random.Random(1)
    return Runs(
        turns=[*steps((1, 2)), *steps((4,), more=four_pods_more, noise=0)],
        first_turns=list(steps((1, 2), more=0.2, seed=3)),
        calls={"cluster, 1 pod": {"Redis command get": 10.0, "Redis bytes in": 5.0}},
        actors=[
            actors.Look(
                count,
                {SERVICE: int(80e6 + 2000 * count), SIDECAR: int(90e6 + 3000 * count)},
                1000.0 if count else 0.0,
                {SERVICE: chance.gauss(1, 0.01)} if count else {},
                0,
            )
            for count in (0, 10_000, 20_000, 50_000, 200_000)
        ],
        users=[
            users.Look(
                characters, turns, 100, {"history": 100 * (3000 + turns * (500 + 2 * characters))}, {"reply": 10}
            )
            for turns in (5, 10, 20, 40)
            for characters in (150.0, 700.0)
        ],
        rounds=[
            rounds.Look(
                hosts, [chance.gauss(1, 0.1) * (1 + 0.2 * hosts + 4e-4 * hosts**2) / 1000 for _ in range(20)], 1, 1
            )
            for hosts in (1, 10, 100, 200, 800)
        ],
        about=dict.fromkeys(FILES, ABOUT),
        left_out=0,
    )


@pytest.fixture(scope="module")
def model():
    return Model(planted(), Demand())


class TestFits:
    def test_intervals_hold_the_truth_as_often_as_they_say(self):
        chance = random.Random(0)
        rows = [(1.0, x) for x in range(8)]
        held = {"slope": 0, "next": 0}
        for _ in range(1000):
            fit = Fit.of(rows, [3 + 2 * x + chance.gauss(0, 1) for _, x in rows])
            held["slope"] += fit.coefficient(1).holds(2)
            held["next"] += fit.next((1, 20)).holds(3 + 2 * 20 + chance.gauss(0, 1))
        assert all(930 <= count <= 970 for count in held.values()), held

    def test_where_residuals_are_relative_a_small_value_counts_as_much_as_a_large_one(self):
        rows, values = [(1.0, x) for x in (1, 2, 1000, 2000)], [2.0, 3.0, 1501.0, 3001.0]
        absolute, relative = (Fit.of(rows, values, relative=each).mean((1, 1)).value for each in (False, True))
        assert abs(relative - 2) < 1 < abs(absolute - 2) + 1

    @pytest.mark.parametrize("rows", [[(1.0, 2.0)] * 5, [(1.0, 1.0), (1.0, 2.0)]], ids=["all at one place", "too few"])
    def test_what_does_not_determine_a_line_is_refused(self, rows):
        with pytest.raises(ValueError, match="do not determine 2 coefficients"):
            Fit.of(rows, [float(number) for number in range(len(rows))])

    def test_independent_errors_add_up_as_squares(self):
        assert Estimate(10, 3) + Estimate(5, 4) == Estimate(15, 5)
        assert Estimate(10, 3) * 2 == Estimate(20, 6)
        assert Estimate(10, 1).over(1000) == Estimate(100, 10)


class TestModel:
    def test_what_was_planted_is_found(self, model):
        for part in PARTS:
            fit = model.cpu[part]
            found = [fit.coefficient(column).value for column in range(3)]
            assert found == pytest.approx([A_MS, HOP_MS, IDLE_MS], abs=0.15)
            assert model.activation_ms[part].value == pytest.approx(0.2, abs=0.05)
        assert model.actor_bytes[SIDECAR].coefficient(1).value == pytest.approx(3000)
        assert model.redis_fit(daily=False).coefficient(2).value == pytest.approx(2)
        assert model.rounds.coefficient(1).value == pytest.approx(0.2, rel=0.2)

    def test_a_prediction_that_comes_true_is_within_its_interval(self, model):
        checks = {check.what: check for check in model.checks()}
        assert [what for what, check in checks.items() if not check.held] == []
        assert {
            "CPU a turn, 4 pods, 32 clients",
            "turns a second, 4 pods, 8 clients",
            "a round of placement, 800 hosts",
        } <= (checks.keys())

    def test_one_that_does_not_is_said_to_be_off(self):
        wrong = [check for check in Model(planted(four_pods_more=0.5), Demand()).checks() if not check.held]
        assert {(check.what.partition(",")[0], check.miss > 0) for check in wrong} == {
            ("CPU a turn", True),
            ("turns a second", False),
        }

    def test_more_than_was_fitted_does_not_decide_on_its_own_prediction(self):
        runs = planted()
        grown = [
            replace(look, memory={name: 2 * size for name, size in look.memory.items()})
            if look.active > FITTED_ACTORS
            else look
            for look in runs.actors
        ]
        before, after = (
            next(check for check in Model(each, Demand()).checks() if check.what.startswith("memory"))
            for each in (runs, replace(runs, actors=grown))
        )
        assert after.predicted == before.predicted
        assert after.middle == 2 * before.middle
        assert not after.held

    def test_the_hosts_of_a_round_are_those_that_make_it_as_long(self, model):
        for milliseconds in (10, 1000, 8000):
            assert model.round_ms(model.hosts_within(milliseconds)).value == pytest.approx(milliseconds)

    def test_where_something_ends_it_is_at_its_limit(self, model):
        ends = dict(model.ends())
        busy = model.sizes(ends["Redis: its one thread is busy"])
        assert busy.redis_cores.value == pytest.approx(model.demand.busy)
        full = model.redis_bytes(ends["Redis: its memory is full of what is kept"]).value
        assert full == pytest.approx(model.demand.server_gib * 2**30)

    def test_cells_are_as_many_as_keep_every_redis_within_its_bounds(self, model):
        for count in (1000, 1_000_000, 50_000_000):
            sizes = model.sizes(count)
            each = model.sizes(count / sizes.cells)
            assert each.cells == 1
            assert each.redis_cores.value <= model.demand.busy * 1.0001

    def test_users_who_do_more_take_more(self, model):
        busier = Model(model.runs, Demand(turns_a_day=100)).sizes(1_000_000)
        assert busier.cores.value == pytest.approx(10 * model.sizes(1_000_000).cores.value)

    def test_what_is_in_no_part_is_in_the_nodes(self):
        step = Step(1, 8, 100.0, {CHAT: 5.0, "Kubernetes": 1.0, "placement, scheduler": 0.5}, 0.0)
        assert sum(part_ms(step, part) for part in PARTS) == 6.5


class TestRuns:
    @pytest.fixture
    def folder(self, tmp_path):
        """A copy of the runs that are kept."""
        for name in FILES:
            (tmp_path / f"{name}.json").write_bytes((RUNS / f"{name}.json").read_bytes())
        return tmp_path

    def test_a_disturbed_step_is_left_out_and_counted(self, folder):
        before = Runs.read(folder)
        told = json.loads((folder / "turns.json").read_text())
        undisturbed = next(step for step in told["steps"] if step["elsewhere"] <= DISTURBED)
        undisturbed["elsewhere"] = DISTURBED + 0.01
        (folder / "turns.json").write_text(json.dumps(told))
        after = Runs.read(folder)
        assert (len(after.turns), after.left_out) == (len(before.turns) - 1, before.left_out + 1)

    def test_one_that_is_missing_is_named_with_what_measures_it(self, folder):
        (folder / "users.json").unlink()
        with pytest.raises(CommandError, match=r"users\.json.*make bench-capacity BENCH_OPTIONS='--what users'"):
            Runs.read(folder)

    @pytest.mark.parametrize(
        ("key", "kind"),
        [
            ("chat-service||UserSessionActor||c50x00001||history-c50x00001", "history"),
            ("agent-memory-service||user-c50x00001:3", "user"),
            ("conversations", "other"),
        ],
    )
    def test_a_key_is_of_the_kind_that_its_name_says(self, key, kind):
        assert kind_of(key) == kind


class TestPage:
    def test_it_is_what_the_kept_runs_say(self):
        assert command.PAGE.read_text() == page.write(Model(Runs.read(), Demand())), "run: make capacity"

    @pytest.mark.parametrize(
        ("value", "told"),
        [
            (Estimate(1234.5, 56.7), "1,234 ± 57"),
            (Estimate(0.05, 0.327), "0.05 ± 0.33"),
            (Estimate(44266.3, 0.1), "44,266 ± 10"),
            (Estimate(12.0), "12"),
            (0.1234, "0.123"),
            (3333.3, "3,333"),
            (1000, "1,000"),
        ],
    )
    def test_a_figure_has_the_digits_that_say_something(self, value, told):
        assert page.number(value) == told

    def test_what_is_assumed_may_be_another(self, capsys):
        assert command.main(["--turns-a-day", "50"]) == 0
        assert "| turns of a user in a day | 50 |" in capsys.readouterr().out

    def test_with_prices_it_prints_what_a_million_turns_cost(self, capsys):
        command.main(["--core-hour", "1"])
        one = capsys.readouterr().out
        command.main(["--core-hour", "2"])
        two = capsys.readouterr().out
        costs = [float(out.partition("turns: ")[2].partition(" ")[0]) for out in (one, two)]
        assert costs[1] == pytest.approx(2 * costs[0], rel=0.01)

    @pytest.mark.parametrize("wrong", ["0", "-1", "many", "nan", "inf"])
    def test_what_is_no_number_is_refused(self, capsys, wrong):
        assert command.main(["--busy", wrong]) == 2
        assert f"argument --busy: {wrong!r} is not a number above 0" in capsys.readouterr().err
