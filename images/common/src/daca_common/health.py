"""Probes. Liveness depends on nothing else; readiness latches and is given up only to drain.

``/livez``: the process answers. ``/readyz``: it may be sent requests. ``/healthz/app``: what the sidecar asks
(``dapr.io/app-health-check-path``); it turns 503 when the last open request is done, which tells a sidecar that blocks
its own shutdown (``dapr.io/block-shutdown-duration``) that it may go.
"""

from fastapi import APIRouter, Response


class Health:
    """The state behind the probes. ``ready`` latches: a later hiccup of placement must not empty the Service."""

    def __init__(self) -> None:
        self.ready = False
        self.draining = False
        self.drained = False

    def router(self) -> APIRouter:
        """The three probe routes, hidden from the API's documentation."""
        router = APIRouter(include_in_schema=False)

        @router.get("/livez")
        async def livez() -> dict[str, str]:
            return {"status": "alive"}

        @router.get("/readyz")
        async def readyz(response: Response) -> dict[str, str]:
            if self.draining or not self.ready:
                response.status_code = 503
            return {"status": "draining" if self.draining else "ready" if self.ready else "starting"}

        @router.get("/healthz/app")
        async def app_health(response: Response) -> dict[str, str]:
            if self.drained:
                response.status_code = 503
            return {"status": "drained" if self.drained else "serving"}

        return router
