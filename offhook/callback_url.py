"""Callback URLs. Each ends in a token that proves that Offhook made it.

PBXs do not sign their callbacks, so the URL itself must be the proof. The token is an HMAC over
the names before it, so verification needs no database. Once a URL was revoked, the token of the
next one ends in its version (`.1`), which the HMAC covers.
"""

import fcntl
import hashlib
import hmac
import json
import os
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

from offhook.errors import ConfigError

PREFIX = "/callback"
SELF_TEST = "self-test"  # replaces the event type: does the receiver use this secret?
_BYTES = 18  # 144 bits, 24 characters
_VERSION = r"(?:\.[1-9][0-9]{0,8})?"
_TOKEN = re.compile(rf"[A-Za-z0-9_-]{{24}}{_VERSION}")
_SHAPE = re.compile(
    rf"(https?://\S+?){PREFIX}/([^/\s]+)/([^/\s]+)/([^/\s]+)/([A-Za-z0-9_-]{{24}}{_VERSION})"
)


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


def make_token(secret: str, pbx: str, extension: str, event_type: str, version: int = 0) -> str:
    """The token of a callback URL: 24 characters of A-Z, a-z, 0-9, `-` and `_`, and its version."""
    # Unambiguous: no name has a NUL.
    names = [pbx, extension, event_type, *([str(version)] if version else [])]
    message = "\0".join(names).encode("utf-8", "surrogatepass")
    digest = hmac.digest(secret.encode(), message, hashlib.sha256)
    token = urlsafe_b64encode(digest[:_BYTES]).decode()
    return f"{token}.{version}" if version else token


def token_version(token: str) -> int:
    """The version of a token; 0 if it has none."""
    return int(token.partition(".")[2] or 0) if _TOKEN.fullmatch(token) else 0


def is_valid(secrets: Sequence[str], token: str, pbx: str, extension: str, event_type: str) -> bool:
    """Return whether the token was made with one of these secrets, in constant time."""
    if "\0" in f"{pbx}{extension}{event_type}":
        return False
    version = token_version(token)
    given = token.encode("utf-8", "surrogatepass")
    valid = False
    for secret in secrets:
        expected = make_token(secret, pbx, extension, event_type, version).encode()
        valid |= hmac.compare_digest(expected, given)
    return valid


def callback_url(
    public_url: str, secret: str, pbx: str, extension: str, event_type: str, version: int = 0
) -> str:
    """The URL to register on the PBX. It is a secret: never log it.

    Args:
        version: see `RevokedUrls`.

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
    return f"{public_url.rstrip('/')}{PREFIX}/{path}/{make_token(secret, *names, version)}"


def read_callback_url(url: str) -> CallbackUrl | None:
    """The decoded parts of a callback URL; None if it does not look like one."""
    match = _SHAPE.fullmatch(url)
    if match is None:
        return None
    base, pbx, extension, event_type, token = match.groups()
    return CallbackUrl(base, unquote(pbx), unquote(extension), unquote(event_type), token)


@dataclass(frozen=True)
class RevokedUrls:
    """The lowest version that the token of a URL must have."""

    versions: dict[str, int] = field(default_factory=dict)

    def version(self, pbx: str, extension: str, event_type: str) -> int:
        """The version of a new URL; those with a lower one are revoked."""
        return self.versions.get(f"{pbx}/{extension}/{event_type}", 0)


def revoked_urls(path: Path) -> RevokedUrls:
    """Read the file of revoked URLs, which need not exist.

    It is a file because receivers check callbacks while Redis is away. A token names its version,
    so a receiver with an older file refuses no new URL.

    Raises:
        ConfigError: it cannot be read, or is damaged.
    """
    try:
        versions = json.loads(path.read_bytes())
    except FileNotFoundError:
        return RevokedUrls()
    except OSError as error:
        raise ConfigError(f"revoked: cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"revoked: {path} is damaged: {error}") from error
    if not isinstance(versions, dict) or not all(type(n) is int for n in versions.values()):
        raise ConfigError(f"revoked: {path} is damaged: it must map URLs to numbers")
    return RevokedUrls(versions)


def revoke(path: Path, urls: Iterable[tuple[str, str, str]]) -> RevokedUrls:
    """Revoke the current URLs of these PBXs, extensions and event types.

    Raises:
        ConfigError: the file cannot be read or written.
    """
    try:
        folder = os.open(path.parent, os.O_RDONLY)
    except OSError as error:
        raise ConfigError(f"revoked: cannot write {path}: {error.strerror}") from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # two commands must not undo each other's work
        revoked = revoked_urls(path)
        versions = revoked.versions | {"/".join(url): revoked.version(*url) + 1 for url in urls}
        new = path.with_name(f"{path.name}.new")
        with new.open("w") as file:
            file.write(json.dumps(versions, ensure_ascii=False, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        new.chmod(0o644)  # the receiver may run as another user; there is no secret in it
        new.replace(path)
        os.fsync(folder)
    except OSError as error:
        raise ConfigError(f"revoked: cannot write {path}: {error.strerror}") from error
    finally:
        os.close(folder)
    return RevokedUrls(versions)
