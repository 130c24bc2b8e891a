"""The token that ends a callback URL: is this URL one of ours?

A PBX signs nothing, so the URL itself must prove that it was made here. The token is an HMAC over
the names that stand before it; checking one needs no look-up.
"""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from urllib.parse import quote

PREFIX = "/callback"
_BYTES = 18  # 144 bits, 24 characters


def make_token(secret: str, pbx: str, extension: str, event_type: str) -> str:
    """The token of one callback URL, 24 characters of A-Z, a-z, 0-9, `-` and `_`."""
    # NUL cannot stand in a URL path's name: no two triples make the same message.
    message = "\0".join((pbx, extension, event_type)).encode("utf-8", "surrogateescape")
    digest = hmac.digest(secret.encode(), message, hashlib.sha256)
    return urlsafe_b64encode(digest[:_BYTES]).decode()


def is_valid(secrets: Sequence[str], token: str, pbx: str, extension: str, event_type: str) -> bool:
    """Was the token made with one of these secrets? Takes the same time whichever it is."""
    given = token.encode("utf-8", "surrogateescape")
    valid = False
    for secret in secrets:
        expected = make_token(secret, pbx, extension, event_type).encode()
        valid |= hmac.compare_digest(expected, given)
    return valid


def callback_url(public_url: str, secret: str, pbx: str, extension: str, event_type: str) -> str:
    """The whole URL to register on the PBX. It is a secret: never log it."""
    token = make_token(secret, pbx, extension, event_type)
    names = "/".join(quote(name, safe="*") for name in (pbx, extension, event_type))
    return f"{public_url.rstrip('/')}{PREFIX}/{names}/{token}"
