"""Access tokens: get them, share them between processes, renew them.

Sources: VoipNow wiki, Authentication and Obtain Authorization (v3); 4PSA's own client
(mcp-voipnow) for the form fields; RFC 6749 for the rest.
"""

import asyncio
import fcntl
import hashlib
import logging
import os
import re
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TypeGuard

import msgspec

from unifiedapi.errors import ApiError, InvalidRequest, OAuthError, UnexpectedAnswer, class_of
from unifiedapi.transport import ApiResponse, Transport

log = logging.getLogger("unifiedapi")

TOKEN_PATH = "/oauth/token.php"  # noqa: S105 - a path, not a secret
RENEW_EARLY = 300.0  # seconds before the token expires, as in 4PSA's client
_HEADER_SAFE = re.compile(r"[\x21-\x7e]+")


class Auth(Protocol):
    """Supplies the tokens for requests."""

    async def token(self, transport: Transport) -> str:
        """Return the token for the next request."""
        ...

    async def renew(self, transport: Transport, refused: str) -> str | None:
        """Return a new token after the PBX refused this one, or None if that is not possible."""
        ...


class BearerToken:
    """A fixed token, which is never renewed."""

    def __init__(self, token: str) -> None:
        self._token = token.strip()
        if not _HEADER_SAFE.fullmatch(self._token):
            raise InvalidRequest("the token is empty, or has characters that a header cannot hold")

    async def token(self, transport: Transport) -> str:
        return self._token

    async def renew(self, transport: Transport, refused: str) -> str | None:
        return None


class Token(msgspec.Struct, frozen=True):
    """An access token.

    Attributes:
        renew_at: Unix time; None to renew the token only when the PBX refuses it.
    """

    access_token: str
    renew_at: float | None = None
    refresh_token: str | None = None

    def __repr__(self) -> str:
        return f"Token(***, renew_at={self.renew_at})"

    def __rich_repr__(self) -> Any:
        yield "renew_at", self.renew_at


class TokenStore(Protocol):
    """Shares an app's token between processes. `key` stands for PBX and app; it is not secret."""

    async def load(self, key: str) -> Token | None:
        """Return the saved token, or None."""
        ...

    async def save(self, key: str, token: Token) -> None:
        """Replace the saved token."""
        ...

    def lock(self, key: str) -> AbstractAsyncContextManager[Any]:
        """Let one process get a token while the others wait."""
        ...


class FileTokenStore:
    """Keeps tokens in files that only this user can read.

    If it cannot write files, every process gets its own token.

    Args:
        directory: created if missing; by default `unifiedapi` in the user's cache directory.
    """

    def __init__(self, directory: str | Path | None = None) -> None:
        self._directory = Path(directory) if directory else _cache_directory()

    async def load(self, key: str) -> Token | None:
        """Return the saved token. Ignore a damaged file, and one that other users could access."""
        try:
            with self._path(key).open("rb") as file:
                facts = os.fstat(file.fileno())
                if facts.st_mode & 0o077 or facts.st_uid != os.geteuid():
                    return None
                return msgspec.json.decode(file.read(), type=Token)
        except (OSError, msgspec.MsgspecError):
            return None

    async def save(self, key: str, token: Token) -> None:
        try:
            _write(self._path(key), msgspec.json.encode(token))
        except OSError as error:
            log.warning("cannot save the token for other processes: %s", error)

    @asynccontextmanager
    async def lock(self, key: str) -> AsyncIterator[None]:
        """Lock a file. The kernel releases the lock even if the process is killed."""
        with ExitStack() as stack:
            with suppress(OSError):
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                file = stack.enter_context(self._path(key).with_suffix(".lock").open("a"))
                while not _locked(file.fileno()):
                    await asyncio.sleep(0.05)
            yield

    def _path(self, key: str) -> Path:
        return self._directory / f"{key}.json"


def _write(path: Path, data: bytes) -> None:
    # mkstemp creates the file with mode 0600; the rename replaces the old token atomically.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".new")
    new = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


class ClientCredentials:
    """Gets tokens for an app that is marked as trusted on the PBX.

    Args:
        client_id: the app's key.
        client_secret: the app's secret.
        store: shares the token between processes; by default files in the user's cache directory.
    """

    def __init__(self, client_id: str, client_secret: str, store: TokenStore | None = None) -> None:
        self._client_id = client_id
        self._client_secret = client_secret
        self._store: TokenStore = store or FileTokenStore()
        self._token: Token | None = None
        self._lock = asyncio.Lock()

    async def token(self, transport: Transport) -> str:
        return (await self._usable(transport, refused=None)).access_token

    async def renew(self, transport: Transport, refused: str) -> str | None:
        return (await self._usable(transport, refused)).access_token

    async def _usable(self, transport: Transport, refused: str | None) -> Token:
        """Return the current token, one that another task or process got, or a new one."""
        async with self._lock:
            if _is_usable(self._token, refused):
                return self._token
            name = f"{transport.base_url}\n{self._client_id}"
            key = hashlib.sha256(name.encode()).hexdigest()[:32]
            async with self._store.lock(key):
                stored = await self._store.load(key)
                if not _is_usable(stored, refused):
                    stored = await self._get(transport, stored)
                    await self._store.save(key, stored)
            self._token = stored
            return stored

    async def _get(self, transport: Transport, old: Token | None) -> Token:
        if old is not None and old.refresh_token is not None:
            try:
                return await self._ask(
                    transport, grant_type="refresh_token", refresh_token=old.refresh_token
                )
            except OAuthError as error:
                log.info("cannot refresh the token (%s); asking for a new one", error.code)
        return await self._ask(transport, grant_type="client_credentials")

    async def _ask(self, transport: Transport, **grant: str) -> Token:
        asked_at = time.time()
        response = await transport.request(
            "POST",
            TOKEN_PATH,
            form={
                **grant,
                "client_id": self._client_id,
                "client_secret": self._client_secret,
                "type": "unifiedapi",
                "redirect_uri": transport.base_url + TOKEN_PATH,  # 4PSA's clients send it too
            },
            # A refresh token may be valid only once. An unused access token does no harm.
            idempotent=grant["grant_type"] == "client_credentials",
        )
        return _read(response, asked_at, (self._client_secret, grant.get("refresh_token")))


class _TokenResponse(msgspec.Struct):
    access_token: str
    expires_in: float | None = None
    refresh_token: str | None = None


def _read(response: ApiResponse, asked_at: float, secrets: tuple[str | None, ...]) -> Token:
    """Read the token. Errors never contain the body, which may hold a token."""
    try:
        data = response.json()
        if response.status != 200:
            raise _error(response.status, data, secrets)
        issued = msgspec.convert(data, _TokenResponse, strict=False)
    except (UnexpectedAnswer, msgspec.ValidationError):
        message = "the response to the token request is not valid"
        raise UnexpectedAnswer(message, status=response.status) from None
    if not _HEADER_SAFE.fullmatch(issued.access_token):
        raise UnexpectedAnswer("the PBX's token has characters that a header cannot hold")
    renew_at = None
    if issued.expires_in is not None:
        renew_at = asked_at + max(issued.expires_in - RENEW_EARLY, issued.expires_in / 2)
    return Token(issued.access_token, renew_at, issued.refresh_token)


def _error(status: int, data: object, secrets: tuple[str | None, ...]) -> ApiError:
    data = data if isinstance(data, dict) else {}
    code, message = str(data.get("error", "")), str(data.get("error_description", ""))
    for secret in filter(None, secrets):
        message = message.replace(secret, "***")
    return class_of(code, OAuthError)(code, status, message)


def _is_usable(token: Token | None, refused: str | None) -> TypeGuard[Token]:
    if token is None or token.access_token == refused:
        return False
    return token.renew_at is None or time.time() < token.renew_at


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "unifiedapi"
