"""One run against an older one: what is worse, what is not judged, and which records can be read at all."""

import json

import pytest
from actor_load.errors import LoadError
from actor_load.record import Event, Knee, Record, Second, Section
from actor_load.report import __main__ as command
from actor_load.report.compare import compare

STARTED = 1000


def run(latencies, *, failed=0, knee=None, events=(), **more):
    """100 s, with as many turns of each latency."""
    turns = Second(
        at=STARTED + 10,
        name="turn",
        answered=sum(latencies.values()) + failed,
        failed=failed,
        latency_ms=latencies,
        failed_ms={1.0: failed} if failed else {},
    )
    found = None if knee is None else Knee(rate=knee, users=knee, p95_ms=200)
    searched = Section(title="Steps to the knee", text="", started=STARTED, ended=STARTED + 100, knee=found)
    return Record(
        title="steps: Arrivals",
        started=STARTED,
        ended=STARTED + 100,
        seconds=[turns],
        due=[turns],
        sections=[searched],
        events=[Event(at=STARTED, kind="phase", text=phase, phase=phase) for phase in events],
        **more,
    )


def worse(old, new, tolerance=0.1):
    """The figures that are, each with its phase."""
    section = compare(old, new, tolerance)
    (check,) = section.checks
    found = [(row[1], row[2]) for row in section.tables[0].rows if row[-1] == "WORSE"]
    assert check.passed == (not found)
    return found


USUAL = {100.0: 9800, 500.0: 200}


def test_a_run_is_no_worse_than_itself():
    assert worse(run(USUAL, failed=10, knee=60), run(USUAL, failed=10, knee=60), 0) == []


def test_a_knee_that_fell_or_is_gone_is_worse_and_one_within_the_tolerance_or_higher_is_not():
    found = [(knee, worse(run(USUAL, knee=60), run(USUAL, knee=knee))) for knee in (66, 80, 55, 53, None)]
    fell = [("-", "knee")]
    assert found == [(66, []), (80, []), (55, []), (53, fell), (None, fell)]


def test_latency_failures_and_rate_are_each_judged():
    old = run(USUAL)
    assert worse(old, run({150.0: 9800, 500.0: 200})) == [("-", "p50"), ("-", "p95")]
    assert worse(old, run(USUAL, failed=20)) == [("-", "failed")]
    assert worse(old, run(USUAL, failed=9)) == []
    assert worse(old, run({100.0: 8000, 500.0: 160})) == [("-", "rate")]
    assert worse(old, run({50.0: 9800, 300.0: 200})) == []


def test_a_percentile_with_few_requests_beyond_it_is_not_judged():
    old, new = run({100.0: 490, 200.0: 10}), run({100.0: 490, 900.0: 10})
    verdicts = {row[2]: row[-1] for row in compare(old, new, 0.1).tables[0].rows}
    assert (verdicts["p95"], verdicts["p99"], verdicts["p99.9"]) == ("", "not judged", "not judged")


def test_each_phase_is_judged_by_itself_and_a_search_by_its_knee_alone():
    fast, slow = {100.0: 1000}, {900.0: 1000}
    assert worse(run(fast, events=["level"]), run(slow, events=["level"])) == [
        *(("-", figure) for figure in ("p50", "p95", "p99")),
        *(("level", figure) for figure in ("p50", "p95", "p99")),
    ]
    assert worse(run(fast, events=["step"], knee=60), run(slow, events=["step"], knee=60)) == []


def test_settings_that_differ_are_told():
    text = compare(run(USUAL, settings={"users": "10"}), run(USUAL, settings={"users": "20", "retries": "0"}), 0.1).text
    assert "users: 10 -> 20. " in text + " "
    assert "retries: default -> 0." in text


def test_runs_without_a_figure_in_common_are_refused():
    with pytest.raises(LoadError, match="have no figure in common"):
        compare(run(USUAL), Record(title="nothing", started=1, ended=2), 0.1)


class TestCommand:
    @pytest.fixture
    def files(self, tmp_path):
        """Two runs, the second with a lower knee."""
        paths = [tmp_path / "old.json", tmp_path / "new.json"]
        for path, knee in zip(paths, (60, 30), strict=True):
            path.write_text(run(USUAL, knee=knee).model_dump_json())
        return paths

    def test_what_is_worse_is_shown_and_makes_exit_code_1(self, files, capsys):
        old, new = map(str, files)
        assert command.main([new, "--against", old]) == 1
        said = capsys.readouterr().out
        assert "-50.0 %" in said
        assert "1 of 6 figures are worse by more than 10.0 %: knee of Steps to the knee" in said
        assert command.main([new, "--against", old, "--tolerance", "60%"]) == 0
        assert command.main([old, "--against", new]) == 0
        assert {path.name for path in files[0].parent.iterdir()} == {"old.json", "new.json"}

    def test_with_a_folder_it_is_a_section_of_the_report(self, files, tmp_path):
        old, new = map(str, files)
        assert command.main([new, "--against", old, "--to", str(tmp_path / "both")]) == 1
        html = (tmp_path / "both" / "report.html").read_text(encoding="utf-8")
        assert "Against steps: Arrivals of 1970-01-01" in html
        assert "nothing is worse than before" in (tmp_path / "both" / "junit.xml").read_text()

    def test_a_wrong_tolerance_is_named(self, files, capsys):
        with pytest.raises(SystemExit) as raised:
            command.main([str(files[0]), "--tolerance", "much"])
        assert raised.value.code == 2
        assert "--tolerance: much is no share: 10% is one" in capsys.readouterr().err

    def test_a_record_of_another_version_is_refused_before_its_fields_are(self, tmp_path, capsys):
        path = tmp_path / "later.json"
        path.write_text(json.dumps({"schema_version": 2, "heading": "x"}))
        assert command.main([str(path)]) == 2
        said = capsys.readouterr().err
        assert "it has version 2 of the record, and this program reads version 1: read it with the load tests" in said
        assert said.count("\n") == 1
