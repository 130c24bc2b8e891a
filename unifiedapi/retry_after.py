"""The header `Retry-After` (RFC 9110)."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_MOST = 1e9  # seconds: a number with hundreds of digits would be infinite


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait, or None without a valid header. It holds a number or a date."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value), _MOST)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # its zone may have any number of digits
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
