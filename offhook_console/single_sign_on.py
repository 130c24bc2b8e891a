"""Signing in at an OpenID provider: the way there and back, and whom its claims make a person."""

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from itsdangerous import BadData, URLSafeTimedSerializer
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from offhook.errors import ConfigError
from offhook.settings import OidcSettings, Role, Settings
from offhook_console.languages import N_, gettext
from offhook_console.people import RIGHTS

CALLBACK = "/sign-in/oidc/callback"
_COOKIE = "offhook-oidc"
_SECONDS = 600  # for the way there and back
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")
_LONGEST = 100  # extensions of a person
# Signatures of a key that only the provider has; never `none`, or a secret that both know.
_ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)


class SignInRefused(Exception):
    """The provider, or what it says about a person, does not let that person in.

    Args:
        message: English, with `{names}` in place of the values.
    """

    def __init__(self, message: str, **values: str) -> None:
        super().__init__(message.format(**values) if values else message)
        self._message, self._values = message, values

    @property
    def shown(self) -> str:
        """What a person reads; the log has it in English."""
        return gettext(self._message, **self._values)


def import_oauth() -> Any:
    """Authlib's class, which is not part of a plain installation.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it would rather have httpx2; we have httpx
            from authlib.integrations.starlette_client import OAuth
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"[console.oidc] needs the package {error.name}: pip install 'offhook[oidc]'"
        ) from error
    return OAuth


@dataclass(frozen=True)
class SignedOn:
    """A person as the provider's claims say.

    Attributes:
        name: in this console.
        tenant: empty: the operator's.
        extensions: the person's own.
    """

    name: str
    role: Role
    tenant: str
    extensions: list[str]


class SingleSignOn:
    """The OpenID provider of an installation.

    Args:
        key: signs the cookie of a sign-in that is under way.

    Raises:
        ConfigError: Authlib is not installed.
    """

    def __init__(self, settings: Settings, oidc: OidcSettings, key: bytes) -> None:
        self.oidc = oidc
        self._settings = settings
        self._signer = URLSafeTimedSerializer(key, salt="oidc")
        secret = oidc.client_secret.get_secret_value() if oidc.client_secret else None
        self._client: Any = import_oauth()().register(
            "offhook",
            server_metadata_url=f"{oidc.issuer.rstrip('/')}/.well-known/openid-configuration",
            client_id=oidc.client_id,
            client_secret=secret,
            client_kwargs={
                "scope": " ".join(oidc.scopes),
                "code_challenge_method": "S256",
                "timeout": 10.0,
                **({} if secret else {"token_endpoint_auth_method": "none"}),
            },
        )

    async def begin(self, request: Request, to: str) -> Response:
        """Send a person to the provider.

        Args:
            to: the page to go to in the end.

        Raises:
            SignInRefused: the provider does not answer as it should.
        """
        request.scope["session"] = {}
        try:
            await self._check_provider()
            away: RedirectResponse = await self._client.authorize_redirect(
                request, self._callback(request)
            )
        except SignInRefused:
            raise
        except Exception as error:
            raise SignInRefused(
                N_("The provider cannot be asked: {why}."), why=type(error).__name__
            ) from error
        state = self._signer.dumps([request.scope["session"], to])
        away.set_cookie(
            _COOKIE,
            str(state),
            max_age=_SECONDS,
            path=CALLBACK,
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="lax",  # the way back begins at another site
        )
        return away

    async def finish(self, request: Request) -> tuple[SignedOn, str]:
        """Read what the provider says. Return who it is, and the page to go to.

        Raises:
            SignInRefused: it does not prove who that is, or they have no role here.
        """
        try:
            session, to = self._signer.loads(request.cookies.get(_COOKIE, ""), max_age=_SECONDS)
        except (BadData, ValueError) as error:
            raise SignInRefused(
                N_("This sign-in was not started here, or took too long.")
            ) from error
        request.scope["session"] = session
        options = {
            "iss": {"essential": True, "values": [self.oidc.issuer]},
            "aud": {"essential": True, "value": self.oidc.client_id},
        }
        try:
            await self._check_provider()
            if f"_state_offhook_{request.query_params.get('state')}" not in session:
                raise SignInRefused(N_("This answer belongs to another sign-in."))
            token = await self._client.authorize_access_token(
                request, claims_options=options, leeway=30
            )
        except SignInRefused:
            raise
        except Exception as error:
            why = type(error).__name__
            raise SignInRefused(
                N_("The provider's answer is not valid: {why}."), why=why
            ) from error
        if "userinfo" not in token:
            raise SignInRefused(N_("The provider sent no ID token."))
        return self._read(token["userinfo"]), str(to)

    def forget(self, response: Response) -> None:
        """Delete the cookie of the sign-in."""
        response.delete_cookie(_COOKIE, path=CALLBACK, httponly=True, samesite="lax")

    async def _check_provider(self) -> None:
        """Read the discovery document, once, and check that it is the issuer's."""
        metadata = await self._client.load_server_metadata()
        if metadata.get("issuer") != self.oidc.issuer:
            raise SignInRefused(N_("The provider's document names another issuer."))
        offered = metadata.get("id_token_signing_alg_values_supported") or ["RS256"]
        metadata["id_token_signing_alg_values_supported"] = sorted(_ALGORITHMS & set(offered))

    def _callback(self, request: Request) -> str:
        origins = self._settings.console.origins
        base = origins[0] if origins else f"{request.url.scheme}://{request.url.netloc}"
        return f"{base}{CALLBACK}"

    def _read(self, claims: Mapping[str, Any]) -> SignedOn:
        oidc = self.oidc
        name = claims.get(oidc.name_claim)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise SignInRefused(
                N_("The claim {claim} is not a valid user name."), claim=oidc.name_claim
            )
        if oidc.name_claim == "email" and claims.get("email_verified") is False:
            raise SignInRefused(N_("The provider has not verified this e-mail address."))
        if name in self._settings.console.users:
            raise SignInRefused(N_("A user with this name signs in with a password."))
        role = self._role(_texts(claims.get(oidc.role_claim)))
        if role is None:
            raise SignInRefused(N_("Your account has no role in this console."))
        tenant = claims.get(oidc.tenant_claim, "") if oidc.tenant_claim else ""
        if not isinstance(tenant, str) or (tenant and tenant not in self._settings.tenants):
            raise SignInRefused(N_("Your account belongs to a tenant that is not known here."))
        if tenant and role == "operator":
            raise SignInRefused(N_("A user of a tenant cannot be an operator."))
        extensions = _texts(claims.get(oidc.extensions_claim))[:_LONGEST]
        return SignedOn(name, role, tenant, extensions)

    def _role(self, values: Iterable[str]) -> Role | None:
        found = [self.oidc.roles[each] for each in values if each in self.oidc.roles]
        return max(found, key=[*RIGHTS].index, default=self.oidc.default_role)


def _texts(value: Any) -> list[str]:
    """A claim that is a text or a list of texts; anything else is none."""
    if isinstance(value, str):
        return [value]
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
