"""Tell people about calls: chat channels, mail, push; whatever Apprise has a URL for."""

import logging
import re
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from apprise import Apprise, AppriseAsset, AppriseResult, NotifyFormat
from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from offhook import CallEvent, Context, Handler, Party, PermanentError, TemporaryError
from offhook.testing import sample_events

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
    """A template that every type of event can fill."""
    try:
        for event in sample_events():
            _fill(_template(value), event)
    except TemplateError as error:
        raise ValueError(f"is not a template that an event can fill: {error}") from error
    return value


_Template = Annotated[str, AfterValidator(_is_template)]


@dataclass(frozen=True)
class Notify(Handler):
    """Notify people of every event, by the services that Apprise knows (over 100)."""

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
    ] = "{{ caller }} → {{ called }}{% if event.status %} ({{ event.status }}){% endif %}"

    async def handle(self, event: CallEvent, context: Context) -> None:
        try:
            title = " ".join(_fill(_template(self.title), event).split())
            body = _fill(_template(self.body), event).strip()
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


def _apprise(urls: list[SecretStr]) -> Apprise:
    apprise = Apprise(asset=AppriseAsset(app_id="Offhook", app_desc="Offhook", app_url=""))
    for url in urls:
        apprise.add(url.get_secret_value())
    return apprise


def _fill(template: Template, event: CallEvent) -> str:
    return template.render(event=event, caller=_name(event.caller), called=_name(event.called))


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
