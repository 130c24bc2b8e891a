"""How numbers, times and names are written on a page."""

from datetime import date, datetime
from functools import lru_cache

from phonenumbers import NumberParseException, PhoneNumberFormat, format_number, parse

from offhook.call import Party
from offhook_console.languages import N_, decimal, gettext, ngettext

MONTHS = N_("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec")
WEEKDAYS = N_("Sun Mon Tue Wed Thu Fri Sat")

_MASKED_FROM = 5  # digits: as many, and a name may be a number
_COUNTRY = 4  # characters of a country's code, at most, with its plus
_SHOWN = 3  # digits of a masked number


def duration(seconds: float | None) -> str:
    """`0:07`, `1:02:03`; a dash if it is unknown."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def short(seconds: float | None) -> str:
    """`0.4 s`, `11 s`, `1:34`, `44 min`, `18 h`, `3 days`; a dash if it is unknown."""
    if seconds is None:
        return "–"
    if seconds < 9.95:
        tenths = f"{seconds:.1f}".removesuffix(".0")
        return gettext("{number} s", number=decimal(tenths))
    if seconds < 60:
        return gettext("{number} s", number=round(seconds))
    if seconds < 600:
        return duration(seconds)
    if seconds < 7200:
        return gettext("{number} min", number=round(seconds / 60))
    if seconds < 172_800:
        return gettext("{number} h", number=round(seconds / 3600))
    return ngettext("{number} day", "{number} days", round(seconds / 86_400))


def took(seconds: float) -> str:
    """`< 1 ms`, `3 ms`, and from a second on as `short`."""
    if seconds < 0.0005:
        return "< 1 ms"
    return f"{seconds * 1000:.0f} ms" if seconds < 0.9995 else short(seconds)


def date_of(day: date) -> str:
    """`03 May`."""
    month = gettext(MONTHS).split()[day.month - 1]
    return gettext("{day} {month}", day=day.strftime("%d"), month=month)


def weekday_of(day: date) -> str:
    """`Sun`."""
    return gettext(WEEKDAYS).split()[day.isoweekday() % 7]


def time_of(moment: datetime, form: str = "clock") -> str:
    """A time in the zone of the server; console.js writes it in the viewer's, in the same way.

    Args:
        form: `minute`, `clock`, `exact` (with milliseconds), `day` (with the date, unless it is of
            today) or `full` (with date and weekday).
    """
    local = moment.astimezone()
    clock = f"{local:%H:%M:%S}"
    if form == "minute":
        return f"{local:%H:%M}"
    if form == "exact":
        return f"{clock}.{local.microsecond // 1000:03}"
    if form == "full":
        words = {"weekday": weekday_of(local), "date": date_of(local), "time": clock}
        return gettext("{weekday} {date}, {time}", **words)
    if form == "day" and local.date() != datetime.now().astimezone().date():
        return gettext("{date} {time}", date=date_of(local), time=local.strftime("%H:%M"))
    return clock


def number_of(party: Party) -> str | None:
    """The number as it is dialled; None if it is withheld, for which PBXs have many words."""
    number = party.e164 or party.number or party.did
    return number if number and any(map(str.isdigit, number)) else None


def shown_number(number: str | None, *, masked: bool) -> str | None:
    """A number in groups of digits: `+44 7700 900168`, or masked: `+44 •••• •••168`."""
    if number is None:
        return None
    grouped = _grouped(number)
    if not masked:
        return grouped
    digits = sum(map(str.isdigit, grouped))
    if digits <= _SHOWN:
        return grouped
    country, space, _ = grouped.partition(" ")
    # What is no number keeps the spaces that it came with.
    has_country = space and country.startswith("+") and len(country) <= _COUNTRY
    keep_first = len(country) if has_country else 0
    left = digits
    shown = []
    for place, character in enumerate(grouped):
        if character.isalnum():
            hide = place >= keep_first and left > _SHOWN
            left -= character.isdigit()
            character = "•" if hide else character
        shown.append(character)
    return "".join(shown)


def shown_name(name: str | None, *, masked: bool) -> str | None:
    """A name; masked as a number if it may be one."""
    if not name:
        return None
    if masked and sum(map(str.isdigit, name)) >= _MASKED_FROM:
        return shown_number(name, masked=True)
    return name


@lru_cache(maxsize=10_000)
def _grouped(number: str) -> str:
    if not number.startswith("+"):
        return number
    try:
        return format_number(parse(number), PhoneNumberFormat.INTERNATIONAL)
    except NumberParseException:
        return number


def iso(moment: datetime) -> str:
    """For the attribute `datetime`."""
    return moment.isoformat(timespec="milliseconds")
