"""The tab "Placement" in Locust's web UI, served by a Locust process of its own."""

import csv
import io
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from actor_load import palette, web
from actor_load.record import Container, Host, PlacementSample, PodSample
from support import browser
from support.serving import free_port

pytestmark = pytest.mark.timeout(120)  # a browser starts

LOAD_TESTS = Path(__file__).parents[1]
STARTED = 1_795_464_000.25

LOCUSTFILE = """
import json
import os
from pathlib import Path

from locust import User, constant, events, task

from actor_load import palette, web
from actor_load.record import PlacementSample


class Idle(User):
    wait_time = constant(1)

    @task
    def nothing(self):
        pass


def samples():
    lines = Path(os.environ["SAMPLES"]).read_text().splitlines()
    return [PlacementSample.model_validate_json(line) for line in lines]


@events.init.add_listener
def on_init(environment, **_):
    web.attach(environment, samples)
"""


def sample(second, version, *active):
    """Of as many pods as are given."""
    return PlacementSample(
        at=STARTED + second,
        version=version,
        hosts=[
            Host(address=f"10.0.0.{number}:50002", app_id="chat-service", actor_types=["UserSessionActor"])
            for number, _ in enumerate(active)
        ],
        pods=[
            PodSample(
                name=f"chat-{number}",
                node="node-1",
                ip=f"10.0.0.{number}",
                ready=True,
                leaving=False,
                restarts=0,
                active_actors={"UserSessionActor": count},
                pending_calls=number,
                rebalanced=3,
                deactivated=4,
                containers={"daprd": Container(cpu_cores=0.25, memory_bytes=2**24)},
            )
            for number, count in enumerate(active)
        ],
    )


SAMPLES = [sample(0, 1, 40), sample(2, 1, 40), sample(4, 2, 30, 10), sample(6, 2, 30, 10)]


class Ui:
    """A web UI under test."""

    def __init__(self, url, file):
        self.url = url
        self._file = file

    def show(self, samples):
        """From now on these are the samples."""
        self._file.write_text("".join(f"{item.model_dump_json()}\n" for item in samples))

    def get(self, path=""):
        """Body and content type."""
        with urllib.request.urlopen(f"{self.url}/{path}", timeout=30) as answer:
            return answer.read().decode(), answer.headers.get_content_type()

    def json(self, path):
        """A JSON body."""
        return json.loads(self.get(path)[0])

    def rows(self):
        """What the UI polls for the tab."""
        return {item["key"]: item["data"] for item in self.json("stats/requests")["extended_stats"]}["placement"]


@contextmanager
def running(folder, *options, path=""):
    """Locust with its web UI, under load at once."""
    port = free_port()
    (folder / "locustfile.py").write_text(LOCUSTFILE)
    ui = Ui(f"http://127.0.0.1:{port}{path}", folder / "samples")
    ui.show(SAMPLES)
    command = [sys.executable, "-m", "locust", "-f", folder / "locustfile.py", "--autostart", "-u", "1"]
    command += ["--web-host", "127.0.0.1", "--web-port", str(port), *options]
    environment = {**os.environ, "PYTHONPATH": str(LOAD_TESTS), "SAMPLES": str(folder / "samples")}
    log = folder / "log"
    with log.open("w") as out, subprocess.Popen(command, env=environment, stdout=out, stderr=out) as locust:
        try:
            end = time.monotonic() + 30
            while True:
                try:
                    ui.get()
                    break
                except (urllib.error.URLError, ConnectionError):
                    assert locust.poll() is None, log.read_text()
                    assert time.monotonic() < end, log.read_text()
                    time.sleep(0.1)
            yield ui
        finally:
            locust.terminate()
            locust.wait(20)
    assert "Traceback" not in log.read_text(), log.read_text()


@pytest.fixture(scope="module")
def ui(tmp_path_factory):
    with running(tmp_path_factory.mktemp("locust")) as found:
        yield found


@pytest.fixture(autouse=True)
def usual_samples(request):
    yield
    if "ui" in request.fixturenames:
        request.getfixturevalue("ui").show(SAMPLES)


def template_args(page):
    """What Locust hands to its own script."""
    return json.JSONDecoder().raw_decode(page.split("window.templateArgs = ")[1])[0]


def test_the_tab_is_there_and_stays_when_the_page_is_loaded_again(ui):
    for _ in range(3):
        page, kind = ui.get()
        arguments = template_args(page)
        assert kind == "text/html"
        assert arguments["extended_tabs"] == [{"key": "placement", "title": "Placement"}]
        assert [table["key"] for table in arguments["extended_tables"]] == ["placement"]
        assert arguments["extended_csv_files"] == [{"href": "./placement/csv", "title": "Download placement CSV"}]
        assert page.count('<script src="./placement/tab.js"></script></body>') == 1
    assert arguments["version"], "Locust's own arguments are still there"


def test_the_rows_of_the_table_are_the_newest_sample(ui):
    first, second = ui.rows()
    assert (first["name"], first["active"], first["share"], first["ideal"]) == ("chat-0", 30, 75.0, 1.5)
    assert (second["pending"], second["rebalanced"], second["sidecar"]) == (1, 3, "0.25, 16")
    assert (first["app"], first["version"]) == ("-, -", 2)
    keys = {column["key"] for column in template_args(ui.get()[0])["extended_tables"][0]["structure"]}
    assert keys == set(first)
    ui.show([*SAMPLES, sample(8, 3, 7)])
    assert [row["active"] for row in ui.rows()] == [7]


def test_without_samples_all_is_empty_and_nothing_fails(ui):
    ui.show([])
    assert ui.rows() == []
    assert ui.json("placement/samples") == {
        "title": "No look at placement yet.",
        "problems": [],
        "pods": [],
        "changes": [],
    }
    assert ui.get("placement/csv")[0].splitlines() == [",".join(web.CSV_COLUMNS)]


def test_the_csv_has_every_pod_of_every_sample(ui):
    body, kind = ui.get("placement/csv")
    assert kind == "text/csv"
    rows = list(csv.DictReader(io.StringIO(body)))
    assert [(row["at"], row["table_version"], row["pod"], row["active"]) for row in rows] == [
        ("1795464000.250", "1", "chat-0", "40"),
        ("1795464002.250", "1", "chat-0", "40"),
        ("1795464004.250", "2", "chat-0", "30"),
        ("1795464004.250", "2", "chat-1", "10"),
        ("1795464006.250", "2", "chat-0", "30"),
        ("1795464006.250", "2", "chat-1", "10"),
    ]
    last = rows[-1]
    assert (last["address"], last["share"], last["ideal"]) == ("10.0.0.1:50002", "0.25", "0.5")
    assert (last["sidecar_cpu_cores"], last["sidecar_memory_bytes"], last["app_cpu_cores"]) == ("0.25", "16777216", "")


def test_the_charts_get_lines_of_pods_and_changes_of_the_table(ui):
    told = ui.json("placement/samples")
    assert told["title"] == "2 hosts, 40 active actors, placement table version 2"
    assert [(item["pod"], item["active"], item["cpu"]) for item in told["pods"][-2:]] == [
        ("chat-0", 30, 0.25),
        ("chat-1", 10, 0.25),
    ]
    assert told["changes"] == [{"at": (STARTED + 4) * 1000, "version": 2}]
    ui.show([sample(second, 1, 5) for second in range(1000)])
    assert web.CHART_POINTS / 2 < len(ui.json("placement/samples")["pods"]) <= web.CHART_POINTS


def test_the_page_of_the_charts_needs_nothing_from_elsewhere(ui):
    page, kind = ui.get("placement/")
    assert kind == "text/html"
    assert "//" not in page, "nothing is fetched from another server"
    script, kind = ui.get("placement/vega.js")
    assert kind.endswith("javascript")
    assert "window.vegaEmbed=" in script
    assert ui.get("placement/tab.js")[1].endswith("javascript")


def test_pods_beyond_the_last_colour_are_drawn_in_the_first_ones_with_another_dash(ui):
    ui.show([sample(second, 1, *range(1, 11)) for second in (0, 2)])
    with browser.page() as opened:
        opened.goto(f"{ui.url}/placement/")
        lines = opened.locator("#active .mark-line path")
        lines.nth(9).wait_for(state="attached")
        drawn = lines.evaluate_all(
            "paths => paths.map(path => [getComputedStyle(path).stroke, getComputedStyle(path).strokeDasharray])"
        )
    assert len(drawn) == len(set(map(tuple, drawn))) == 10
    assert len({colour for colour, _ in drawn}) == len(palette.SERIES) == 8


def test_a_browser_shows_the_tab_live_with_its_charts(ui):
    with browser.page(viewport={"width": 1400, "height": 1100}) as opened:
        seen = browser.watch(opened)
        opened.goto(ui.url)
        opened.get_by_role("tab", name="Placement").click()
        opened.get_by_role("cell", name="chat-1", exact=True).wait_for()
        below = opened.frame_locator('iframe[title="Placement over time"]')
        below.get_by_text("2 hosts, 40 active actors, placement table version 2").wait_for()
        for chart in ("#active", "#cpu"):
            below.locator(f"{chart} .mark-line path").nth(1).wait_for(state="attached")
            assert below.locator(f"{chart} .role-mark.mark-rule line").count() == 1, "where the table changed"
        ui.show([*SAMPLES, sample(8, 3, 7)])
        below.get_by_text("1 host, 7 active actors, placement table version 3").wait_for()
        opened.get_by_role("cell", name="chat-1", exact=True).wait_for(state="detached")
        below.locator("#active .role-mark.mark-rule line").nth(1).wait_for(state="attached")
        opened.get_by_role("tab", name="Download Data").click()
        opened.locator("iframe").wait_for(state="detached")
        with opened.expect_download() as download:
            opened.get_by_text("Download placement CSV").click()
        assert Path(download.value.path()).read_text() == ui.get("placement/csv")[0]
        assert seen.problems == []
        assert {address for address in seen.requests if not address.startswith(ui.url)} == set()


def test_below_a_base_path_it_is_there_too(tmp_path):
    with running(tmp_path, "--web-base-path", "/load", path="/load") as found:
        assert [row["name"] for row in found.rows()] == ["chat-0", "chat-1"]
        assert found.get("placement/csv")[1] == "text/csv"


def test_without_a_web_ui_nothing_is_done():
    class Headless:
        web_ui = None

    web.attach(Headless(), list)  # type: ignore[arg-type]
