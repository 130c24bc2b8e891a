"""The PBXs of the configuration: which one is meant, and its API."""

import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from offhook.errors import ConfigError
from offhook.settings import PbxSettings, Settings
from unifiedapi.client import UnifiedApi
from unifiedapi.errors import ApiError, InvalidRequest, OAuthError
from unifiedapi.oauth import BearerToken, ClientCredentials
from unifiedapi.transport import InsecureConnection


def chosen(settings: Settings, name: str | None) -> str:
    """The PBX of this name; without one, the only PBX there is.

    Raises:
        ConfigError: there is none of that name, or not exactly one.
    """
    if name is None and len(settings.pbx) > 1:
        raise ConfigError(f"which PBX? Give --pbx: there are {', '.join(settings.pbx)}")
    return among(settings, name)[0]


def among(settings: Settings, name: str | None) -> list[str]:
    """The PBX of this name; without one, every PBX.

    Raises:
        ConfigError: there is none of that name, or none at all.
    """
    if not settings.pbx:
        raise ConfigError(
            "no PBX is configured: add a table [pbx.main] with host, client_id and "
            "client_secret_file to the configuration"
        )
    if name is not None and name not in settings.pbx:
        raise ConfigError(f"no PBX is configured as {name!r}: there are {', '.join(settings.pbx)}")
    return list(settings.pbx) if name is None else [name]


@asynccontextmanager
async def open_api(settings: Settings, pbx: str) -> AsyncIterator[UnifiedApi]:
    """The API of a configured PBX; its connections are closed in the end.

    Raises:
        ConfigError: its settings cannot be used, or its API is not spoken.
    """
    configured = settings.pbx[pbx]
    if configured.host is None:
        raise ConfigError(f"pbx.{pbx}: Offhook does not speak the API of {configured.dialect}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InsecureConnection)  # who set it is told by the command
            api = UnifiedApi(
                configured.host,
                _auth(configured),
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
    if isinstance(error, OAuthError):
        return f"the PBX gives no token: {error}"
    if isinstance(error, ApiError):
        return f"the PBX refuses: {error}"
    return str(error)


def _auth(settings: PbxSettings) -> BearerToken | ClientCredentials:
    if settings.token is not None:
        return BearerToken(settings.token.get_secret_value())
    assert settings.client_id is not None  # noqa: S101 - the settings have checked it
    assert settings.client_secret is not None  # noqa: S101
    return ClientCredentials(settings.client_id, settings.client_secret.get_secret_value())
