"""CORS: which headers a page may read, and a refusal that is a problem as every other."""

from typing import Final

from daca_common.logs import TRACE_ID
from daca_common.problems import Problem
from fastapi.middleware.cors import CORSMiddleware
from starlette.datastructures import Headers
from starlette.responses import Response

from chat_service.turn import KEY

EXPOSED: Final = ("Allow", KEY, "Idempotency-Replayed", "Retry-After", TRACE_ID)
"""What an answer tells in headers, beside those that every page may read."""


class Cors(CORSMiddleware):
    """Around all that answers, so that a page can read refusals, too."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer to a browser that asks beforehand."""
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:
            return answer
        told = {name: value for name, value in answer.headers.items() if not name.startswith("content-")}
        detail = f"{bytes(answer.body).decode()}. The allowed origins are those of chatService.corsOrigins."
        return Problem(403, detail, kind="/problems/cors-refused", headers=told).response()
