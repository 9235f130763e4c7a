"""A real browser: Chromium without a window, driven by Playwright.

Playwright's synchronous API refuses to run in a running event loop, so tests that use it are plain functions.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from playwright.sync_api import Browser, Page, sync_playwright

from cluster.browser import chromium

ARGUMENTS: Final = (
    "--headless",
    "--no-sandbox",  # root may not have one
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass
class Watched:
    """What a page said and asked for since it is watched."""

    problems: list[str] = field(default_factory=list)
    """Warnings and errors of its console, and exceptions that nobody caught."""
    requests: list[str] = field(default_factory=list)
    """The address of every request, its own first."""


@contextmanager
def browser() -> Iterator[Browser]:
    """Chromium, until the block ends; it takes a second to start."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium(), args=[*ARGUMENTS])
        try:
            yield running
        finally:
            running.close()


@contextmanager
def page(**context: Any) -> Iterator[Page]:
    """A page of a browser of its own; ``context`` is what Playwright's ``new_page`` takes (``viewport``, ...)."""
    with browser() as running:
        yield running.new_page(**context)


def watch(opened: Page) -> Watched:
    """Notes what the page says and asks for from now on."""
    seen = Watched()
    opened.on(
        "console",
        lambda message: seen.problems.append(message.text) if message.type in {"warning", "error"} else None,
    )
    opened.on("pageerror", lambda error: seen.problems.append(str(error)))
    opened.on("request", lambda request: seen.requests.append(request.url))
    return seen
