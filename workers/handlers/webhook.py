"""Every event as an HTTP request of our own: signed after Standard Webhooks, maybe a CloudEvent."""

import json
import re
from base64 import b64decode
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Literal
from urllib.parse import quote, urlsplit

from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from pydantic import AfterValidator, Field, SecretStr
from standardwebhooks import Webhook as Signer

from offhook import CallEvent, Context, Handler

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OURS = re.compile(r"(webhook-.*|ce-.*|content-type|content-length|host)", re.IGNORECASE)


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
    headers: Annotated[
        dict[str, SecretStr],
        AfterValidator(_are_headers),
        Field(description="further headers of every request, such as Authorization"),
    ] = field(default_factory=dict)
    timeout: Annotated[
        float, Field(gt=0, le=300, description="seconds that the other side has for its answer")
    ] = 10.0

    async def handle(self, event: CallEvent, context: Context) -> None:
        headers, body = self._message(event)
        headers |= self._signed(event.id, body)
        headers |= {name: value.get_secret_value() for name, value in self.headers.items()}
        answer = await context.http.post(
            self.url.get_secret_value(), data=body, headers=headers, timeout=self.timeout
        )
        context.check(answer)

    def _message(self, event: CallEvent) -> tuple[dict[str, str], bytes]:
        """The headers and the body that say what happened."""
        if self.cloudevents == "off":
            body = json.dumps(event.as_dict(), ensure_ascii=False, separators=(",", ":"))
            return {"content-type": "application/json"}, body.encode()
        make = to_structured_event if self.cloudevents == "structured" else to_binary_event
        message = make(_cloud_event(event))
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


def _cloud_event(event: CallEvent) -> CloudEvent:
    pbx, extension = quote(event.pbx, safe=""), quote(event.extension, safe="*")
    return CloudEvent(
        {
            "id": event.id,
            "source": f"/pbx/{pbx}/extensions/{extension}",
            "type": f"offhook.call.{event.type}",
            "subject": event.call_id,
            "time": event.received,
            "datacontenttype": "application/json",
        },
        event.as_dict(),
    )
