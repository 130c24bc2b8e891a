"""Passwords and API tokens: the hashes in the configuration, and whether a secret fits one."""

import asyncio
import hashlib
import secrets
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argon2 import PasswordHasher

_AT_ONCE = 2  # each takes 64 MiB

PREFIX = "ofh_"  # of API tokens, so that scanners for leaked secrets know them


def hash_password(password: str) -> str:
    """The hash of a password, for the configuration."""
    return _hasher().hash(password)


class PasswordCheck:
    """Checks passwords, a few at a time."""

    def __init__(self) -> None:
        self._running = asyncio.Semaphore(_AT_ONCE)

    async def fits(self, hashed: str | None, password: str) -> bool:
        """Return whether it is the password of this hash.

        Args:
            hashed: None: there is no such user, which takes as long to find out.
        """
        async with self._running:
            same = await asyncio.to_thread(_verify, hashed, password)
        return same and hashed is not None


def _verify(hashed: str | None, password: str) -> bool:
    from argon2.exceptions import InvalidHashError, VerificationError

    try:
        return _hasher().verify(hashed or _of_no_user(), password)
    except (VerificationError, InvalidHashError):
        return False


@cache
def _hasher() -> "PasswordHasher":
    # Here, because argon2 is not part of a plain installation, whose commands make tokens and help.
    from argon2 import PasswordHasher

    return PasswordHasher()  # RFC 9106's low-memory profile: 64 MiB, 3 passes


@cache
def _of_no_user() -> str:
    return hash_password(secrets.token_hex())


def make_token() -> tuple[str, str]:
    """A new API token, and its hash for the configuration."""
    token = f"{PREFIX}{secrets.token_urlsafe(32)}"
    return token, hash_token(token)


def hash_token(token: str) -> str:
    """The hash of an API token. It has 256 random bits, so no slow hash is needed."""
    return f"sha256:{hashlib.sha256(token.encode('utf-8', 'surrogatepass')).hexdigest()}"
