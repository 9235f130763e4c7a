"""JSON bodies, read strictly: whatever is wrong with one is a problem that says where, before any field is looked at.

``json.loads`` takes UTF-16, ``NaN``, keys that come twice and half a surrogate pair, and FastAPI answers what it does
not take with no more than "There was an error parsing the body".
"""

import json
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final, NoReturn

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from daca_common.problems import FieldError, Problem, invalid

JSON: Final = "application/json"


class JsonRoute(APIRoute):
    """For ``APIRouter(route_class=...)``: routes with a body take JSON in UTF-8."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def strict(request: Request) -> Response:
            request = _JsonRequest(request.scope, request.receive)
            try:
                body = await request.body()
            except ClientDisconnect:
                raise Problem(499, "The client hung up.", kind="/problems/client-gone") from None
            if body:
                _check_headers(request)
            return await handle(request)

        return strict


class _JsonRequest(Request):
    async def json(self) -> Any:
        return parse(await self.body())


def parse(body: bytes) -> Any:
    """The value of a JSON text.

    Raises:
        Problem: 400, it is none; 422, a key comes twice or a text is not Unicode.
    """
    twice: list[tuple[dict[str, Any], str]] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            keys = [key for key, _ in pairs]
            twice.append((made, next(key for key in keys if keys.count(key) > 1)))
        return made

    try:
        text = body.decode("utf-8-sig")
        value = json.loads(text, object_pairs_hook=unique, parse_constant=_no_constant)
        if twice:
            raise invalid([_twice(value, *twice[-1])])  # the outermost: the others may lie in what it dropped
        if "\\u" in text and (errors := [_half(path) for path, said in _texts(value, ()) if not _is_unicode(said)]):
            raise invalid(errors)
    except UnicodeDecodeError as error:
        raise _not_json(f"byte {error.start} is no UTF-8") from None
    except json.JSONDecodeError as error:
        raise _not_json(f"{error.msg}, line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise _not_json("it is nested too deeply") from None
    except ValueError as error:  # Python's own limit on digits, and constants
        raise _not_json(str(error) if isinstance(error, _NoConstant) else "a number has too many digits") from None
    return value


class _NoConstant(ValueError):
    pass


def _no_constant(name: str) -> NoReturn:
    raise _NoConstant(f"{name} is no number of JSON")


def _not_json(why: str) -> Problem:
    detail = f"The body is not JSON in UTF-8: {why}."
    errors: list[FieldError] = [{"field": "body", "location": "body", "detail": detail}]
    return Problem(400, detail, kind="/problems/invalid-json", errors=errors)


def _check_headers(request: Request) -> None:
    """A page of another origin can send other types than JSON without asking (CORS), and no type at all."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not (media_type == JSON or (media_type.startswith("application/") and media_type.endswith("+json"))):
        raise _unsupported("Content-Type", f"send {JSON}, not {media_type or 'a body without a type'}")
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in {"", "identity"}:
        raise _unsupported("Content-Encoding", "send the body uncompressed", {"Accept-Encoding": "identity"})


def _unsupported(field: str, detail: str, headers: dict[str, str] | None = None) -> Problem:
    errors: list[FieldError] = [{"field": field, "location": "header", "detail": detail}]
    return Problem(415, f"{field}: {detail}", kind="/problems/unsupported-media-type", errors=errors, headers=headers)


def _twice(value: Any, where: dict[str, Any], key: str) -> FieldError:
    found = next((path for path, item in _values(value, ()) if item is where), ())
    return {"field": ".".join((*found, _shown(key))), "location": "body", "detail": "comes twice; send it once"}


def _half(path: tuple[str, ...]) -> FieldError:
    detail = "not valid Unicode: a surrogate without its other half"
    return {"field": ".".join(path) or "body", "location": "body", "detail": detail}


def _is_unicode(text: str) -> bool:
    return text.isascii() or _shown(text) == text


def _shown(text: str) -> str:
    return text.encode(errors="replace").decode()


def _values(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Everything in a JSON value, by path."""
    yield path, value
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in children:
        yield from _values(item, (*path, _shown(str(key))))


def _texts(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """The texts of a JSON value, keys among them."""
    for at, item in _values(value, path):
        if isinstance(item, str):
            yield at, item
        elif isinstance(item, dict):
            yield from (((*at, _shown(key)), key) for key in item)
