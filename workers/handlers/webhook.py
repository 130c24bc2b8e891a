"""Every event as an HTTP request of our own: signed after Standard Webhooks, maybe a CloudEvent."""

import json
import re
from base64 import b64decode
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlsplit

import msgspec
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import AfterValidator, Field, SecretStr, ValidationInfo
from standardwebhooks import Webhook as Signer

from offhook import CallEvent, Context, Handler, PermanentError
from offhook.http import is_private
from offhook.testing import sample_events

_encode = msgspec.json.encode

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OURS = re.compile(r"(webhook-.*|ce-.*|content-type|content-length|host)", re.IGNORECASE)
_MEDIA_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+(; ?[\w-]+=[\w.-]+)*", re.ASCII)

_environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
_environment.policies["json.dumps_function"] = lambda value, **_: _encode(value).decode()
_template = cache(_environment.from_string)


def _is_url(value: SecretStr) -> SecretStr:
    parts = urlsplit(value.get_secret_value())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must begin with http:// or https:// and name a host")
    return value


def _is_secret(value: SecretStr | None) -> SecretStr | None:
    if value is None:
        return None
    encoded = value.get_secret_value().removeprefix("whsec_")
    try:
        size = len(b64decode(encoded + "=" * (-len(encoded) % 4), validate=True))
    except ValueError:  # what it says may quote the secret
        size = 0
    if encoded == value.get_secret_value() or not 24 <= size <= 64:
        raise ValueError(
            "must be whsec_ and the base64 of 24 to 64 random bytes; "
            'make one with: echo "whsec_$(openssl rand -base64 32)"'
        )
    return value


def _are_headers(value: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name, content in value.items():
        if not _HEADER.fullmatch(name) or not content.get_secret_value().isprintable():
            raise ValueError(f"{name!r} is not a header, or its value is more than one line")
        if _OURS.fullmatch(name):
            raise ValueError(f"{name!r} is set by the handler itself; leave it out")
    return value


def _is_media_type(value: str) -> str:
    if not _MEDIA_TYPE.fullmatch(value):
        raise ValueError("must be a media type, such as application/json")
    return value


def _is_template(value: str | None, others: ValidationInfo) -> str | None:
    """A template that some type of event can fill."""
    if value is None or "content_type" not in others.data:
        return value
    problem: PermanentError | None = None
    for group in ("raw", "calls", "extensions"):
        for event in sample_events(group):
            try:
                _fill(value, event, others.data["content_type"])
            except PermanentError as error:
                problem = problem or error
            else:
                return value
    raise ValueError(f"fits no event: {problem}")


def _may_go_there(value: bool, others: ValidationInfo) -> bool:
    if not value and "url" in others.data:
        host = urlsplit(others.data["url"].get_secret_value()).hostname
        if host and is_private(host):
            raise ValueError(
                f"must be true for {host}: that is this machine, or in a private network"
            )
    return value


_Secret = Annotated[SecretStr | None, AfterValidator(_is_secret)]


@dataclass(frozen=True)
class Webhook(Handler):
    """POST every event as JSON to a URL, signed after Standard Webhooks when there is a secret."""

    url: Annotated[
        SecretStr, AfterValidator(_is_url), Field(description="where the events are sent")
    ]
    secret: Annotated[
        _Secret, Field(description="signs the requests: whsec_ and the base64 of 24 to 64 bytes")
    ] = None
    previous_secret: Annotated[
        _Secret,
        Field(description="signs them too, while the receiver changes from this one to `secret`"),
    ] = None
    cloudevents: Annotated[
        Literal["off", "structured", "binary"],
        Field(description="send a CloudEvent 1.0: all in the body, or its attributes as headers"),
    ] = "off"
    content_type: Annotated[
        str, AfterValidator(_is_media_type), Field(description="what the body is")
    ] = "application/json"
    body: Annotated[
        str | None,
        AfterValidator(_is_template),
        Field(description="what is sent instead of the event as JSON, a Jinja template"),
    ] = None
    headers: Annotated[
        dict[str, SecretStr],
        AfterValidator(_are_headers),
        Field(description="further headers of every request, such as Authorization"),
    ] = field(default_factory=dict)
    timeout: Annotated[
        float, Field(gt=0, le=300, description="seconds that the other side has for its answer")
    ] = 10.0
    private_networks: Annotated[
        bool,
        AfterValidator(_may_go_there),
        Field(
            validate_default=True,
            description="may the URL lead to this machine or into a private network?",
        ),
    ] = False

    async def handle(self, event: CallEvent, context: Context) -> None:
        headers, body = self._message(event)
        headers |= self._signed(event.id, body)
        headers |= {name: value.get_secret_value() for name, value in self.headers.items()}
        answer = await context.http.post(
            self.url.get_secret_value(),
            data=body,
            headers=headers,
            timeout=self.timeout,
            public=not self.private_networks,
        )
        context.check(answer)

    def _message(self, event: CallEvent) -> tuple[dict[str, str], bytes]:
        """The headers and the body that say what happened."""
        if self.cloudevents == "off":
            if self.body is None:
                return {"content-type": self.content_type}, _encode(event)
            text = _fill(self.body, event, self.content_type)
            return {"content-type": self.content_type}, text.encode()
        data: Any = event.as_dict()
        if self.body is not None:
            text = _fill(self.body, event, self.content_type)
            data = json.loads(text) if _is_json(self.content_type) else text
        make = to_structured_event if self.cloudevents == "structured" else to_binary_event
        message = make(_cloud_event(event, data, self.content_type))
        return dict(message.headers), message.body

    def _signed(self, id: str, body: bytes) -> dict[str, str]:  # noqa: A002 - the standard's word
        """The headers of Standard Webhooks: the id is the event's, the time that of the attempt."""
        now = datetime.now(UTC)
        headers = {"webhook-id": id, "webhook-timestamp": str(int(now.timestamp()))}
        secrets = [s.get_secret_value() for s in (self.secret, self.previous_secret) if s]
        if secrets:
            headers["webhook-signature"] = " ".join(
                Signer(secret).sign(msg_id=id, timestamp=now, data=body.decode())
                for secret in secrets
            )
        return headers


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip()
    return media_type == "application/json" or media_type.endswith("+json")


def _fill(template: str, event: CallEvent, content_type: str) -> str:
    """The template with the event in it. Raises PermanentError when they do not fit."""
    try:
        text: str = _template(template).render(event=event, call=event.summary)
        if _is_json(content_type):
            json.loads(text)
    except (TemplateError, TypeError) as error:
        raise PermanentError(f"the event does not fit the body's template: {error}") from error
    except ValueError as error:
        raise PermanentError(
            f"the body's template does not give JSON ({error}): pass values through | tojson"
        ) from error
    return text


def _cloud_event(event: CallEvent, data: Any, content_type: str) -> CloudEvent:
    pbx, extension = quote(event.pbx, safe=""), quote(event.extension, safe="*")
    return CloudEvent(
        {
            "id": event.id,
            "source": f"/pbx/{pbx}/extensions/{extension}",
            "type": f"offhook.call.{event.type}",
            "subject": event.call_id,
            "time": event.received,
            "datacontenttype": content_type,
        },
        data,
    )
