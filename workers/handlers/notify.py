"""`Notify`: tell people about calls by chat, mail or push, through Apprise."""

import asyncio
import logging
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Annotated, Any, ClassVar
from zoneinfo import ZoneInfo

from apprise import Apprise, AppriseAsset, AppriseResult, NotifyFormat
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo

from offhook import (
    CALLBACKS,
    CALLS,
    Call,
    CallEvent,
    Context,
    EventType,
    Handler,
    Party,
    PermanentError,
    TemporaryError,
)
from offhook.testing import sample_call, sample_event, sample_events
from workers.handlers.templates import fill
from workers.handlers.time_zone import TimeZone

RING = 5  # seconds from one ring to the next, in most of Europe

_HOURS = re.compile(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d")
# Apprise does not report why a target failed, but its log has the status.
_STATUS = re.compile(r"\berror=(\d{3})\b")


def _lines(value: Any) -> Any:
    """Split a text with one URL per line, such as the file that `urls_file` names."""
    return value.split() if isinstance(value, str) else value


def _check_urls(value: list[SecretStr]) -> list[SecretStr]:
    for number, url in enumerate(value, start=1):
        if not _is_supported(url):
            raise ValueError(
                f"Apprise does not understand URL {number} of {len(value)}; "
                "how to write the URL of each service: https://appriseit.com/services/"
            )
    return value


def _is_supported(url: SecretStr) -> bool:
    log = logging.getLogger("apprise")
    log.disabled = True  # it quotes a URL that it does not support, secrets included
    try:
        return Apprise().add(url.get_secret_value())
    finally:
        log.disabled = False


def _check_template(value: str, option: ValidationInfo) -> str:
    raw = sample_events("raw")
    # Dialects name the PBX's parameters differently, so every sample has them.
    of_calls = [sample_event(type_, parameters=raw[0].parameters) for type_ in CALLS]
    try:
        for event in (*raw, *of_calls):
            _fill(option.field_name or "", value, event, event.summary or sample_call())
    except PermanentError as error:
        raise ValueError(str(error)) from error
    return value


def _check_hours(value: str) -> str:
    if not _HOURS.fullmatch(value):
        raise ValueError("must be two times of day, such as 22:00-07:00")
    return value


_Template = Annotated[str, AfterValidator(_check_template)]


@dataclass(frozen=True)
class Notify(Handler):
    """Notify people of missed calls and other events through over 100 services (Apprise)."""

    events: ClassVar = (EventType.MISSED_CALL,)

    urls: Annotated[
        list[SecretStr],
        BeforeValidator(_lines),
        Field(min_length=1, description="the targets as Apprise URLs; best only one"),
        AfterValidator(_check_urls),
    ]
    title: Annotated[_Template, Field(description="the title, a Jinja template")] = (
        "{{ event.type }} {{ event.extension }}"
    )
    body: Annotated[
        _Template, Field(description="the text, a Jinja template; an empty text is not sent")
    ] = (
        "{% if event.parameters.text is defined %}{{ event.parameters.text }}"
        "{% else %}{{ caller }} → {{ called }}"
        "{% if event.summary and call.outcome %} ({{ call.outcome }})"
        "{% elif event.status %} ({{ event.status }}){% endif %}{% endif %}"
    )
    vip: Annotated[
        tuple[str, ...],
        Field(description="of call-started, only these callers; * and ? are wildcards"),
    ] = ()
    rings: Annotated[
        int | None,
        Field(
            ge=1,
            le=20,
            description="of call-started, only calls unanswered after this many rings of 5 s",
        ),
    ] = None
    quiet: Annotated[
        str | None,
        AfterValidator(lambda value: value and _check_hours(value)),
        Field(description="hours without notifications, such as 22:00-07:00"),
    ] = None
    zone: Annotated[
        TimeZone | None,
        Field(description="the time zone of these hours, such as Europe/London; the machine's"),
    ] = None

    async def handle(self, event: CallEvent, context: Context) -> None:
        if event.type is EventType.CALL_STARTED and not await self._is_wanted(event, context):
            return
        if self._is_quiet(event.received):
            return
        call = await context.call() if event.summary or event.type in CALLBACKS else None
        title, body = self._text(event, call)
        if not body:
            return
        # New objects each time: Apprise lets each wait seconds between two messages.
        with await _apprise(self.urls).async_notify(
            title=title, body=body, body_format=NotifyFormat.TEXT
        ) as result:
            if not result:
                raise TemporaryError(_sentence(result))

    def preview(self, event: CallEvent) -> str:
        """Return the notification that an event would send."""
        title, body = self._text(event, event.summary or sample_call())
        return f"{title}\n{body}" if body else "(nothing to send: the text is empty)"

    def _text(self, event: CallEvent, call: Call | None) -> tuple[str, str]:
        title = " ".join(_fill("title", self.title, event, call).split())
        return title, _fill("body", self.body, event, call).strip()

    async def _is_wanted(self, event: CallEvent, context: Context) -> bool:
        """Return whether to notify of a call that has started. Waits for `rings`."""
        if not self.vip and self.rings is None:
            return True
        numbers = filter(None, (event.caller.number, event.caller.e164))
        if any(fnmatchcase(number, vip) for number in numbers for vip in self.vip):
            return True
        if self.rings is None:
            return False
        rung = event.received + timedelta(seconds=self.rings * RING)
        await asyncio.sleep((rung - datetime.now(UTC)).total_seconds())
        call = await context.call(latest=True)
        return call.answered_by is None and call.closed_by is None

    def _is_quiet(self, moment: datetime) -> bool:
        if self.quiet is None:
            return False
        begin, _, end = self.quiet.partition("-")
        now = f"{moment.astimezone(ZoneInfo(self.zone) if self.zone else None):%H:%M}"
        return begin <= now < end if begin <= end else now >= begin or now < end


def _apprise(urls: list[SecretStr]) -> Apprise:
    apprise = Apprise(asset=AppriseAsset(app_id="Offhook", app_desc="Offhook", app_url=""))
    for url in urls:
        apprise.add(url.get_secret_value())
    return apprise


def _fill(option: str, template: str, event: CallEvent, call: Call | None) -> str:
    names = {"caller": _name(event.caller), "called": _name(event.called)}
    return fill(option, template, _text, event=event, call=call, **names)


def _text(value: Any) -> Any:
    return "" if value is None else value


def _name(party: Party) -> str:
    number = party.number or party.extension or party.did or "unknown"
    return f"{party.name} ({number})" if party.name else number


def _sentence(result: AppriseResult) -> str:
    """Name the services that failed, without their URLs."""
    failed = [target for target in result.results if not target]
    named = []
    for target in failed:
        statuses = [found[1] for entry in target.logs() if (found := _STATUS.search(str(entry)))]
        named.append(f"{target.name} ({statuses[-1]})" if statuses else target.name)
    return (
        f"{len(failed)} of {len(result.results)} targets did not accept the notification: "
        f"{', '.join(named)}; see the worker's log"
    )
