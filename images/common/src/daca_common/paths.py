"""The path of a request as guards and routes know it: one spelling of each, whoever sent it.

Around everything that looks at a path: a guard that saw another spelling than the router would let pass what it guards.
"""

import re
from typing import Final
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

SPELLED_WITH_SLASH: Final = frozenset({"/", "/chat/"})
"""Routes that end in a slash. Each route is met with and without it: a redirect would lose a body and, behind a proxy
that ends TLS, lead to http."""

_STAYS_ENCODED: Final = re.compile(rb"%(2[Ff]|0[Aa])")
"""A slash within an id, and a line end, which the ``$`` of a route's pattern overlooks."""


class OneSpelling:
    """Gives a path the slash at its end, or takes it, as the route has it, and answers HEAD as GET without its body.

    What is encoded and would part a path otherwise stays encoded. So it belongs to an id, which is refused by name.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            method = "GET" if scope["method"] == "HEAD" else scope["method"]
            path = _spelled(scope["path"], scope.get("raw_path") or b"")
            if path != scope["path"] or method != scope["method"]:
                scope = {**scope, "path": path, "method": method}
        await self._app(scope, receive, send)


def _spelled(path: str, raw: bytes) -> str:
    if path in SPELLED_WITH_SLASH:
        return path
    if b"%" in raw:
        path = unquote(_STAYS_ENCODED.sub(rb"%25\1", raw).decode("latin-1"))
    if not path.endswith("//"):
        path = path.removesuffix("/")
    return f"{path}/" if f"{path}/" in SPELLED_WITH_SLASH else path
