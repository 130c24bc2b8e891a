"""The configured PBXs: choose one, and open its API."""

import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from offhook.errors import ConfigError, not_configured
from offhook.settings import PbxSettings, Settings
from unifiedapi.client import UnifiedApi
from unifiedapi.errors import (
    ApiError,
    InvalidRequest,
    NoAnswer,
    NotTrusted,
    OAuthError,
    UnexpectedAnswer,
)
from unifiedapi.oauth import BearerToken, ClientCredentials, TokenStore
from unifiedapi.transport import InsecureConnection


def chosen(settings: Settings, name: str | None) -> str:
    """Return the PBX of this name; without a name, the only PBX.

    Raises:
        ConfigError: no PBX has this name; or no name was given, and there is not exactly one PBX.
    """
    if name is None and len(settings.pbx) > 1:
        raise ConfigError(f"choose a PBX with --pbx: {', '.join(settings.pbx)}")
    return among(settings, name)[0]


def among(settings: Settings, name: str | None) -> list[str]:
    """Return the PBX of this name; without a name, all PBXs.

    Raises:
        ConfigError: no PBX has this name, or none is configured.
    """
    if not settings.pbx:
        raise ConfigError(
            "no PBX is configured: add a table [pbx.main] with host, client_id and "
            "client_secret_file to the configuration, or an empty one if you register its "
            "callback URLs by hand"
        )
    if name is not None and name not in settings.pbx:
        raise ConfigError(not_configured("PBX", name, settings.pbx))
    return list(settings.pbx) if name is None else [name]


def with_api(settings: Settings) -> list[tuple[str, str]]:
    """Each access to a PBX's API: the tenant whose it is (empty: the operator), and the PBX."""
    operators = [("", pbx) for pbx, each in settings.pbx.items() if each.host is not None]
    return operators + [
        (tenant, pbx)
        for tenant, its in settings.tenants.items()
        for pbx, each in its.pbx.items()
        if each.host is not None
    ]


@asynccontextmanager
async def open_api(
    settings: Settings, pbx: str, store: TokenStore | None = None
) -> AsyncIterator[UnifiedApi]:
    """Open the API of a configured PBX, and close its connections at the end.

    Args:
        store: where the token is kept; in the user's cache directory if not given.

    Raises:
        ConfigError: the PBX's settings are wrong, or Offhook does not speak its API.
    """
    configured = settings.pbx[pbx]
    if configured.host is None and configured.dialect == "voipnow":
        raise ConfigError(f"pbx.{pbx}: has no host: set it, and client_id and client_secret_file")
    if configured.host is None:
        if configured.dialect == "voipnow":
            raise ConfigError(f"pbx.{pbx}: has no host: add it, and how to sign in to the API")
        raise ConfigError(f"pbx.{pbx}: Offhook does not speak the API of {configured.dialect}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InsecureConnection)  # commands report it themselves
            api = UnifiedApi(
                configured.host,
                _auth(configured, store),
                ca_file=configured.ca_file,
                insecure=configured.insecure,
                zone=configured.tzinfo,
            )
    except InvalidRequest as error:
        raise ConfigError(f"pbx.{pbx}: {error}") from error
    async with api:
        yield api


def sentence(error: Exception) -> str:
    """The error as a sentence for an operator."""
    said, hint = str(error), ""
    if isinstance(error, OAuthError):
        said, hint = f"the PBX gives no token: {said}", "check client_id and client_secret"
    elif isinstance(error, UnexpectedAnswer):
        said, hint = f"the response is not one of UnifiedAPI: {said}", "check host"
    elif isinstance(error, NotTrusted):
        return said
    elif isinstance(error, NoAnswer):
        hint = "" if error.sent else "check host, the network and the firewall"
    elif isinstance(error, ApiError):
        said = f"the PBX refuses: {said}"
        hint = {401: "check the token and its user", 404: "check host"}.get(error.status, "")
        hint = "try again later" if error.status >= 500 else hint
        hint = "" if error.code and error.status not in (401, 403) else hint
    return f"{said.removesuffix('.')}: {hint}" if hint else said


def _auth(settings: PbxSettings, store: TokenStore | None) -> BearerToken | ClientCredentials:
    if settings.token is not None:
        return BearerToken(settings.token.get_secret_value())
    assert settings.client_id is not None  # noqa: S101 - the settings have checked it
    assert settings.client_secret is not None  # noqa: S101
    secret = settings.client_secret.get_secret_value()
    return ClientCredentials(settings.client_id, secret, store)
