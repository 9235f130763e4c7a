"""What only the sidecar may call: actor methods, event delivery.

They share the service's port with its API, so anyone who reaches that (a NodePort!) could call them past Dapr. With
``dapr.io/app-token-secret`` the sidecar proves itself by a token: https://docs.dapr.io/operations/security/app-api-token/
"""

import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from daca_common.problems import Problem


class SidecarOnly:
    """Answers 401 on ``paths`` to whoever does not carry the token. Without a token all may call.

    A path that ends in ``/`` stands for all below it; one after a method (``POST /path``) for that method alone.
    """

    def __init__(self, app: ASGIApp, token: str | None, paths: tuple[str, ...]) -> None:
        self._app = app
        self._token = token
        self._exact = frozenset(path for path in paths if not path.endswith("/"))
        self._prefixes = tuple(path for path in paths if path.endswith("/"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._token and scope["type"] == "http" and self._guards(scope["method"], scope["path"]):
            carried = Headers(scope=scope).get("dapr-api-token", "")
            if not hmac.compare_digest(carried.encode(), self._token.encode()):
                detail = "Only the Dapr sidecar of this service may call this: it carries the token in dapr-api-token."
                await Problem(401, detail, kind="/problems/sidecar-only").response()(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _guards(self, method: str, path: str) -> bool:
        return path in self._exact or f"{method} {path}" in self._exact or path.startswith(self._prefixes)
