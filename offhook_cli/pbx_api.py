"""The PBX's API, as the commands use it."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import IntEnum
from urllib.parse import urlsplit

from offhook.errors import ConfigError
from offhook.provisioning.api import chosen, open_api, sentence
from offhook.settings import Settings, load_settings
from offhook_cli.options import settings_of
from offhook_cli.screen import fail, note
from unifiedapi.client import UnifiedApi
from unifiedapi.errors import UnifiedApiError


@asynccontextmanager
async def pbx_api(
    name: str | None, user: str | None, tenant: str = ""
) -> AsyncIterator[tuple[UnifiedApi, str]]:
    """Open the API of a configured PBX. Yield it and the user whose extensions to request.

    An error of the PBX ends the command.
    """
    settings = settings_of(tenant)
    pbx = chosen(settings, name)
    if tenant and pbx not in load_settings().tenants[tenant].pbx:
        raise ConfigError(
            f"tenant {tenant} has no access of its own to {pbx}, and the operator's shows the "
            f"extensions of others: add a table [tenants.{tenant}.pbx.{pbx}]"
        )
    warn_insecure(settings, pbx)
    warnings, client = _Warnings(logging.WARNING), logging.getLogger("unifiedapi")
    client.addHandler(warnings)
    try:
        async with open_api(settings, pbx) as api:
            yield api, user or settings.pbx[pbx].user
    except ConfigError:
        raise
    except UnifiedApiError as error:
        fail(sentence(error))
    finally:
        client.removeHandler(warnings)


class _Warnings(logging.Handler):
    """Shows what the client warns of, such as a list that is shorter than it should be."""

    def emit(self, record: logging.LogRecord) -> None:
        note(f"! {record.getMessage()}")


def warn_insecure(settings: Settings, pbx: str) -> None:
    """Warn each time that `insecure` turns off the check of the PBX's identity."""
    if settings.pbx[pbx].insecure:
        host = urlsplit(settings.pbx[pbx].host or "").netloc
        note(f"! pbx.{pbx}: insecure: any server that answers at {host} is trusted")


def in_words(status: IntEnum | None) -> str:
    """Format a status of the PBX, such as `not registered`."""
    return "unknown" if status is None else status.name.lower().replace("_", " ")
