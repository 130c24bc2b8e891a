"""Tell people about calls: chat channels, mail, push; whatever Apprise has a URL for."""

import asyncio
import logging
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from functools import cache
from typing import Annotated, Any, ClassVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from apprise import Apprise, AppriseAsset, AppriseResult, NotifyFormat
from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

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

RING = 5  # seconds from one ring to the next, in most of Europe

_SPAN = re.compile(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d")
# Apprise tells neither why a target failed nor when to come back, but its log has the status.
_STATUS = re.compile(r"\berror=(\d{3})\b")

_environment = ImmutableSandboxedEnvironment(
    undefined=StrictUndefined,
    autoescape=False,  # what goes out is plain text
    finalize=lambda value: "" if value is None else value,
)
_template = cache(_environment.from_string)


def _lines(value: Any) -> Any:
    """One URL a line, as in a file that `urls_file` names."""
    return value.split() if isinstance(value, str) else value


def _are_understood(value: list[SecretStr]) -> list[SecretStr]:
    for number, url in enumerate(value, start=1):
        if not _is_understood(url):
            raise ValueError(
                f"Apprise does not understand URL {number} of {len(value)}; "
                "how each service is written: https://appriseit.com/services/"
            )
    return value


def _is_understood(url: SecretStr) -> bool:
    log = logging.getLogger("apprise")
    log.disabled = True  # it would quote what it does not understand, tokens and all
    try:
        return Apprise().add(url.get_secret_value())
    finally:
        log.disabled = False


def _is_template(value: str) -> str:
    """A template that every event of a call can fill."""
    raw = sample_events("raw")
    # What the PBX's parameters are called nobody can know beforehand.
    of_calls = [sample_event(type_, parameters=raw[0].parameters) for type_ in CALLS]
    try:
        for event in (*raw, *of_calls):
            _fill(_template(value), event, event.summary or sample_call())
    except TemplateError as error:
        raise ValueError(f"is not a template that an event can fill: {error}") from error
    return value


def _is_span(value: str) -> str:
    if not _SPAN.fullmatch(value):
        raise ValueError("is not two times of day, such as 22:00-07:00")
    return value


def _is_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError("is not a time zone, such as Europe/Bucharest") from error
    return value


_Template = Annotated[str, AfterValidator(_is_template)]


@dataclass(frozen=True)
class Notify(Handler):
    """Tell people of missed calls, and of what else you like, by over 100 services (Apprise)."""

    events: ClassVar = (EventType.MISSED_CALL,)

    urls: Annotated[
        list[SecretStr],
        BeforeValidator(_lines),
        Field(min_length=1, description="the targets, as Apprise writes them; best only one"),
        AfterValidator(_are_understood),
    ]
    title: Annotated[_Template, Field(description="the title, a Jinja template")] = (
        "{{ event.type }} {{ event.extension }}"
    )
    body: Annotated[
        _Template, Field(description="the text, a Jinja template; empty: nothing is sent")
    ] = (
        "{% if event.parameters.text is defined %}{{ event.parameters.text }}"
        "{% else %}{{ caller }} → {{ called }}"
        "{% if event.summary and call.outcome %} ({{ call.outcome }})"
        "{% elif event.status %} ({{ event.status }}){% endif %}{% endif %}"
    )
    vip: Annotated[
        tuple[str, ...],
        Field(description="of call-started only these callers; * and ? as wildcards"),
    ] = ()
    rings: Annotated[
        int | None,
        Field(
            ge=1,
            le=20,
            description="of call-started only what nobody has answered after so many rings of 5 s",
        ),
    ] = None
    quiet: Annotated[
        str | None,
        AfterValidator(lambda value: value and _is_span(value)),
        Field(description="hours in which nothing is sent, such as 22:00-07:00"),
    ] = None
    zone: Annotated[
        str | None,
        AfterValidator(lambda value: value and _is_zone(value)),
        Field(description="whose hours they are, such as Europe/Bucharest; the machine's"),
    ] = None

    async def handle(self, event: CallEvent, context: Context) -> None:
        if event.type is EventType.CALL_STARTED and not await self._is_wanted(event, context):
            return
        if self._is_quiet(event.received):
            return
        call = await context.call() if event.summary or event.type in CALLBACKS else None
        try:
            title, body = self._text(event, call)
        except TemplateError as error:
            raise PermanentError(f"this event does not fit the template: {error}") from error
        if not body:
            return
        # New targets each time: Apprise makes each object wait seconds between two messages.
        with await _apprise(self.urls).async_notify(
            title=title, body=body, body_format=NotifyFormat.TEXT
        ) as result:
            if not result:
                raise TemporaryError(_sentence(result))

    def preview(self, event: CallEvent) -> str:
        """What would be sent of an event."""
        title, body = self._text(event, event.summary or sample_call())
        return f"{title}\n{body}" if body else "(nothing is sent: the text is empty)"

    def _text(self, event: CallEvent, call: Call | None) -> tuple[str, str]:
        title = " ".join(_fill(_template(self.title), event, call).split())
        return title, _fill(_template(self.body), event, call).strip()

    async def _is_wanted(self, event: CallEvent, context: Context) -> bool:
        """Does a call that has begun concern somebody? That of a VIP does at once."""
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


def _fill(template: Template, event: CallEvent, call: Call | None) -> str:
    return template.render(
        event=event, call=call, caller=_name(event.caller), called=_name(event.called)
    )


def _name(party: Party) -> str:
    """How a person would call this side of a call."""
    number = party.number or party.extension or party.did or "unknown"
    return f"{party.name} ({number})" if party.name else number


def _sentence(result: AppriseResult) -> str:
    """Which services failed, without anything of their URLs."""
    failed = [target for target in result.results if not target]
    named = []
    for target in failed:
        statuses = [found[1] for entry in target.logs() if (found := _STATUS.search(str(entry)))]
        named.append(f"{target.name} ({statuses[-1]})" if statuses else target.name)
    return (
        f"{len(failed)} of {len(result.results)} targets did not take the notification: "
        f"{', '.join(named)}; the worker's log says more"
    )
