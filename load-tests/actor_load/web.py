"""A tab "Placement" in Locust's web UI: the hosts as a table, charts over time below it, and a CSV file of all samples.

Locust's own interface for that: ``template_args`` with ``extended_tabs``, ``extended_tables`` and
``extended_csv_files``, and rows as ``extended_stats`` in what the UI polls
(https://docs.locust.io/en/stable/extending-locust.html).
"""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from flask import Blueprint, Response, request, send_from_directory
from locust.env import Environment

from actor_load import palette
from actor_load.placement import view
from actor_load.record import PlacementSample

KEY: Final = "placement"
PAGE: Final = Path(__file__).parent / "placement" / "page"
CHART_POINTS: Final = 300
"""Of each line; of more samples every second, third, ... is taken."""

CSV_COLUMNS: Final = (
    *("at", "table_version", "pod", "node", "state", "address", "actor_type", "active", "share", "ideal", "ring"),
    *("rebalanced", "deactivated", "pending", "app_cpu_cores", "app_memory_bytes"),
    *("sidecar_cpu_cores", "sidecar_memory_bytes"),
)

_TABLE: Final = [
    {"key": "name", "title": "Pod"},
    {"key": "node", "title": "Node"},
    {"key": "state", "title": "State"},
    {"key": "type", "title": "Actor type"},
    {"key": "active", "title": "Active"},
    {"key": "share", "title": "Share, %"},
    {"key": "ring", "title": "By the ring, %"},
    {"key": "ideal", "title": "Of ideal"},
    {"key": "version", "title": "Table version"},
    {"key": "rebalanced", "title": "Rebalanced"},
    {"key": "deactivated", "title": "Deactivated"},
    {"key": "pending", "title": "Pending"},
    {"key": "app", "title": "App: cores, MiB"},
    {"key": "sidecar", "title": "Sidecar: cores, MiB"},
]

Samples = Callable[[], list[PlacementSample]]


def attach(environment: Environment, samples: Samples) -> None:
    """Adds the tab; to be called when Locust's ``init`` event fires. Without a web UI nothing is done.

    ``samples`` gives those of the run, the newest last.
    """
    ui = environment.web_ui
    if ui is None or ui.app is None:
        return
    for name, item in (
        ("extended_tabs", {"key": KEY, "title": "Placement"}),
        ("extended_tables", {"key": KEY, "structure": _TABLE}),
        ("extended_csv_files", {"href": f"./{KEY}/csv", "title": "Download placement CSV"}),
    ):
        ui.template_args[name] = [*ui.template_args.get(name, []), item]

    pages: dict[str, Callable[[], Response]] = {
        "": lambda: send_from_directory(PAGE, "index.html"),
        "tab.js": lambda: send_from_directory(PAGE, "tab.js"),
        "charts.js": lambda: send_from_directory(PAGE, "charts.js"),
        "page.css": lambda: send_from_directory(PAGE, "page.css"),
        "palette.css": lambda: Response(f":root {{ {palette.css(palette.LIGHT)} }}", mimetype="text/css"),
        "vega.js": lambda: Response(_vega(), mimetype="text/javascript", headers={"Cache-Control": "max-age=86400"}),
        "samples": lambda: Response(json.dumps(_chart(samples())), mimetype="application/json"),
        "csv": lambda: Response(
            _csv(list(samples())),
            mimetype="text/csv",
            headers={"Content-Disposition": "attachment; filename=placement.csv"},
        ),
    }
    base = getattr(environment.parsed_options, "web_base_path", None) or ""
    blueprint = Blueprint(KEY, __name__, url_prefix=f"{base}/{KEY}")
    for path, page in pages.items():
        blueprint.add_url_rule(f"/{path}", path.partition(".")[0] or "index", ui.auth_required_if_enabled(page))
    ui.app.register_blueprint(blueprint)
    ui.app.after_request(lambda response: _extended(response, samples))


def _extended(response: Response, samples: Samples) -> Response:
    """Locust's own answers with what is ours: rows among what the UI polls, a script in its page."""
    if request.endpoint == "locust.request_stats" and response.is_json:
        stats: dict[str, Any] = response.get_json()
        # Locust keeps the answer for a while: ours may be in it.
        others = [item for item in stats.get("extended_stats", []) if item["key"] != KEY]
        stats["extended_stats"] = [*others, {"key": KEY, "data": _rows(samples())}]
        response.set_data(json.dumps(stats))
    elif request.endpoint == "locust.index" and response.mimetype == "text/html":
        script = f'<script src="./{KEY}/tab.js"></script></body>'
        response.set_data(response.get_data(as_text=True).replace("</body>", script))
    return response


def _rows(samples: list[PlacementSample]) -> list[dict[str, Any]]:
    if not samples:
        return []
    return [
        {
            "name": row.pod or row.address,
            "node": row.node,
            "state": row.state,
            "type": row.actor_type,
            "active": row.active,
            "share": _percent(row.share),
            "ring": _percent(row.ring),
            "ideal": None if row.share is None or not row.ideal else round(row.share / row.ideal, 2),
            "version": samples[-1].version,
            "rebalanced": row.rebalanced,
            "deactivated": row.deactivated,
            "pending": row.pending,
            "app": view.usage(row.app),
            "sidecar": view.usage(row.sidecar),
        }
        for row in view.rows(samples[-1])
    ]


def _chart(samples: list[PlacementSample]) -> dict[str, Any]:
    shown = samples[:: -(-len(samples) // CHART_POINTS) or 1]
    changed = [(after.at, after.version) for before, after in pairwise(samples) if before.version != after.version]
    return {
        "title": view.title(samples[-1]) if samples else "No look at placement yet.",
        "problems": samples[-1].problems if samples else [],
        "pods": [
            {
                "at": sample.at * 1000,
                "pod": pod.name,
                "active": None if pod.active_actors is None else sum(pod.active_actors.values()),
                "cpu": _total(container.cpu_cores for container in pod.containers.values()),
            }
            for sample in shown
            for pod in sample.pods
        ],
        "changes": [{"at": at * 1000, "version": version} for at, version in changed],
    }


def _csv(samples: list[PlacementSample]) -> Iterator[str]:
    """In pieces, so that a long run's file holds nobody up."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(CSV_COLUMNS)
    for sample in samples:
        for row in view.rows(sample):
            *told, app, sidecar = row
            used = (app.cpu_cores, app.memory_bytes, sidecar.cpu_cores, sidecar.memory_bytes)
            lines.writerow((f"{sample.at:.3f}", sample.version, *told, *used))
        yield text.getvalue()
        text.seek(0)
        text.truncate()
    yield text.getvalue()


@cache
def _vega() -> bytes:
    """Vega, Vega-Lite and Vega-Embed as one script; made by a process of its own, as it takes more than a second."""
    script = "import sys, vl_convert; sys.stdout.write(vl_convert.javascript_bundle())"
    return subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True).stdout  # noqa: S603


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 1)


def _total(values: Iterator[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
