"""Callback URLs. Each ends in a token that proves that Offhook made it.

PBXs do not sign their callbacks, so the URL itself must be the proof. The token is an HMAC over
the names before it, so verification needs no database.
"""

import hashlib
import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from offhook.errors import ConfigError

PREFIX = "/callback"
SELF_TEST = "self-test"  # replaces the event type: does the receiver use this secret?
_BYTES = 18  # 144 bits, 24 characters
_SHAPE = re.compile(rf"(https?://\S+?){PREFIX}/([^/\s]+)/([^/\s]+)/([^/\s]+)/([A-Za-z0-9_-]{{24}})")


@dataclass(frozen=True)
class CallbackUrl:
    """The parts of a URL that looks like a callback URL. `base` comes before `/callback`."""

    base: str
    pbx: str
    extension: str
    event_type: str
    token: str = field(repr=False)

    def made_with(self, secrets: Sequence[str]) -> bool:
        """Return whether it was made with one of these secrets."""
        return is_valid(secrets, self.token, self.pbx, self.extension, self.event_type)


def make_token(secret: str, pbx: str, extension: str, event_type: str) -> str:
    """The token of a callback URL: 24 characters of A-Z, a-z, 0-9, `-` and `_`."""
    # Unambiguous: `callback_url` refuses names with a NUL.
    message = "\0".join((pbx, extension, event_type)).encode("utf-8", "surrogatepass")
    digest = hmac.digest(secret.encode(), message, hashlib.sha256)
    return urlsafe_b64encode(digest[:_BYTES]).decode()


def is_valid(secrets: Sequence[str], token: str, pbx: str, extension: str, event_type: str) -> bool:
    """Return whether the token was made with one of these secrets, in constant time."""
    given = token.encode("utf-8", "surrogatepass")
    valid = False
    for secret in secrets:
        expected = make_token(secret, pbx, extension, event_type).encode()
        valid |= hmac.compare_digest(expected, given)
    return valid


def callback_url(public_url: str, secret: str, pbx: str, extension: str, event_type: str) -> str:
    """The URL to register on the PBX. It is a secret: never log it.

    Raises:
        ConfigError: one of the names would not survive in a URL's path.
    """
    names = (pbx, extension, event_type)
    for name in names:
        if not name.isprintable() or "/" in name or name in ("", ".", ".."):
            raise ConfigError(
                f"{name!r} cannot be part of a callback URL: use letters, digits, * - _ and ."
            )
    path = "/".join(quote(name, safe="*") for name in names)
    return f"{public_url.rstrip('/')}{PREFIX}/{path}/{make_token(secret, *names)}"


def read_callback_url(url: str) -> CallbackUrl | None:
    """The decoded parts of a callback URL; None if it does not look like one."""
    match = _SHAPE.fullmatch(url)
    if match is None:
        return None
    base, pbx, extension, event_type, token = match.groups()
    return CallbackUrl(base, unquote(pbx), unquote(extension), unquote(event_type), token)
