"""`Webhook`: send events as HTTP requests, signed (Standard Webhooks) or as CloudEvents."""

import json
import re
from base64 import b64decode
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape as in_markup
from html.parser import HTMLParser
from typing import Annotated, Any, Literal
from urllib.parse import quote_plus, urlsplit

import msgspec
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from pydantic import AfterValidator, Field, SecretStr, ValidationInfo
from standardwebhooks import Webhook as Signer

from offhook import CallEvent, Context, Handler, PermanentError
from offhook.http import is_private
from offhook.testing import sample_events
from workers.handlers.cloud_event import attributes
from workers.handlers.templates import Escape, fill, in_json

_encode = msgspec.json.encode

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OURS = re.compile(r"(webhook-.*|ce-.*|content-type|content-length|host)", re.IGNORECASE)
# What XML does not allow, however it is escaped.
_CONTROL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Texts that a caller might choose to end a string, to begin a value, or to add an attribute.
_HOSTILE = ("x", '"', "'", "\\", "\n", "1", "null", "[]", '"},{"', "x y=z", "</x><y>", "<!--")
_MEDIA_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+(; ?[\w-]+=[\w.-]+)*", re.ASCII)


def _check_url(value: SecretStr) -> SecretStr:
    parts = urlsplit(value.get_secret_value())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must begin with http:// or https:// and name a host")
    return value


def _check_secret(value: SecretStr | None) -> SecretStr | None:
    if value is None:
        return None
    encoded = value.get_secret_value().removeprefix("whsec_")
    try:
        size = len(b64decode(encoded + "=" * (-len(encoded) % 4), validate=True))
    except ValueError:  # its message may quote the secret
        size = 0
    if encoded == value.get_secret_value() or not 24 <= size <= 64:
        raise ValueError(
            "must be whsec_ and the base64 of 24 to 64 random bytes; "
            'make one with: echo "whsec_$(openssl rand -base64 32)"'
        )
    return value


def _check_headers(value: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name, content in value.items():
        if not _HEADER.fullmatch(name) or not content.get_secret_value().isprintable():
            raise ValueError(f"{name!r} is not a header name, or its value has several lines")
        if _OURS.fullmatch(name):
            raise ValueError(f"{name!r} is set by the handler: leave it out")
    return value


def _check_media_type(value: str) -> str:
    if not _MEDIA_TYPE.fullmatch(value):
        raise ValueError("must be a media type, such as application/json")
    return value


def _check_body(value: str | None, others: ValidationInfo) -> str | None:
    if value is None or "content_type" not in others.data:
        return value
    problem: PermanentError | None = None
    fits = False
    for group in ("raw", "calls", "extensions"):
        for event in sample_events(group):
            try:
                _fill(value, event, others.data["content_type"])
            except PermanentError as error:
                problem = problem or error
            else:
                fits = True
                _check_hostile(value, event, others.data["content_type"])
    if not fits:
        raise ValueError(f"fits no event type: {problem}")
    return value


def _check_hostile(template: str, event: CallEvent, content_type: str) -> None:
    """Check that no text which a caller chooses can change the structure of the body."""
    plain: Any = None
    for text in _HOSTILE:
        try:
            structure = _structure(_render(template, event, content_type, text), content_type)
        except ValueError:
            structure = None
        plain = structure if plain is None else plain
        if structure is None or structure != plain:
            raise ValueError(
                f"a caller could change the body, with a text such as {text!r}: put the {{{{ }}}} "
                "in quotes, or in JSON pass the value through | tojson"
            )


def _check_private(value: bool, others: ValidationInfo) -> bool:
    if not value and "url" in others.data:
        host = urlsplit(others.data["url"].get_secret_value()).hostname
        if host and is_private(host):
            raise ValueError(
                f"must be true for {host}: it is this machine, or in a private network"
            )
    return value


_Secret = Annotated[SecretStr | None, AfterValidator(_check_secret)]


@dataclass(frozen=True)
class Webhook(Handler):
    """POST every event as JSON to a URL, signed (Standard Webhooks) if there is a secret."""

    url: Annotated[
        SecretStr, AfterValidator(_check_url), Field(description="the URL to send the events to")
    ]
    secret: Annotated[
        _Secret,
        Field(description="the key that signs requests: whsec_ and 24 to 64 bytes in base64"),
    ] = None
    previous_secret: Annotated[
        _Secret,
        Field(description="a second key, while the target changes from this one to `secret`"),
    ] = None
    cloudevents: Annotated[
        Literal["off", "structured", "binary"],
        Field(description="send a CloudEvent 1.0, structured (in the body) or binary (in headers)"),
    ] = "off"
    content_type: Annotated[
        str, AfterValidator(_check_media_type), Field(description="the media type of the body")
    ] = "application/json"
    body: Annotated[
        str | None,
        AfterValidator(_check_body),
        Field(description="a Jinja template of the body; the event as JSON if not set"),
    ] = None
    headers: Annotated[
        dict[str, SecretStr],
        AfterValidator(_check_headers),
        Field(description="more headers for every request, such as Authorization"),
    ] = field(default_factory=dict)
    timeout: Annotated[float, Field(gt=0, le=300, description="seconds to wait for a response")] = (
        10.0
    )
    private_networks: Annotated[
        bool,
        AfterValidator(_check_private),
        Field(
            validate_default=True,
            description="allow a URL of this machine or in a private network",
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
        """The content headers and the body."""
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
        message = make(CloudEvent(attributes(event, self.content_type), data))
        return dict(message.headers), message.body

    def _signed(self, id: str, body: bytes) -> dict[str, str]:  # noqa: A002 - the standard's word
        """The headers of Standard Webhooks, with the event's id and the time of this attempt."""
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
    return _kind(content_type) == "json"


def _kind(content_type: str) -> str | None:
    """The syntax of a media type; None if values need no escaping in it."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "application/json" or media_type.endswith("+json"):
        return "json"
    if media_type in ("application/xml", "text/xml", "text/html") or media_type.endswith("+xml"):
        return "markup"
    return "form" if media_type == "application/x-www-form-urlencoded" else None


def _in_markup(value: Any) -> str:
    """Escape a value for XML and HTML, which know no other control characters than these."""
    return in_markup(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", _text(value)))


def _in_form(value: Any) -> str:
    return quote_plus(_text(value), errors="replace")


def _text(value: Any) -> str:
    return "" if value is None else str(value)


_ESCAPES: dict[str | None, Escape] = {
    "json": in_json,
    "markup": _in_markup,
    "form": _in_form,
    None: str,
}


def _fill(template: str, event: CallEvent, content_type: str) -> str:
    """Render the body. Raises PermanentError when the event does not fit the template."""
    text = _render(template, event, content_type)
    if _is_json(content_type):
        try:
            json.loads(text)
        except ValueError as error:
            raise PermanentError(
                f"the template in body does not give JSON ({error}): pass values through | tojson"
            ) from error
    return text


def _render(template: str, event: CallEvent, content_type: str, stand_in: str | None = None) -> str:
    escape = _ESCAPES[_kind(content_type)]
    return fill("body", template, escape, stand_in, event=event, call=event.summary)


def _structure(text: str, content_type: str) -> Any:
    """A body without its texts; only JSON and markup have a structure that needs a check.

    Raises:
        ValueError: it is not valid JSON.
    """
    match _kind(content_type):
        case "json":
            return _types(json.loads(text, object_pairs_hook=list))
        case "markup":
            parser = _Tags()
            parser.feed(text)
            return parser.found
    return ()


def _types(value: Any) -> Any:
    """The types of a JSON value, whose objects are lists of pairs."""
    return [_types(item) for item in value] if isinstance(value, list | tuple) else type(value)


class _Tags(HTMLParser):
    """The tags of a text in XML or HTML, each with the names of its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, ...]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, *(name for name, _ in attrs)))
