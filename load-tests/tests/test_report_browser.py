"""The report's page in a real browser: what is drawn, what can be done with it, and that it asks for nothing."""

import os
import shutil

import pytest
from actor_load.record import Event, Failure, Record
from actor_load.report import page
from support import browser
from support.load_run import STARTED, load_run

from cluster import browser as tool
from cluster import debian
from cluster.errors import CommandError

pytestmark = pytest.mark.timeout(120)  # a browser draws

HOSTILE = "</script><script>window.hostile = true</script><img src=x onerror='window.hostile = true'>"
HEADINGS = [
    "In figures",
    "Events",
    "Scale from 1 to 3 pods",
    "Scale from 3 to 6 pods",
    "Scale from 6 to 2 pods",
    "Throughput, latency and errors",
    "Placement",
    "Shares of the pods",
    "CPU and memory of the pods",
    "The load generator",
    "Requests by name",
    "Failures",
    "Versions and settings",
]


@pytest.fixture(scope="module")
def chromium():
    """One browser for all tests of this module; none of them has an event loop."""
    with browser.browser() as running:
        yield running


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The file of a whole run; somebody has put markup into it wherever a run takes text from others."""
    record = load_run()
    record.events.append(Event(at=STARTED + 270, kind="problem", text=HOSTILE))
    record.failures.append(Failure(name=HOSTILE, error=HOSTILE, count=1))
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page.render(record), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """The file of a run that did nothing."""
    path = tmp_path_factory.mktemp("empty") / "report.html"
    path.write_text(page.render(Record(title="Nothing", started=STARTED, ended=STARTED + 3)), encoding="utf-8")
    return path


def show(chromium, path, **context):
    """A new page with the report, drawn, and what was seen meanwhile."""
    page = chromium.new_page(**{"viewport": {"width": 1280, "height": 900}, **context})
    seen = browser.watch(page)
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-drawn]", state="attached")
    return page, seen


@pytest.fixture(scope="module")
def shown(chromium, report):
    """The report as it is opened on a desk. A test leaves it as it was."""
    page, seen = show(chromium, report)
    yield page, seen
    page.close()


def axis_labels(chart):
    """The texts at the lower edge of a chart."""
    return sorted(chart.locator("g.role-axis-label text").all_text_contents())


def chart_of(drawn, title, number=0):
    """The chart under a title."""
    return drawn.locator("figure", has=drawn.get_by_role("heading", name=title, exact=True)).nth(number)


def test_every_chart_is_drawn_and_nothing_is_asked_for(shown, report):
    drawn, seen = shown
    figures = drawn.locator("figure")
    assert seen.problems == []
    assert seen.requests == [report.as_uri()]
    assert drawn.locator("h2").all_inner_texts() == HEADINGS
    assert figures.count() == int(drawn.locator("html").get_attribute("data-drawn")) >= 20
    # Each has lines, areas or bars, and they take up room.
    sizes = drawn.evaluate(
        """() => [...document.querySelectorAll("figure .chart svg")].map(svg => Math.max(
            ...[...svg.querySelectorAll(".mark-line path, .mark-area path, .mark-rect path")].map(
                path => path.getBoundingClientRect().width)))"""
    )
    assert len(sizes) == figures.count()
    assert min(sizes) > 100
    assert drawn.evaluate("window.hostile") is None
    assert drawn.get_by_text(HOSTILE).count() == 3


def test_a_chart_says_in_words_what_it_shows(shown):
    drawn, _ = shown
    words = drawn.locator(".chart[role=img]").evaluate_all(
        "charts => charts.map(chart => chart.getAttribute('aria-label'))"
    )
    assert len(words) == drawn.locator("figure").count()
    assert any(said.startswith("Latency of turns. Half of them took") for said in words)
    assert drawn.locator("table th[scope=col]").count() >= 30
    assert drawn.locator("table").count() == drawn.locator("table:has(tbody th[scope=row])").count()


def test_pointing_at_a_second_tells_its_numbers(shown):
    drawn, _ = shown
    chart = chart_of(drawn, "Latency of turns", number=3).locator(".chart")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    drawn.mouse.move(box["x"] + box["width"] * 0.37, box["y"] + box["height"] * 0.5)
    drawn.wait_for_selector("#vg-tooltip-element.visible")
    told = dict(row.split("\t") for row in drawn.locator("#vg-tooltip-element tr").all_inner_texts())
    assert list(told) == ["time", "p50", "p95", "p99", "slowest"]
    assert told["time"].startswith("1:")
    assert all(told[name].endswith(("ms", "s")) for name in ("p50", "p95", "p99", "slowest"))


def test_dragging_zooms_every_chart_of_that_time_and_a_click_shows_all_again(shown):
    drawn, seen = shown
    latency = chart_of(drawn, "Latency of turns", number=3).locator(".chart")
    others = [chart_of(drawn, title).locator(".chart") for title in ("CPU of daprd", "Users")]
    before = [axis_labels(chart) for chart in (latency, *others)]
    latency.scroll_into_view_if_needed()
    box = latency.bounding_box()
    y = box["y"] + box["height"] / 2
    drawn.mouse.move(box["x"] + box["width"] * 0.4, y)
    drawn.mouse.down()
    drawn.mouse.move(box["x"] + box["width"] * 0.6, y, steps=3)
    drawn.mouse.up()
    whole = drawn.get_by_role("button", name="Show the whole run")
    whole.wait_for()
    for chart in (latency, *others):
        chart.locator("g.role-axis-label text", has_text="2:20").wait_for()
        assert not {"0:00", "4:00", "5:00"} & set(axis_labels(chart))
    whole.click()
    whole.wait_for(state="hidden")
    for chart, labels in zip((latency, *others), before, strict=True):
        chart.locator("g.role-axis-label text", has_text="5:00").wait_for()
        assert axis_labels(chart) == labels
    assert seen.problems == []


def test_a_telephone_shows_it_in_light_and_in_dark_without_scrolling_sideways(chromium, report):
    drawn, seen = show(chromium, report, viewport={"width": 390, "height": 844})
    assert drawn.evaluate("document.documentElement.scrollWidth") == 390
    wider = drawn.evaluate(
        """() => [...document.querySelectorAll("svg, figure, dl, ol")].filter(
            one => one.getBoundingClientRect().right > innerWidth).length"""
    )
    assert wider == 0
    for scheme, colours in {
        "light": ("rgb(89, 99, 110)", "rgb(255, 255, 255)"),
        "dark": ("rgb(164, 173, 184)", "rgb(20, 23, 28)"),
    }.items():
        drawn.emulate_media(color_scheme=scheme)
        label = drawn.locator("g.role-axis-label text").first.evaluate("text => getComputedStyle(text).fill")
        paper = drawn.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
        assert (label, paper) == colours
    assert seen.problems == []
    drawn.close()


def test_on_paper_nothing_is_cut_and_colours_are_the_light_ones(chromium, report):
    drawn, seen = show(chromium, report, color_scheme="dark")
    drawn.emulate_media(media="print", color_scheme="dark")
    # A sheet of A4 within its margins. Printing is no change of the window's size: Vega draws nothing anew.
    drawn.evaluate("document.body.style.width = '700px'")
    cut = drawn.evaluate(
        """() => [...document.querySelectorAll("svg, table, dl, ol, figcaption")].filter(
            one => one.getBoundingClientRect().right > document.body.getBoundingClientRect().right + 1
        ).map(one => one.outerHTML.slice(0, 80))"""
    )
    assert cut == []
    hidden = drawn.evaluate(
        """() => [...document.querySelectorAll(".chart, .scroll")].filter(
            one => getComputedStyle(one).overflow !== "visible" && one.scrollWidth > one.clientWidth).length"""
    )
    assert hidden == 0
    whole = "one => getComputedStyle(one).breakInside"
    for part in ("figure", "tbody tr", ".headline .tiles > div"):
        assert drawn.locator(part).first.evaluate(whole) == "avoid", part
    # Playwright can tell what is visible: all of the page but the button.
    assert drawn.locator("h2").evaluate_all("all => all.every(one => one.checkVisibility())")
    assert not drawn.locator("#whole").is_visible()
    paper = drawn.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
    assert paper == "rgb(255, 255, 255)"
    assert drawn.locator("body").evaluate("body => getComputedStyle(body).maxWidth") == "none"
    assert drawn.pdf().startswith(b"%PDF")
    assert seen.problems == []
    drawn.close()


def test_the_browser_is_told_to_refuse_requests(chromium, empty):
    drawn, _ = show(chromium, empty)
    refused = drawn.evaluate(
        """() => new Promise(resolve => {
            document.addEventListener("securitypolicyviolation", event => resolve(event.effectiveDirective));
            fetch("http://127.0.0.1:9/").catch(() => null);
        })"""
    )
    assert refused == "connect-src"
    drawn.close()


def test_a_run_without_anything_says_so_and_draws_nothing(chromium, empty):
    drawn, seen = show(chromium, empty)
    assert drawn.locator("figure").count() == 0
    said = drawn.locator("main").inner_text()
    for sentence in (
        "No request was answered.",
        "The run did not look at placement",
        "no settled table",
        "Nothing is known of what the pods used.",
        "Nothing is known of what the generator used.",
        "No request failed.",
        "Nothing was noted.",
    ):
        assert sentence in said
    assert seen.problems == []
    drawn.close()


class TestTool:
    """`python -m cluster which chromium`."""

    @pytest.fixture
    def bare(self, monkeypatch):
        """A machine without a browser, whose user is root."""
        monkeypatch.setattr(shutil, "which", lambda _: None)
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(debian, "has_apt", lambda: True)

    def test_the_machines_browser_is_taken(self, monkeypatch):
        monkeypatch.setattr(shutil, "which", lambda name: "/opt/chrome" if name == "google-chrome" else None)
        assert str(tool.chromium()) == "/opt/chrome"

    def test_on_debian_root_gets_the_package(self, bare, monkeypatch):
        installed = []

        def install(packages):
            installed.extend(packages)
            monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")

        monkeypatch.setattr(debian, "install", install)
        assert str(tool.chromium()) == "/usr/bin/chromium"
        assert installed == ["chromium"]

    @pytest.mark.usefixtures("bare")
    @pytest.mark.parametrize("missing", ["root", "apt", "package", "program"])
    def test_without_a_browser_one_line_names_the_mend(self, monkeypatch, missing):
        def install(_):
            if missing == "package":
                raise CommandError("E: Unable to locate package chromium")

        monkeypatch.setattr(debian, "install", install)
        if missing == "root":
            monkeypatch.setattr(os, "geteuid", lambda: 1000)
        if missing == "apt":
            monkeypatch.setattr(debian, "has_apt", lambda: False)
        with pytest.raises(CommandError, match="install Chromium or Google Chrome") as error:
            tool.chromium()
        assert "\n" not in str(error.value)
