"""Numbers as people read them; scenarios, the page, the picture and the terminal write them alike."""

from datetime import UTC, datetime

from actor_load.record import Summary


def latency(milliseconds: float | None) -> str:
    """``8.4 ms``, ``412 ms``, ``4.08 s``; a dash where nothing was measured."""
    if milliseconds is None:
        return "-"
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:,.2f} s"
    return f"{milliseconds:.0f} ms" if milliseconds >= 100 else f"{milliseconds:.3g} ms"


def rate(per_second: float) -> str:
    """A rate without its unit: ``1,240``, ``12.3``, ``0.45``."""
    if per_second >= 100:
        return f"{per_second:,.0f}"
    return f"{per_second:.1f}" if per_second >= 10 else f"{per_second:.2f}".rstrip("0").rstrip(".")


def percent(share: float) -> str:
    """A share of 0 to 1: ``23.4 %``; small ones keep a digit that says something."""
    if 0 < share < 0.0001:
        return "< 0.01 %"
    return f"{share:.2%}".replace("%", " %") if share < 0.01 else f"{share:.1%}".replace("%", " %")


def counted(number: int, thing: str) -> str:
    """``1 pod``, ``3 pods``, ``5,000 actors``."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def elapsed(seconds: float) -> str:
    """Time since the start of the run: ``1:05``, ``2:03:04``."""
    whole = int(max(0, seconds))
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def lasted(seconds: float) -> str:
    """How long something took: ``42 s``, ``5 min 2 s``, ``3 h 5 min``."""
    whole = round(max(0, seconds))
    if whole < 60:
        return f"{whole} s"
    parts = ((whole // 3600, "h"), (whole // 60 % 60, "min"), (whole % 60 if whole < 3600 else 0, "s"))
    return " ".join(f"{number} {unit}" for number, unit in parts if number)


def clock(at: float) -> str:
    """``2026-11-23 14:05:06 UTC``."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


def failed(summary: Summary) -> str:
    """``0``, or ``12 (0.31 %)``."""
    return f"{summary.failed:,} ({percent(summary.error_rate)})" if summary.failed else "0"
