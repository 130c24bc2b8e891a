"""`TimeZone`: an option that names a time zone."""

from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator


def _check(value: str) -> str:
    try:
        ZoneInfo(value)
    except (LookupError, ValueError, OSError):
        raise ValueError("must be a time zone, such as Europe/London") from None
    return value


TimeZone = Annotated[str, AfterValidator(_check)]
