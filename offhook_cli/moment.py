"""Moments as people write them."""

import re
from datetime import UTC, datetime, timedelta

import typer

_AGO = re.compile(r"(\d+)\s*([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str) -> datetime:
    """The moment that `2h` (ago), `2026-05-01` or `2026-05-01 14:00` means, local if not said.

    Raises:
        typer.BadParameter: it is none, or has not come yet.
    """
    now = datetime.now(UTC)
    found = _AGO.fullmatch(text.strip())
    try:
        if found:
            return now - timedelta(**{_UNITS[found[2]]: int(found[1])})
        read = datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(
            f"{text!r} is no time: write 90s, 30m, 2h, 3d, 1w (ago), 2026-05-01 or 2026-05-01T14:00"
        ) from error
    if read > now:
        raise typer.BadParameter(f"{text!r} has not come yet")
    return read
