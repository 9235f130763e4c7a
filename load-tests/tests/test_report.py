"""What a run leaves: numbers by time, the page's text, the picture, JSON, JUnit, and the summary in the terminal.

The page in a browser is in test_report_browser.py.
"""

import io
import json
import re
import struct
from xml.etree import ElementTree

import altair as alt
import pytest
import vl_convert
from actor_load import report, words
from actor_load.palette import SERIES
from actor_load.placement.ring import Ring
from actor_load.record import (
    Check,
    Container,
    Event,
    GeneratorSample,
    Host,
    Knee,
    PlacementSample,
    PodSample,
    Record,
    Second,
    Section,
    Summary,
)
from actor_load.report import __main__ as command
from actor_load.report import (
    charts,
    figures,
    junit,
    marks,
    overview,
    page,
    picture,
    pods,
    series,
    spread,
)
from actor_load.report import terminal as summary
from rich.console import Console
from support.load_run import IDS, SECONDS, STARTED, load_run

pytestmark = pytest.mark.timeout(120)  # Vega draws


@pytest.fixture(scope="module")
def record():
    """Five minutes, 1 -> 3 -> 6 -> 2 pods; tests do not change it."""
    return load_run()


@pytest.fixture(scope="module")
def written(record, tmp_path_factory):
    """The folder with the four files of that run."""
    folder = tmp_path_factory.mktemp("runs") / "new" / "folder"
    paths = report.write(record, folder)
    assert sorted(path.name for path in paths) == ["junit.xml", "report.html", "report.json", "report.png"]
    return folder


def run(lasted, **more):
    """A record of so many seconds."""
    return Record(title="run", started=STARTED, ended=STARTED + lasted, **more)


def second(at, latencies, name="turn", failed=0):
    """One second of answers."""
    counts = dict.fromkeys(latencies, 1)
    return Second(at=int(STARTED) + at, name=name, answered=len(latencies), failed=failed, latency_ms=counts)


def pod(name="a", ip="10.0.0.1", **more):
    """One pod of a sample."""
    state = {"node": "n", "ready": True, "leaving": False, "restarts": 0, **more}
    return PodSample(name=name, ip=ip, **state)


def looks(*pods_at_each, every=2, hosts=None):
    """Looks at placement, one after the other."""
    return [
        PlacementSample(
            at=STARTED + number * every,
            version=number,
            hosts=[Host(address=f"{one.ip}:50002", app_id="chat-service", actor_types=["A"]) for one in hosts or found],
            pods=found,
        )
        for number, found in enumerate(pods_at_each)
    ]


def rates(record):
    """Turns that were answered and failed a second, as the chart has it."""
    return figures.Figures(record).throughput().chart.rows


def limits(figure):
    """What is drawn across a chart."""
    return [limit.label for limit in figure.chart.limits]


def approx(value):
    """To the digits that a chart's data have."""
    return pytest.approx(value, abs=0.01)


KNEE = Knee(rate=20, users=9, p95_ms=250)


def searched(*, knee=KNEE, section=(0, 30)):
    """A minute: a search for the knee with turns alone, then a hundred times as many calls of actors."""
    turns = [second(at, [30.0] * 20) for at in range(60)]
    storm = [Second(at=int(STARTED) + at, name="visit", answered=2000, latency_ms={3.0: 2000}) for at in range(30, 40)]
    started, ended = (STARTED + at for at in section)
    return run(
        60,
        seconds=[*turns, *storm],
        sections=[Section(title="search", text="", started=started, ended=ended, knee=knee)],
    )


class TestSeries:
    def test_a_bin_has_the_percentiles_of_all_its_requests(self):
        found = run(
            10, seconds=[second(at, [1.0 + at, 100.0 + at], name) for at in range(10) for name in ("turn", "x")]
        )
        span = series.Span((STARTED, STARTED + 10), int(STARTED), int(STARTED) + 10, 5)
        rows = series.latencies(found, span)
        seen = Summary.of([one for one in found.seconds if one.at >= STARTED + 4], 5)
        assert [row["at"] for row in rows] == [0, 5000]
        assert rows[1]["p50"] == seen.percentile_ms(50)
        assert rows[1]["p99"] == rows[1]["slowest"] == seen.slowest_ms == 109

    def test_rates_are_of_the_time_that_a_bin_really_has(self):
        found = run(9.6, seconds=[second(at, [1, 2, 3, 4], failed=1) for at in range(10)])
        span = series.Span((STARTED, STARTED + 9.6), int(STARTED), int(STARTED) + 10, 2)
        rows = series.rates(found, span)
        assert rows[0]["answered"] == pytest.approx(6 / 1.6, abs=0.001)
        assert [row["answered"] for row in rows[1:]] == [3, 3, 3, 3]
        assert [row["failed"] for row in rows[1:]] == [1, 1, 1, 1]

    def test_the_last_instant_of_a_run_is_no_bin_of_its_own_and_nothing_of_it_is_lost(self):
        found = run(10, seconds=[second(at, [10.0 * (at + 1)]) for at in range(11)])
        span = series.Span.of(found)
        rows = series.latencies(found, span)
        assert len(rows) == 10
        assert rows[-1]["slowest"] == 110
        assert sum(row["answered"] * span.seconds(number) for number, row in enumerate(rates(found))) == approx(11)

    def test_retries_are_not_counted_among_the_requests(self):
        found = run(2, seconds=[second(0, [5.0]), second(0, [900.0, 901.0], name="retry turn")])
        assert series.latencies(found, series.Span.of(found))[0]["slowest"] == 5
        assert rates(found)[0]["answered"] == approx(1 / 0.6)

    def test_turns_that_were_due_stand_beside_those_that_were_answered(self):
        late = [second(3, [3000.0, 2000.0, 1000.0])]
        due = [second(at, [1000.0 * (3 - at)]) for at in range(3)]
        found = run(4, seconds=[*late, second(0, [1.0, 2.0], name="BeginTurn")], due=due)
        span = series.Span((STARTED, STARTED + 4), int(STARTED), int(STARTED) + 4, 1)
        rows = series.rates(found, span, "turn")
        assert [round(row["answered"] * span.seconds(number)) for number, row in enumerate(rows)] == [0, 0, 0, 3]
        assert [round(row["due"] * span.seconds(number)) for number, row in enumerate(rows)] == [1, 1, 1, 0]
        assert not any("due" in row for row in series.rates(found, span, "call"))

    def test_a_stall_has_a_rate_of_zero_and_no_latency_and_what_is_alone_is_marked(self):
        found = run(8, seconds=[second(at, [1, 2, 3]) for at in (0, 1, 2, 5)])
        span = series.Span((STARTED, STARTED + 8), int(STARTED), int(STARTED) + 8, 1)
        rows = series.latencies(found, span)
        assert [row["answered"] for row in series.rates(found, span)[3:5]] == [0, 0]
        assert [row["p50"] for row in rows[3:5]] == [None, None]
        assert [number for number, row in enumerate(rows) if row["alone"]] == [5]

    @pytest.mark.parametrize(
        ("seconds", "per_second", "width"), [(300, 100, 1), (300, 1, 5), (4 * 3600, 100, 30), (7 * 86400, 100, 1800)]
    )
    def test_long_and_slow_runs_get_wider_bins(self, seconds, per_second, width):
        total = Second(at=int(STARTED), name="turn", answered=seconds * per_second)
        span = series.Span.of(run(seconds, seconds=[total]))
        assert span.width == width
        assert len(span.bins) <= series.MOST_POINTS + 1

    def test_users_of_all_processes_are_added_up_although_they_report_one_after_the_other(self):
        samples = [
            GeneratorSample(at=STARTED + at, process=name, cpu_cores=0.1, memory_bytes=1, users=users)
            for at, name, users in ((0.1, "w0", 3), (0.2, "w1", 4), (1.1, "w0", 5))
        ]
        assert [values["users"] for _, values in series.users(run(2, generator=samples))] == [3, 7, 9]

    def test_moved_actors_count_from_the_first_look_through_restarts_and_new_pods(self):
        found = looks(
            [pod("a", rebalanced=100)],
            [pod("a", rebalanced=130), pod("b", "10.0.0.2", rebalanced=5)],
            [pod("a", rebalanced=2), pod("b", "10.0.0.2", rebalanced=None)],
        )
        moved = [values["rebalanced"] for _, values in series.moved(run(6, placement=found))]
        assert moved == [0, 35, 37]

    def test_pods_beyond_the_last_colour_share_a_name_and_are_added_up(self):
        many = [pod(f"chat-{number}", f"10.0.0.{number}", active_actors={"A": number}) for number in range(1, 16)]
        found = run(2, placement=looks(many))
        labels = pods.labels(found)
        assert len(set(labels.values())) == len(SERIES)
        assert [name for name, label in labels.items() if label == "8 others"] == [f"chat-{n}" for n in range(1, 9)]
        ((_, values),) = series.by_pod(found, series.active, labels)
        assert values["8 others"] == sum(range(1, 9))
        assert sum(values.values()) == sum(range(1, 16))

    def test_a_pod_is_called_by_as_much_of_its_name_as_is_its_own(self):
        found = run(2, placement=looks([pod("chat-6f7-abcde"), pod("chat-9c8-abcde"), pod("chat-9c8-fghij")]))
        assert list(pods.short_names(found).values()) == ["6f7-abcde", "9c8-abcde", "9c8-fghij"]


class TestSpread:
    def test_every_settled_table_is_compared_with_its_own_ring(self, record):
        found = spread.spreads(record)
        assert [len(one.pods) for one in found] == [3, 6, 2]
        for one in found:
            sample = next(sample for sample in record.placement if sample.at == one.at)
            ring = Ring(host.address for host in sample.hosts)
            addresses = {pod.name: f"{pod.ip}:50002" for pod in sample.pods}
            assert {pod.pod: pod.predicted for pod in one.pods} == {
                name: ring.shares()[address] for name, address in addresses.items() if address in ring.addresses
            }
            assert sum(pod.actors for pod in one.pods) == IDS
            assert sum(pod.share for pod in one.pods) == pytest.approx(1)
            assert one.skew == pytest.approx(max(pod.actors for pod in one.pods) * len(one.pods) / IDS)
            # What was counted comes from that ring, so it is off by no more than chance has it (here three deviations).
            assert all(abs(pod.share - pod.predicted) < 1.5 * pod.scatter for pod in one.pods)

    def test_a_table_of_the_scheduler_is_compared_with_even_shares(self, record):
        found = record.model_copy(deep=True)
        for sample in found.placement:
            sample.placer = "scheduler"
        assert [{pod.predicted for pod in one.pods} for one in spread.spreads(found)] == [{1 / 3}, {1 / 6}, {1 / 2}]

    def test_a_table_that_another_part_of_dapr_makes_is_another_table(self):
        found = looks(*[[pod("a", active_actors={"A": 90}), pod("b", "10.0.0.2", active_actors={"A": 90})]] * 18)
        for sample in found[9:]:
            sample.placer = "scheduler"
        assert [one.at for one in spread.spreads(run(40, placement=found))] == [found[8].at, found[17].at]

    @pytest.mark.parametrize(
        "found",
        [
            looks(*[[pod("a", active_actors={"A": 100}), pod("b", "10.0.0.2")]] * 9),
            looks(*[[pod("a", active_actors={"A": 9}), pod("b", "10.0.0.2", active_actors={"A": 9})]] * 9),
            looks(*[[pod("a", active_actors={"A": 90}), pod("b", "10.0.0.2", active_actors={"A": 90})]] * 3),
            looks(*[[pod("a", active_actors={"A": 90})]] * 9),
        ],
        ids=["a pod that does not say", "too few actors", "not settled", "one host"],
    )
    def test_there_is_no_comparison_of(self, found):
        assert spread.spreads(run(20, placement=found)) == []


class TestMarks:
    def at(self, *times):
        return run(100, events=[Event(at=STARTED + at, kind=kind, text=f"at {at}") for at, kind in times])

    def test_events_are_numbered_by_time_and_near_ones_share_a_mark_of_the_gravest_kind(self):
        found = self.at((50, "settled"), (10, "action"), (10.5, "problem"), (90, "phase"))
        drawn = marks.marks(found, series.Span.of(found))
        assert [(mark.label, mark.kind) for mark in drawn] == [("1-2", "problem"), ("3", "settled"), ("4", "phase")]
        assert drawn[0].text == "1: 0:10 at 10; 2: 0:10 at 10.5"

    def test_a_part_of_the_run_has_its_own_events_with_the_same_numbers(self):
        found = self.at((10, "action"), (10.5, "problem"), (90, "phase"))
        drawn = marks.marks(found, series.Span.of(found, STARTED + 5, STARTED + 20))
        assert [mark.label for mark in drawn] == ["1", "2"]

    def test_where_labels_would_overlap_the_graver_one_is_drawn(self):
        found = self.at((10, "phase"), (12, "action"), (14, "settled"), (50, "phase"), (52, "phase"))
        span = series.Span.of(found)
        drawn = marks.marks(found, span)
        assert [mark.label for mark in drawn] == ["1", "2", "3", "4", "5"]
        assert [mark.label for mark in marks.labelled(drawn, span)] == ["2", "4"]


class TestCharts:
    def test_every_chart_is_valid_for_vega_lite(self, record):
        drawn = figures.Figures(record)
        several = [*drawn.traffic(), drawn.placement(), *drawn.table(), *drawn.generator()]
        several += [*drawn.resources()[:1], drawn.shares(spread.spreads(record)[0])]
        assert None not in several
        for one in several:
            spec = one.spec()
            assert all(spec.pop("datasets").values())
            alt.LayerChart.from_dict(spec, validate=True)

    def test_a_storm_of_actor_calls_does_not_flatten_the_turns(self):
        drawn = [figures.Figures(searched()).throughput(what) for what in ("turn", "call")]
        assert [one.title for one in drawn] == ["Turns a second", "Actor calls a second"]
        assert [max(float(row["answered"] or 0) for row in one.chart.rows[1:-1]) for one in drawn] == [20, 2000]

    def test_the_knee_is_drawn_where_its_requests_are_and_what_was_asked_of_all_only_where_all_are(self):
        drawn = figures.Figures(searched())
        assert limits(drawn.throughput("turn")) == ["knee 20.0/s"]
        assert limits(drawn.throughput("call")) == []
        mixed = searched(section=(0, 50))
        mixed.settings["min_rate"] = "5"
        drawn = figures.Figures(mixed)
        assert limits(drawn.throughput("turn")) == limits(drawn.throughput("call")) == []
        mixed.seconds = [one for one in mixed.seconds if one.name == "turn"]
        assert limits(figures.Figures(mixed).throughput()) == ["--min-rate 5", "knee 20.0/s"]

    def test_a_threshold_of_the_whole_run_is_drawn_across_what_it_is_of(self):
        found = searched(knee=None)
        found.settings["threshold"] = "turn:p95<300, call:rate>50, all:max<2s, turn@change:p99<1s, turn:failed<1%"
        drawn = figures.Figures(found)
        assert limits(drawn.latency("turn")) == ["turn:p95<300", "all:max<2s"]
        assert limits(drawn.latency("call")) == ["all:max<2s"]
        assert limits(drawn.throughput("turn")) == []
        assert limits(drawn.throughput("call")) == ["call:rate>50"]

    def test_a_part_of_a_run_that_did_not_search_has_no_line_for_the_knee(self):
        assert limits(figures.Figures(searched(), STARTED + 40, STARTED + 60).throughput()) == []

    def test_lines_of_one_chart_differ_in_colour_or_dash_and_few_share_a_dash(self):
        drawn = charts.coloured([f"worker-{number}" for number in range(24)])
        assert len({(one.colour, one.dash) for one in drawn}) == 24
        assert len({one.dash for one in drawn[:4]}) == 1 < len({one.dash for one in drawn[:8]})

    @pytest.mark.parametrize(
        ("values", "ticks"),
        [
            ([], [1, 2, 5, 10]),
            ([7.0], [5, 10]),
            ([10.0, 10.0], [10, 20]),
            ([3.0, 80.0], [2, 5, 10, 20, 50, 100]),
            ([0.4, 3000.0], [0.1, 1, 10, 100, 1000, 10000]),
            ([6.0, 900.0], [3, 10, 30, 100, 300, 1000]),
        ],
    )
    def test_a_logarithmic_axis_has_round_ticks_around_all_values(self, values, ticks):
        assert charts.decades(values) == pytest.approx(ticks)

    def test_all_ticks_of_a_logarithmic_axis_are_drawn(self):
        drawn = figures.Figures(run(9, seconds=[second(at, [30.0, 900.0]) for at in range(9)])).latency()
        assert isinstance(drawn.chart, charts.TimeChart)
        spec = charts.configured(drawn.chart.draw(zoomed=False, height=170, width=300), drawn.chart.data(), "serif")
        texts = re.findall(r"<text[^>]*>([^<]+)</text>", vl_convert.vegalite_to_svg(spec))
        assert [text for text in texts if text.endswith("s") and text[0].isdigit()] == [
            *("20 ms", "50 ms", "100 ms", "200 ms", "500 ms", "1 s")
        ]

    def test_a_run_of_hours_makes_charts_as_small_as_one_of_minutes(self):
        hours = 3
        load = [second(at, [20.0, 30.0 + at % 7]) for at in range(hours * 3600)]
        samples = [
            GeneratorSample(at=STARTED + at, process=name, cpu_cores=0.5, memory_bytes=1, users=9)
            for at in range(0, hours * 3600, 2)
            for name in ("w0", "w1")
        ]
        drawn = figures.Figures(run(hours * 3600, seconds=load, generator=samples))
        several = [*drawn.traffic(), *drawn.generator()]
        assert "Each point is 30 s." in several[0].note
        assert max(len(json.dumps(one.spec())) for one in several) < 120_000
        assert max(len(one.chart.rows) for one in several) == 360

    def test_names_that_vega_would_take_apart_are_drawn(self):
        samples = [
            GeneratorSample(at=STARTED + at, process='host.a[1]\'s "w"', cpu_cores=0.5, memory_bytes=1, users=1)
            for at in range(9)
        ]
        drawn = figures.Figures(run(9, generator=samples)).generator()[0]
        assert isinstance(drawn.chart, charts.TimeChart)
        chart = charts.configured(
            drawn.chart.draw(zoomed=False, height=90, width=300), drawn.chart.data(), "sans-serif"
        )
        svg = vl_convert.vegalite_to_svg(chart)
        assert "host_a_1__s _w_" in svg
        assert re.search(r'<path d="M0,[^"]+L[^"]+" stroke="var\(--series-1\)" stroke-width="1.75"', svg)


class TestHeadline:
    def test_it_has_the_runs_figures(self, record):
        turns = record.summary(prefix="turn")
        found = {figure.name: figure for figure in overview.headline(record)}
        assert list(found) == [
            *("turns/s", "turns due/s", "p50 of turns", "p95 of turns", "p99 of turns", "p99.9 of turns"),
            *("slowest turn", "failed turns", "actor calls/s", "p50 of actor calls", "p95 of actor calls"),
            *("p99 of actor calls", "p99.9 of actor calls", "slowest actor call", "failed actor calls"),
            *("retried", "pods", "generator CPU"),
        ]
        assert found["turns/s"].value == words.rate((turns.answered - turns.failed) / SECONDS)
        assert found["turns due/s"].value == words.rate(turns.answered / SECONDS)
        assert found["p99.9 of turns"].value == words.latency(turns.percentile_ms(99.9))
        assert found["p95 of actor calls"].value == words.latency(record.summary(prefix="Get").percentile_ms(95))
        assert found["failed turns"].value == str(turns.failed) == "9"
        assert found["retried"].value == str(sum(one.answered for one in record.seconds if one.name == "retry turn"))
        assert found["pods"].value == "1 → 3 → 6 → 2"
        assert float(found["generator CPU"].value) == round(max(one.cpu_cores for one in record.generator), 2)

    def test_what_a_run_has_none_of_has_no_figure(self):
        found = overview.headline(run(10, seconds=[second(0, [1.0])]))
        assert not [figure.name for figure in found if "call" in figure.name or "due" in figure.name]
        found = overview.headline(run(10, seconds=[second(0, [1.0], name="BeginTurn")]))
        assert not [figure.name for figure in found if "turn" in figure.name]

    def test_each_phase_has_a_row_of_turns_and_one_of_actor_calls(self, record):
        rows = overview.by_phase(record)
        assert [row[:3] for row in rows if row[0] == "turns"] == [
            ["turns", "the whole run", "5 min"],
            ["turns", "ramp", "40 s"],
            ["turns", "load", "3 min 47 s"],
            ["turns", "change", "33 s"],
        ]
        assert [row[1] for row in rows if row[0] == "actor calls"] == [row[1] for row in rows if row[0] == "turns"]
        failed = [row[overview.PHASE_COLUMNS.index("failed")] for row in rows if row[0] == "turns"]
        assert [text.partition(" ")[0] for text in failed] == ["9", "0", "0", "9"]

    def test_a_run_of_one_phase_has_no_table_of_phases(self):
        assert overview.by_phase(run(10, seconds=[second(0, [1.0])])) == []

    def test_a_container_that_its_cpu_limit_stopped_is_a_warning_and_one_of_which_nothing_is_known_is_none(self):
        def look(**more):
            return [pod(containers={"app": Container(cpu_cores=0.4, **more)})]

        found = looks(look(cpu_limit=0.5), look(cpu_limit=0.5, throttled=0.2), look(cpu_limit=0.5, throttled=0.4))
        (warning,) = overview.warnings(run(6, placement=found))
        assert warning.startswith(
            "app was stopped by its CPU limit (0.5 cores) in 30.0 % of its periods (40.0 % at most)"
        )
        assert [chart.title for chart in figures.Figures(run(6, placement=found)).resources()] == [
            "CPU of app",
            "Throttling of app",
        ]
        for unknown in (look(cpu_limit=0.5), look(), look(cpu_limit=0.5, throttled=0.0)):
            assert overview.warnings(run(6, placement=looks(unknown, unknown))) == []
        titles = [chart.title for chart in figures.Figures(run(6, placement=looks(look(cpu_limit=1)))).resources()]
        assert titles == ["CPU of app"]

    def test_a_generator_near_its_core_is_a_warning_and_one_that_was_there_for_a_moment_is_not(self, record):
        assert any("near a core in worker-0" in line for line in overview.warnings(record))
        busy = [GeneratorSample(at=STARTED, process="local", cpu_cores=0.99, memory_bytes=1, users=1)]
        assert overview.warnings(run(10, generator=busy)) == []

    def test_what_the_cluster_did_not_answer_is_a_warning(self, record):
        assert any("metrics of a pod: timed out" in line for line in overview.warnings(record))

    def test_a_container_that_restarted_during_the_run_is_a_warning(self):
        found = looks(
            [pod("a", restarts=4), pod("b", "10.0.0.2", restarts=2)], [pod("a", restarts=5), pod("b", restarts=2)]
        )
        assert overview.warnings(run(4, placement=found)) == [
            "A container of a restarted once during the run: its last log says why."
        ]

    def test_each_failed_check_is_a_line_that_says_once_what_it_is(self, record):
        assert overview.failed_checks(record) == [
            "p95 412 ms is above --max-p95 300 ms",
            "Scale from 6 to 2 pods: no turn failed: 9 of 1,204 failed",
        ]

    @pytest.mark.parametrize(
        ("passed", "said"),
        [([], "PASSED nothing was checked"), ([True], "PASSED 1 of 1 check"), ([True, False], "FAILED 1 of 2 checks")],
    )
    def test_the_verdict_counts_the_checks(self, passed, said):
        checks = [Check(name="c", passed=one, detail="d") for one in passed]
        assert overview.verdict(run(1, checks=checks)) == said


class TestWords:
    @pytest.mark.parametrize(
        ("value", "said"), [(None, "-"), (0.123, "0.123 ms"), (8.44, "8.44 ms"), (412.6, "413 ms"), (4080, "4.08 s")]
    )
    def test_latency(self, value, said):
        assert words.latency(value) == said

    @pytest.mark.parametrize(("value", "said"), [(0.4567, "0.46"), (12.34, "12.3"), (1240.4, "1,240"), (0, "0")])
    def test_rate(self, value, said):
        assert words.rate(value) == said

    @pytest.mark.parametrize(
        ("value", "said"), [(0, "0.00 %"), (0.00001, "< 0.01 %"), (0.0012, "0.12 %"), (0.234, "23.4 %"), (1, "100.0 %")]
    )
    def test_percent(self, value, said):
        assert words.percent(value) == said

    @pytest.mark.parametrize(
        ("value", "said"), [(42.4, "42 s"), (300, "5 min"), (302, "5 min 2 s"), (3600, "1 h"), (11100, "3 h 5 min")]
    )
    def test_lasted(self, value, said):
        assert words.lasted(value) == said

    @pytest.mark.parametrize(("number", "said"), [(0, "0 pods"), (1, "1 pod"), (5000, "5,000 pods")])
    def test_counted(self, number, said):
        assert words.counted(number, "pod") == said


class TestFiles:
    def test_the_json_is_the_record(self, record, written):
        assert Record.model_validate_json((written / "report.json").read_bytes()) == record

    def test_the_page_is_one_file_with_every_name_failure_setting_and_version(self, record, written):
        html = (written / "report.html").read_text(encoding="utf-8")
        elements = re.sub(r"(<script[^>]*>).*?</script>", r"\1", html, flags=re.DOTALL)
        assert not re.search(r"<(link|script|img|iframe)[^>]+(src|href)=[\"'](?!data:)", elements)
        assert "@import" not in html
        assert "HTTPError: 503 Server Error &lt;no host&gt; &amp; more" in html
        for name in {one.name for one in record.seconds} | set(record.settings) | set(record.versions.values()):
            assert f">{name}</t" in elements
        assert len(html) < 2_000_000

    def test_the_picture_is_1600_wide_and_says_the_same_as_the_page(self, record, written):
        png = (written / "report.png").read_bytes()
        assert png.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", png[16:24])
        assert 1550 <= width <= 1650
        assert 1000 <= height <= 2400
        with charts.unchecked():
            svg = vl_convert.vegalite_to_svg(picture.spec(record))
        texts = re.findall(r"<text[^>]*>([^<]+)</text>", svg)
        for said in (
            record.title,
            overview.verdict(record),
            "Turns a second",
            "Latency of turns",
            "Actor calls a second",
            "Active actors by pod",
            "CPU, cores",
            "3 scaled from 1 to 3 pods",
            "load generator",
            *(figure.value for figure in overview.headline(record)),
        ):
            assert said in texts
        assert "var(" not in svg

    def test_the_picture_says_the_knee_first_and_shows_it_in_the_first_chart(self):
        svg = vl_convert.vegalite_to_svg(picture.spec(searched()))
        texts = re.findall(r"<text[^>]*>([^<]+)</text>", svg)
        assert texts.count("knee 20.0/s") == 2
        charts_in_order = ("Turns a second", "Latency of turns", "Actor calls a second")
        assert [text for text in texts if text in charts_in_order] == list(charts_in_order)
        assert texts.index("turns/s") > texts.index("knee 20.0/s")
        assert "within bounds, with 9 users, p95 250 ms" in texts
        assert "knee" not in vl_convert.vegalite_to_svg(picture.spec(searched(knee=None)))

    def test_a_picture_of_very_many_events_has_room_for_a_few_and_counts_the_others(self):
        events = [Event(at=STARTED + at, kind="phase", text="something that takes room") for at in range(0, 200, 3)]
        texts = vl_convert.vegalite_to_svg(picture.spec(run(200, events=events, seconds=[second(1, [1.0])])))
        shown = texts.count("something that takes room</text>")
        (left_out,) = re.findall(r">and (\d+) more<", texts)
        assert shown + int(left_out) == len(events)
        assert shown >= 6

    def test_what_happened_to_the_cluster_has_room_in_the_picture_before_phases_do(self):
        events = [Event(at=STARTED + at, kind="phase", text="something that takes room") for at in range(0, 200, 3)]
        events.append(Event(at=STARTED + 101.5, kind="action", text="scale 1 -> 3"))
        texts = vl_convert.vegalite_to_svg(picture.spec(run(200, events=events, seconds=[second(1, [1.0])])))
        assert "scale 1 -&gt; 3" in texts

    def test_columns_of_numbers_stand_right_and_others_left(self, written):
        html = (written / "report.html").read_text(encoding="utf-8")
        heads = re.findall(r'<th scope="col"( class="number")?>([^<]*)</th>', html.partition('<h2 id="resources"')[2])
        right = [column for number, column in heads if number]
        assert [column for _, column in heads[:7]] == list(page.POD_COLUMNS)
        assert right == ["restarts", "most actors", *page.REQUEST_COLUMNS[1:], "count"]

    def test_an_empty_run_has_all_files(self, tmp_path):
        report.write(run(1), tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {"junit.xml", "report.html", "report.json", "report.png"}

    def test_a_folder_that_cannot_be_is_one_line(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(report.LoadError, match=r"cannot be written .*name another folder"):
            report.write(run(1), tmp_path / "file" / "folder")


class TestJUnit:
    def test_thresholds_and_sections_are_suites_and_what_failed_is_a_failure_with_its_detail(self, record, written):
        root = ElementTree.fromstring((written / "junit.xml").read_bytes())
        suites = {suite.get("name"): suite for suite in root}
        assert list(suites) == ["thresholds", *(section.title for section in record.sections)]
        assert (root.get("tests"), root.get("failures")) == ("5", "2")
        assert suites["thresholds"].get("time") == "300.0"
        assert suites["thresholds"].get("timestamp").startswith("2026-")
        assert suites["Scale from 6 to 2 pods"].get("time") == "50.0"
        failure = suites["thresholds"].find("testcase[@name='p95']/failure")
        assert failure.get("message") == failure.text == "p95 412 ms is above --max-p95 300 ms"
        assert [case.get("name") for case in root.iter("testcase") if case.find("failure") is not None] == [
            "p95",
            "no turn failed",
        ]
        assert all(float(case.get("time", "0")) > 0 for case in root.iter("testcase"))

    def test_what_xml_has_no_room_for_does_not_break_it(self):
        checks = [
            Check(name="n\x00", passed=False, detail="bell \x07 <&>"),
            Check(name="m", passed=True, detail="\x1b"),
        ]
        root = ElementTree.fromstring(junit.render(run(1, checks=checks)))
        assert root.find(".//failure").text == "bell � <&>"


class TestTerminal:
    def said(self, record, width=100):
        out = io.StringIO()
        summary.show(record, Console(file=out, width=width))
        return out.getvalue()

    def test_a_plain_run_fits_on_a_screen_and_ends_with_the_verdict(self, record):
        lines = self.said(record).splitlines()
        assert len(lines) <= 40
        assert max(map(len, lines)) <= 100
        assert lines[-3:] == [
            "FAILED p95 412 ms is above --max-p95 300 ms",
            "FAILED Scale from 6 to 2 pods: no turn failed: 9 of 1,204 failed",
            "FAILED 2 of 5 checks",
        ]
        assert any("p95 of turns " in line for line in lines)
        assert any(re.fullmatch(r"abcde\s+fghij\s+1,204\s*", line) for line in lines)

    def test_text_of_others_is_shown_as_it_is(self):
        title = "[red]not markup[/red] :smile:"
        section = Section(title=title, text="", started=STARTED, ended=STARTED + 1)
        check = Check(name="n", passed=False, detail=title)
        said = self.said(run(1, sections=[section], checks=[check]))
        assert said.count(title) == 2


class TestCommand:
    def test_it_renders_a_record_again(self, tmp_path, capsys):
        report.write(load_run(30), tmp_path)
        assert command.main([str(tmp_path / "report.json"), "--to", str(tmp_path / "again")]) == 0
        said = capsys.readouterr().out
        assert "FAILED 1 of 2 checks" in said
        assert str(tmp_path / "again" / "report.png") in said
        for name in ("report.json", "report.html", "junit.xml"):
            assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (None, "cannot be read .No such file or directory."),
            ("<html>", "is no record of a run .Invalid JSON"),
            ('{"title": "x"}', "is no record of a run .started: Field required"),
            ('{"title": "x", "started": 1, "ended": 2, "speed": 3}', "is no record of a run .speed: Extra inputs"),
        ],
    )
    def test_a_file_that_is_none_is_one_line_and_exit_code_2(self, tmp_path, capsys, content, said):
        path = tmp_path / "other.json"
        if content is not None:
            path.write_text(content)
        assert command.main([str(path)]) == 2
        printed = capsys.readouterr()
        assert re.match(f"error: {re.escape(str(path))}:? {said}.*name the report.json of (a run|one)\n$", printed.err)
        assert printed.out == ""
        assert [one.name for one in tmp_path.iterdir()] == ([] if content is None else ["other.json"])


def test_the_page_puts_a_long_list_of_events_behind_the_charts():
    few, many = (
        page.render(run(90, events=[Event(at=STARTED + at, kind="phase", text="e") for at in range(count)]))
        for count in (3, 40)
    )
    assert few.index('id="events"') < few.index('id="traffic"')
    assert many.index('id="events"') > many.index('id="failures"')
