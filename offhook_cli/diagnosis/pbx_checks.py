"""Checks of the PBXs whose API Offhook can use."""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from offhook.errors import ConfigError
from offhook.provisioning.api import open_api, sentence
from offhook.settings import PbxSettings, Settings
from offhook_cli.diagnosis.findings import Finding, failed, passed, warned
from unifiedapi.errors import UnifiedApiError
from unifiedapi.oauth import Token


@dataclass(frozen=True)
class SeenPbxs:
    """The PBXs with an API.

    Attributes:
        faults: why a PBX cannot be used, by its name, or None if it can; None if none was asked.
    """

    pbxs: dict[str, PbxSettings]
    faults: dict[str, str | None] | None


async def look_at_pbxs(settings: Settings, *, ask: bool) -> SeenPbxs:
    """Sign in to each PBX, and request the presence of a phone.

    Args:
        ask: whether to make any request.
    """
    pbxs = {name: each for name, each in settings.pbx.items() if each.host}
    if not ask:
        return SeenPbxs(pbxs, None)
    faults = await asyncio.gather(*(_fault(settings, name) for name in pbxs))
    return SeenPbxs(pbxs, dict(zip(pbxs, faults, strict=True)))


class _NoStore:
    """Keeps no token, because an earlier one would hide that the credentials are wrong now."""

    async def load(self, key: str) -> Token | None:
        return None

    async def save(self, key: str, token: Token) -> None:
        """Forget it."""

    def lock(self, key: str) -> AbstractAsyncContextManager[Any]:
        return nullcontext()


async def _fault(settings: Settings, name: str) -> str | None:
    configured = settings.pbx[name]
    # The PBX does not list all phones of an owner; `@me` is the app's user, too.
    user = "@me" if configured.user == "@owner" else configured.user
    try:
        async with open_api(settings, name, _NoStore()) as api:
            async for _ in api.presence.list(user=user, count=1):
                break
    except ConfigError as error:
        return str(error)
    except UnifiedApiError as error:
        return f"pbx.{name}: {sentence(error)}"
    return None


def api(seen: SeenPbxs) -> Iterator[Finding]:
    """Offhook can sign in, and make a request."""
    if seen.faults is None:
        names = ", ".join(seen.pbxs)
        yield passed(f"not asked: `offhook doctor --pbx` signs in to {names}")
        return
    if not seen.pbxs:
        yield passed("no PBX has a host: there is none to ask")
    for name, fault in seen.faults.items():
        if fault is None:
            yield passed(f"{name} answers, and accepts the credentials")
        else:
            yield failed(fault)


def identity(seen: SeenPbxs) -> Iterator[Finding]:
    """The PBX has to prove its identity."""
    for name, each in seen.pbxs.items():
        if each.insecure:
            yield warned(
                f"pbx.{name}: any server that answers at {each.host} is trusted (insecure), and "
                "gets the credentials: set ca_file instead"
            )


CHECKS = (api, identity)
