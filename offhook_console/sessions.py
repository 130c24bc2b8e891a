"""Sessions: signed cookies. Nothing is stored; a new password ends them all."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import astuple
from datetime import datetime, timedelta
from typing import Any

from itsdangerous import BadData, URLSafeTimedSerializer
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from offhook.settings import ConsoleUser, Role, Settings
from offhook_console.passwords import hash_token
from offhook_console.people import RIGHTS, Person, Right
from offhook_console.single_sign_on import SignedOn, SingleSignOn


class Sessions:
    """Finds out who makes a request."""

    def __init__(self, settings: Settings) -> None:
        self._users: Mapping[str, ConsoleUser] = settings.console.users
        self._seconds = int(settings.console.session_hours * 3600)
        secret = settings.secret.get_secret_value().encode()
        # A key of its own: a cookie is no callback token.
        self._key = hmac.digest(secret, b"offhook console", hashlib.sha256)
        self._signer = URLSafeTimedSerializer(self._key, salt="session")
        self._tenants = settings.tenants
        oidc = settings.console.oidc
        self.single_sign_on = SingleSignOn(settings, oidc, self._key) if oidc else None
        self._tokens = {
            token.hash: (name, label, token.scopes)
            for name, user in self._users.items()
            for label, token in user.tokens.items()
        }

    def start(self, request: Request, response: Response, who: str | SignedOn) -> None:
        """Sign a user in, by name or by what the OpenID provider says: set the cookie."""
        response.set_cookie(
            _cookie(request),
            self.value(who),
            max_age=self._seconds,
            path="/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )

    def value(self, who: str | SignedOn) -> str:
        """The value of a user's cookie."""
        if isinstance(who, SignedOn):
            return str(self._signer.dumps([*astuple(who), self._mapping()]))
        return str(self._signer.dumps([who, self._fingerprint(who)]))

    def end(self, request: Request, response: Response) -> None:
        """Sign a user out: delete the cookie."""
        response.delete_cookie(
            _cookie(request),
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )

    def person(self, request: HTTPConnection) -> Person | None:
        """Return who makes the request; None if that is not known."""
        authorization = request.headers.get("authorization")
        if authorization is not None:
            return self.of_token(authorization)
        cookie = request.cookies.get(_cookie(request))
        if cookie is None:
            return None
        try:
            read: Any
            read, signed = self._signer.loads(cookie, max_age=self._seconds, return_timestamp=True)
        except BadData:
            return None
        until = signed + timedelta(seconds=self._seconds)
        if len(read) != 2:
            return self._of_provider(until, *read)
        name, fingerprint = read
        if name not in self._users or fingerprint != self._fingerprint(name):
            return None
        user = self._users[name]
        rights, own = RIGHTS[user.role], frozenset(user.extensions)
        return Person(name, user.role, rights, own, user.tenant, until=until)

    def _of_provider(
        self,
        until: datetime,
        name: str,
        role: Role,
        tenant: str,
        extensions: list[str],
        mapping: str,
    ) -> Person | None:
        if self.single_sign_on is None or mapping != self._mapping():
            return None
        if name in self._users or (tenant and tenant not in self._tenants):
            return None
        return Person(name, role, RIGHTS[role], frozenset(extensions), tenant, until=until)

    def of_token(self, authorization: str) -> Person | None:
        """Return whose token it is, as `Bearer TOKEN`."""
        kind, _, token = authorization.partition(" ")
        known = self._tokens.get(hash_token(token.strip()))
        if kind.lower() != "bearer" or known is None:
            return None
        name, label, scopes = known
        user = self._users[name]
        granted = {Right(scope) for scope in scopes} | {Right.ALL_CALLS}
        rights = RIGHTS[user.role] & granted
        return Person(name, user.role, rights, frozenset(user.extensions), user.tenant, label)

    def _mapping(self) -> str:
        """Changes with the provider and with what its claims mean, which ends these sessions."""
        assert self.single_sign_on is not None  # noqa: S101
        oidc = self.single_sign_on.oidc
        # With the client's secret, so that a leaked `secret` alone makes no session.
        secret = oidc.client_secret.get_secret_value() if oidc.client_secret else ""
        said = f"{secret} {oidc.model_dump_json(exclude={'client_secret'})}"
        return hmac.digest(self._key, said.encode(), hashlib.sha256).hex()[:16]

    def _fingerprint(self, name: str) -> str:
        """Changes with the password, so that a new one ends the user's sessions."""
        password = self._users[name].password.get_secret_value()
        return hmac.digest(self._key, password.encode(), hashlib.sha256).hex()[:16]


def _cookie(request: HTTPConnection) -> str:
    # The prefix makes the browser refuse a cookie that another host has set.
    return "__Host-offhook" if request.url.scheme in ("https", "wss") else "offhook"
