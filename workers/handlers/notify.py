"""`Notify`: tell people about calls by chat, mail or push, through Apprise."""

import asyncio
import logging
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from functools import partial
from typing import Annotated, Any, ClassVar
from zoneinfo import ZoneInfo

from apprise import Apprise, AppriseAsset, AppriseResult, NotifyBase, NotifyFormat
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
from workers.handlers.templates import Escape, fill
from workers.handlers.time_zone import TimeZone

RING = 5  # seconds from one ring to the next, in most of Europe

_HOURS = re.compile(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d")
# Apprise does not report why a target failed, but its log has the status.
_STATUS = re.compile(r"\berror=(\d{3})\b")
# These render Markdown in what Apprise considers plain text, which it therefore does not escape.
_MARKDOWN = ("discord", "fluxer", "mmost", "mmosts")
_MARKUP = re.compile(r"[\\`*_{}\[\]()<>#|~]")
# Where an invisible space undoes a mention, a URL, or a domain name.
_ACTIVE = re.compile(
    r"(?<=@)|(?<=<)(?=[!#/]|users)|(?<=:)(?=//)|(?<=[^\W\d])(?=\.\w)|(?<=\w)(?=\.[^\W\d])"
)
_INVISIBLE = "\N{ZERO WIDTH SPACE}"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


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
        # New objects each time: Apprise lets each wait seconds between two messages.
        targets = [_target(url) for url in self.urls]
        sent = [self._send(target, event, call) for target in targets]
        failed = [each for each in await asyncio.gather(*sent) if each]
        if failed:
            raise TemporaryError(
                f"{len(failed)} of {len(targets)} targets did not accept the notification: "
                f"{', '.join(failed)}; see the worker's log"
            )

    async def _send(self, target: NotifyBase, event: CallEvent, call: Call | None) -> str | None:
        """Notify one target. Return its name, with the status, if that failed."""
        title, body = self._text(event, call, target)
        if not body:
            return None
        with await _apprise(target).async_notify(
            title=title, body=body, body_format=NotifyFormat.TEXT
        ) as result:
            return None if result else _failure(result)

    def preview(self, event: CallEvent) -> str:
        """Return the notification that an event would send."""
        title, body = self._text(event, event.summary or sample_call())
        return f"{title}\n{body}" if body else "(nothing to send: the text is empty)"

    def _text(
        self, event: CallEvent, call: Call | None, target: NotifyBase | None = None
    ) -> tuple[str, str]:
        """The title and the body, escaped for a target."""
        markdown = target is not None and _is_markdown(target)
        title = _fill("title", self.title, event, call, markdown=markdown)
        if target is not None and target.resolve_format(NotifyFormat.TEXT) != NotifyFormat.TEXT:
            markdown = False  # Apprise escapes the body
        body = _fill("body", self.body, event, call, markdown=markdown)
        return " ".join(title.split()), body.strip()

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


def _asset() -> AppriseAsset:
    return AppriseAsset(app_id="Offhook", app_desc="Offhook", app_url="")


def _target(url: SecretStr) -> NotifyBase:
    target = Apprise.instantiate(url.get_secret_value(), asset=_asset())
    assert isinstance(target, NotifyBase)  # noqa: S101 - the URL was checked
    return target


def _apprise(target: NotifyBase) -> Apprise:
    apprise = Apprise(asset=target.asset)
    apprise.add(target)
    return apprise


def _is_markdown(target: NotifyBase) -> bool:
    return not {target.protocol, target.secure_protocol}.isdisjoint(_MARKDOWN)


def _fill(
    option: str, template: str, event: CallEvent, call: Call | None, *, markdown: bool = False
) -> str:
    names = {"caller": _name(event.caller), "called": _name(event.called)}
    lines = event.type is EventType.DAILY_SUMMARY
    return fill(option, template, _ESCAPES[markdown, lines], event=event, call=call, **names)


def _escape(value: Any, *, markdown: bool, lines: bool) -> str:
    """Escape a value so that it is plain text in every service.

    Args:
        lines: it is our own text, and may have several lines.
    """
    text = "" if value is None else str(value)
    text = "\n".join(_CONTROL.sub(" ", each) for each in (text.split("\n") if lines else [text]))
    text = _ACTIVE.sub(_INVISIBLE, text)
    return _MARKUP.sub(r"\\\g<0>", text) if markdown else text


_ESCAPES: dict[tuple[bool, bool], Escape] = {
    (markdown, lines): partial(_escape, markdown=markdown, lines=lines)
    for markdown in (False, True)
    for lines in (False, True)
}


def _name(party: Party) -> str:
    number = party.number or party.extension or party.did or "unknown"
    return f"{party.name} ({number})" if party.name else number


def _failure(result: AppriseResult) -> str:
    """Name the service that failed, without its URL."""
    target = result.results[0]
    statuses = [found[1] for entry in target.logs() if (found := _STATUS.search(str(entry)))]
    return f"{target.name} ({statuses[-1]})" if statuses else str(target.name)
