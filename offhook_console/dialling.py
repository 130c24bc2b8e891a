"""Click-to-dial: the PBX calls a person's own phone, and then a number."""

import re
from collections.abc import Mapping

from limits import RateLimitItemPerMinute
from redis.asyncio import Redis

from offhook.calls import MissedCaller, outside_number
from offhook.errors import ConfigError
from offhook.extensions import ExtensionSettings, Name
from offhook.inbox import keys
from offhook.inbox.missed_calls import claim, release
from offhook.operations.audit import Change, note_change
from offhook.provisioning.api import open_api, sentence
from offhook.settings import Settings
from offhook_console.languages import gettext
from offhook_console.live_feed import LiveFeed
from offhook_console.people import Person
from offhook_console.problem_details import ConsoleError
from offhook_console.rate_limits import rate_limiter
from unifiedapi.errors import NoAnswer, UnifiedApiError

PER_MINUTE = 6
_LIMIT = RateLimitItemPerMinute(PER_MINUTE, 1, namespace="dial")
_NUMBER = re.compile(r"\+?[0-9]{2,20}|[0-9]{1,10}\*[0-9]{1,10}", re.ASCII)
_BETWEEN = re.compile(r"[\s()./\u00a0\u2010-\u2015-]")
_GAP = r"[\s()./\u00a0\u2010-\u2015-]*"
# What `dialled` reads, for the description of the API.
DIALLED = (
    rf"^(tel:)?{_GAP}((\+{_GAP})?([0-9]{_GAP}){{2,20}}"
    rf"|([0-9]{_GAP}){{1,10}}\*{_GAP}([0-9]{_GAP}){{1,10}})$"
)


class Dialling:
    """Makes calls from people's own extensions, a few a minute for each person.

    Args:
        settings: the operator's.
    """

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self._settings = settings
        self._redis = redis
        self._limiter = rate_limiter(redis, keys.dial(""))

    async def dial(
        self, feed: LiveFeed, person: Person, number: str, extension: str | None = None
    ) -> str | None:
        """Ask the PBX to call a person's phone, and then a number. Return the id of the PhoneCall.

        Args:
            feed: the person's.
            number: as `dialled` returns it.
            extension: one of the person's own; the first one if not given.

        Raises:
            ConsoleError: the person may not, a colleague calls that number, or the PBX refuses.
        """
        extension = extension or own_extension(person)
        if extension is None or extension not in person.extensions:
            raise ConsoleError(403, gettext("You can call from your own extensions only."))
        pbx = self._pbx_of(person, extension, feed.labels)
        if not await self._limiter.hit(_LIMIT, person.tenant, person.name):
            problem = gettext(
                "At most {number} calls per minute. Wait a moment.", number=PER_MINUTE
            )
            raise ConsoleError(429, problem)
        missed = feed.missed.waiting(number)
        redis = self._redis
        if missed is not None and (other := await claim(redis, number, person.name, person.tenant)):
            raise ConsoleError(409, gettext("{name} is calling this number.", name=other))
        try:
            made = await self._ask(pbx, extension, number)
        except ConsoleError as error:
            if error.may_be_done:
                await self._note(person, extension)
            elif missed is not None:
                await release(redis, number, person.tenant)
            raise
        await self._note(person, extension, made)
        if missed is not None:
            feed.tell_missed([missed])
        return made

    async def _note(self, person: Person, extension: str, made: str | None = None) -> None:
        details = {"extension": extension}
        await note_change(
            self._redis,
            person.name,
            Change.CALL_MADE,
            details,
            operation=made,
            tenant=person.tenant,
        )

    async def _ask(self, pbx: str, extension: str, number: str) -> str | None:
        settings = self._settings.of(self._settings.access_of(pbx, extension))
        try:
            async with open_api(settings, pbx) as api:
                user = settings.pbx[pbx].user
                return (await api.phone_calls.create(extension, number, user=user)).id
        except ConfigError as error:
            problem = gettext("This console cannot make calls: {why}", why=error)
            raise ConsoleError(409, problem) from error
        except NoAnswer as error:
            problem = (
                gettext("The PBX did not answer. Your phone may ring anyway.")
                if error.sent
                else gettext("The PBX did not answer. Nothing was called.")
            )
            raise ConsoleError(502, problem, may_be_done=error.sent) from error
        except UnifiedApiError as error:
            problem = gettext("Nothing was called: {why}.", why=sentence(error))
            raise ConsoleError(502, problem) from error

    def _pbx_of(
        self, person: Person, extension: str, labels: Mapping[Name, ExtensionSettings]
    ) -> str:
        """The PBX that has an extension of the person."""
        known = [
            pbx
            for pbx in self._settings.of(person.tenant).pbx
            if self._settings.tenant_of(pbx, extension) == person.tenant
        ]
        found = [pbx for pbx in known if (pbx, extension) in labels] or known
        if len(found) != 1:
            raise ConsoleError(
                409,
                gettext(
                    "No PBX is known to have {extension}: run `offhook setup extensions` with it.",
                    extension=extension,
                ),
            )
        return found[0]


def own_extension(person: Person) -> str | None:
    """The extension from which a person dials."""
    return min(person.extensions, default=None)


def dialled(text: str) -> str:
    """The number in a link such as `tel:+44-20-7946-0100;ext=1`, or as a person writes it.

    Raises:
        ConsoleError: it is not one.
    """
    if text.startswith("tel:"):
        text = text.removeprefix("tel:").partition(";")[0]
    number = _BETWEEN.sub("", text)
    if not _NUMBER.fullmatch(number):
        raise ConsoleError(
            400, gettext("number: write a number such as +442079460100, or an extension.")
        )
    return number


def number_of_missed(callers: list[MissedCaller], call: str) -> str:
    """The number of the missed caller whose last missed call has this name.

    Raises:
        ConsoleError: there is none.
    """
    for caller in callers:
        last = caller.calls[-1]
        number = outside_number(last)
        if f"{last.pbx}/{last.id}" == call and number is not None:
            return number
    raise ConsoleError(404, gettext("This caller is no longer in the list."))
