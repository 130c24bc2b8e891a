"""Tokens: get, keep for all processes, renew.

Sources: VoipNow wiki, Authentication and Obtain Authorization (v3), and 4PSA's own client
(mcp-voipnow) for the form's fields; RFC 6749 where they are silent.
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
from unifiedapi.transport import Answer, Transport

log = logging.getLogger("unifiedapi")

TOKEN_PATH = "/oauth/token.php"  # noqa: S105 - a path, no secret
RENEW_EARLY = 300.0  # seconds before its end that a token is renewed, as 4PSA's client does
_HEADER_SAFE = re.compile(r"[\x21-\x7e]+")


class Auth(Protocol):
    """What signs the client's requests."""

    async def token(self, transport: Transport) -> str:
        """The token for the next request."""
        ...

    async def renew(self, transport: Transport, refused: str) -> str | None:
        """Another token after the PBX refused this one, or None when there is no other."""
        ...


class BearerToken:
    """A token that came from elsewhere, and that nobody renews."""

    def __init__(self, token: str) -> None:
        self._token = token.strip()
        if not _HEADER_SAFE.fullmatch(self._token):
            raise InvalidRequest("the token is empty, or no HTTP header can hold it")

    async def token(self, transport: Transport) -> str:
        return self._token

    async def renew(self, transport: Transport, refused: str) -> str | None:
        return None


class Token(msgspec.Struct, frozen=True):
    """An access token.

    Attributes:
        renew_at: Unix time in seconds from which on it is renewed; None: not before it is refused.
    """

    access_token: str
    renew_at: float | None = None
    refresh_token: str | None = None

    def __repr__(self) -> str:
        return f"Token(***, renew_at={self.renew_at})"

    def __rich_repr__(self) -> Any:
        yield "renew_at", self.renew_at


class TokenStore(Protocol):
    """Where all processes of an app keep its token. `key` names PBX and app, and is no secret."""

    async def load(self, key: str) -> Token | None:
        """The token that was saved last, or None."""
        ...

    async def save(self, key: str, token: Token) -> None:
        """Keep the token in place of the one before."""
        ...

    def lock(self, key: str) -> AbstractAsyncContextManager[Any]:
        """Held by the one process that gets a token while the others wait for it."""
        ...


class FileTokenStore:
    """Tokens in files that only this user can read.

    Where no file can be written, each process gets tokens of its own.

    Args:
        directory: made when it is missing; `unifiedapi` in the user's cache directory if None.
    """

    def __init__(self, directory: str | Path | None = None) -> None:
        self._directory = Path(directory) if directory else _cache_directory()

    async def load(self, key: str) -> Token | None:
        """A file that others could have read or written is not believed, nor a damaged one."""
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
            log.warning("the token cannot be kept for other processes: %s", error)

    @asynccontextmanager
    async def lock(self, key: str) -> AsyncIterator[None]:
        """The kernel lets go of the lock when the process ends, however it ends."""
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
    # mkstemp makes the file with mode 0600; the rename replaces the old token in one step.
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
        store: where all processes keep the token; files in the user's cache directory if None.
    """

    def __init__(self, client_id: str, client_secret: str, store: TokenStore | None = None) -> None:
        self._client_id = client_id
        self._client_secret = client_secret
        self._store: TokenStore = store or FileTokenStore()
        self._token: Token | None = None
        self._turn = asyncio.Lock()

    async def token(self, transport: Transport) -> str:
        return (await self._good_one(transport, refused=None)).access_token

    async def renew(self, transport: Transport, refused: str) -> str | None:
        return (await self._good_one(transport, refused)).access_token

    async def _good_one(self, transport: Transport, refused: str | None) -> Token:
        """The token at hand, or what another task or process got meanwhile, or a new one."""
        async with self._turn:
            if _is_good(self._token, refused):
                return self._token
            key = self._key(transport)
            async with self._store.lock(key):
                stored = await self._store.load(key)
                if not _is_good(stored, refused):
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
                log.info("the token was not refreshed (%s); asking for a new one", error.code)
        return await self._ask(transport, grant_type="client_credentials")

    async def _ask(self, transport: Transport, **grant: str) -> Token:
        asked_at = time.time()
        answer = await transport.request(
            "POST",
            TOKEN_PATH,
            form={
                **grant,
                "client_id": self._client_id,
                "client_secret": self._client_secret,
                "type": "unifiedapi",
                "redirect_uri": transport.base_url + TOKEN_PATH,  # 4PSA's clients send it, too
            },
            # A refresh token may be good for one use only; one token too many does no harm.
            repeatable=grant["grant_type"] == "client_credentials",
        )
        return _read(answer, asked_at, (self._client_secret, grant.get("refresh_token")))

    def _key(self, transport: Transport) -> str:
        name = f"{transport.base_url}\n{self._client_id}"
        return hashlib.sha256(name.encode()).hexdigest()[:32]


class _TokenAnswer(msgspec.Struct):
    access_token: str
    expires_in: float | None = None
    refresh_token: str | None = None


def _read(answer: Answer, asked_at: float, secrets: tuple[str | None, ...]) -> Token:
    """Never keeps the body in an error: it may hold a token, whatever else is wrong with it."""
    try:
        data = answer.json()
        if answer.status != 200:
            raise _refusal(answer.status, data, secrets)
        said = msgspec.convert(data, _TokenAnswer, strict=False)
    except (UnexpectedAnswer, msgspec.ValidationError):
        message = "the answer to the request for a token is not one"
        raise UnexpectedAnswer(message, status=answer.status) from None
    if not _HEADER_SAFE.fullmatch(said.access_token):
        raise UnexpectedAnswer("the PBX's token is none that an HTTP header can hold")
    renew_at = None
    if said.expires_in is not None:
        renew_at = asked_at + max(said.expires_in - RENEW_EARLY, said.expires_in / 2)
    return Token(said.access_token, renew_at, said.refresh_token)


def _refusal(status: int, data: object, secrets: tuple[str | None, ...]) -> ApiError:
    data = data if isinstance(data, dict) else {}
    code, message = str(data.get("error", "")), str(data.get("error_description", ""))
    for secret in filter(None, secrets):
        message = message.replace(secret, "***")
    return class_of(code, OAuthError)(code, status, message)


def _is_due(token: Token) -> bool:
    return token.renew_at is not None and time.time() >= token.renew_at


def _is_good(token: Token | None, refused: str | None) -> TypeGuard[Token]:
    return token is not None and token.access_token != refused and not _is_due(token)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "unifiedapi"
