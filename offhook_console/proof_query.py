"""What is known of each PBX's own records: pages and the API ask the same."""

from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from starlette.requests import Request

from offhook.operations.proof import KEPT_DAYS, DayProof, compared_until, days_of
from offhook_console.languages import gettext
from offhook_console.parts import ConsoleParts
from offhook_console.problem_details import ConsoleError

_MOST_CALLS = 50


@dataclass(frozen=True)
class PbxProof:
    """One PBX.

    Attributes:
        days: newest first.
        until: up to when its records were compared; None: not yet.
        reached: whether Offhook has access to its API.
        calls: the newest calls that were recovered or closed: day, URL, name, and which of both.
    """

    name: str
    days: list[DayProof]
    until: datetime | None
    reached: bool
    calls: list[tuple[DayProof, str, str, str]]

    @property
    def records(self) -> int:
        return sum(each.records for each in self.days)

    @property
    def recovered(self) -> int:
        return sum(len(each.recovered) for each in self.days)

    @property
    def closed(self) -> int:
        return sum(len(each.closed) for each in self.days)

    @property
    def missing(self) -> int:
        return sum(each.missing for each in self.days)


def read_days(request: Request) -> int:
    """The number of days in the URL.

    Raises:
        ConsoleError: it is none, or too many.
    """
    text = request.query_params.get("days", "14")
    days = int(text) if text.isascii() and text.isdecimal() and len(text) < 4 else 0
    if not 1 <= days <= KEPT_DAYS:
        problem = gettext("days: must be a number from 1 to {most}.", most=KEPT_DAYS)
        raise ConsoleError(400, problem)
    return days


async def all_proofs(parts: ConsoleParts, days: int) -> list[PbxProof]:
    """What is known of each PBX of the operator."""
    redis, found = parts.inbox.redis, []
    for name, settings in parts.settings.pbx.items():
        proven = await days_of(redis, name, days=days)
        until = await compared_until(redis, name)
        found.append(PbxProof(name, proven, until, settings.host is not None, _calls(proven)))
    return found


def _calls(days: list[DayProof]) -> list[tuple[DayProof, str, str, str]]:
    found = [
        (each, f"/calls/{quote(name, safe='/')}", name.partition("/")[2], kind)
        for each in days
        for kind, names in (("recovered", each.recovered), ("closed", each.closed))
        for name in names
    ]
    return found[:_MOST_CALLS]
