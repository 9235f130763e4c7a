"""The header ``Accept`` (RFC 9110, section 12.5.1): which of the media types that an answer comes in a client wants."""

import re
from functools import lru_cache
from typing import Final

from starlette.datastructures import Headers

from daca_common.problems import FieldError, Problem

LONGEST: Final = 2000
"""Characters of the header that are looked at."""

_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
"""Values of parameters, which may have a comma; none of them matters here."""
_TOKEN: Final = r"[!#$%&'+.^_`|~0-9a-z-]+"  # noqa: S105 - RFC 9110's name for it
_RANGE: Final = re.compile(rf"\*/\*|{_TOKEN}/(?:\*|{_TOKEN})")
_WEIGHT: Final = re.compile(r"0(?:\.\d{0,3})?|1(?:\.0{0,3})?")


def preferred(headers: Headers, *offers: str) -> str:
    """The one of ``offers`` that ``Accept`` prefers: by weight, then what is named more closely, then what is named
    earlier; the first offer where it says nothing that can be gone by.

    Raises:
        Problem: 406, it wants none of them.
    """
    found = _preferred(",".join(headers.getlist("accept"))[:LONGEST], offers)
    if found is None:
        detail = f"the answer comes as {' or '.join(offers)}; ask for that"
        errors: list[FieldError] = [{"field": "Accept", "location": "header", "detail": detail}]
        raise Problem(406, f"Accept: {detail}", kind="/problems/not-acceptable", errors=errors)
    return found


@lru_cache(maxsize=64)
def _preferred(accept: str, offers: tuple[str, ...]) -> str | None:
    elements = _QUOTED.sub("", accept).lower().split(",")
    ranges = [found for element in elements if (found := _parsed(element)) is not None]
    if not ranges:
        return offers[0]
    best = (0.0, 0, 0)
    wanted = None
    for offer in offers:
        # The closest range tells an offer's weight, whatever a wider one says.
        close, place, weight = max(
            (_closeness(pattern, offer), -number, weight) for number, (pattern, weight) in enumerate(ranges)
        )
        if close and weight and (weight, close, place) > best:
            best, wanted = (weight, close, place), offer
    return wanted


def _parsed(element: str) -> tuple[str, float] | None:
    """``text/*;q=0.5`` -> ``("text/*", 0.5)``; ``None`` for what is no media range."""
    pattern, *parameters = (part.strip() for part in element.split(";"))
    weight = next((value for parameter in parameters if (value := parameter.removeprefix("q=")) != parameter), "1")
    if not _RANGE.fullmatch(pattern) or not _WEIGHT.fullmatch(weight):
        return None
    return pattern, float(weight)


def _closeness(pattern: str, offer: str) -> int:
    """0: no match; 1 to 3: ``*/*``, ``text/*``, the type itself. Parameters do not matter: no offer has any."""
    if pattern == offer:
        return 3
    if pattern == "*/*":
        return 1
    return 2 if pattern == f"{offer.partition('/')[0]}/*" else 0
