"""Tenants: their tables, which of them an extension belongs to, and their files."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import UTC, tzinfo
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, InitSettingsSource

from offhook.settings.config_file import config_folder, config_path
from offhook.settings.console_table import NO_OPERATOR, ConsoleUser, UserName
from offhook.settings.extension_patterns import compiled
from offhook.settings.faults import PbxName, PluginName, Region, Unreadable, Zone
from offhook.settings.setting_tables import (
    HandlerName,
    HandlerSettings,
    LookupSettings,
    PbxSettings,
)

Days = Annotated[float, Field(gt=0, le=36_500)] | None

_OWN_CODE = "own_code"
_REMEMBERED = 65_536  # extensions whose tenant is known without a search


def full_name(tenant: str, name: str) -> str:
    """The name of a tenant's handler or lookup among those of all: `TENANT/NAME`."""
    return f"{tenant}/{name}" if tenant else name


def tenant_of_plugin(name: str) -> str:
    """The tenant of a handler or lookup with this full name; empty: the operator."""
    return name.partition("/")[0] if "/" in name else ""


def table_of(kind: str, name: str) -> str:
    """The table of a plugin: `handlers.crm`, or `tenants.acme.handlers.crm` of `acme/crm`."""
    tenant, slash, own = name.partition("/")
    return f"tenants.{tenant}.{kind}.{own}" if slash else f"{kind}.{name}"


def _a_claim(value: str) -> str:
    pbx, slash, pattern = value.partition("/")
    if not (slash and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}", pbx)):
        raise ValueError(
            f"{value!r} must be a PBX and its extensions, such as main/0003** or main/0003*210"
        )
    if not re.fullmatch(r"[^\s/]{1,100}", pattern) or not pattern.isprintable():
        raise ValueError(f"{value!r}: after the PBX comes an extension, with * and ? as wildcards")
    return value


class TenantLimits(BaseModel):
    """The `[tenants.NAME.limits]` table: what one tenant may use of the installation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rate: float = Field(
        default=300.0,
        gt=0,
        description="maximum callbacks per second; 30 seconds' worth may come at once",
    )
    share: float = Field(
        default=0.2,
        gt=0,
        le=1,
        description="the share of the inbox and journal that it may fill when they get full",
    )
    concurrency: int = Field(
        default=64,
        ge=1,
        le=10_000,
        description="maximum number of calls that all its handlers work on, in each process",
    )
    handlers: int = Field(default=20, ge=0, description="maximum number of handlers")


class TenantSettings(BaseModel):
    """One `[tenants.NAME]` table: an organization with extensions and handlers of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    extensions: list[Annotated[str, AfterValidator(_a_claim)]] = Field(
        description="its extensions: PBX/EXTENSION, * and ? as wildcards, such as main/0003**"
    )
    handlers: dict[HandlerName, HandlerSettings] = Field(
        default_factory=dict, description="its handlers, one table each"
    )
    lookups: dict[PluginName, LookupSettings] = Field(
        default_factory=dict, description="its sources of callers' names, a table each"
    )
    pbx: dict[PbxName, PbxSettings] = Field(
        default_factory=dict,
        description="its own access to PBXs of the installation, in place of the operator's",
    )
    region: Region | None = Field(
        default=None, description="its own value of `region`; the installation's if not set"
    )
    zone: Zone | None = Field(
        default=None, description="its time zone, for the daily summary; the machine's if not set"
    )
    daily_summary: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")] | None = Field(
        default=None, description="its own value of `daily_summary`; the installation's if not set"
    )
    keep_days: Days = Field(
        default=None, description="its own value of `keep_days`; the installation's if not set"
    )
    dead_letter_days: Days = Field(
        default=None,
        description="its own value of `dead_letter_days`; the installation's if not set",
    )
    quarantine_days: Days = Field(
        default=None,
        description="its own value of `quarantine_days`; the installation's if not set",
    )
    users: dict[UserName, ConsoleUser] = Field(
        default_factory=dict,
        description="its people, who sign in to the console as TENANT/NAME, a table each",
    )
    own_code: bool = Field(
        default=False,
        description=(
            "whether its handlers and lookups may be package.module:name; such code runs in "
            "processes apart; not in the tenant's own file"
        ),
    )
    limits: TenantLimits = Field(default=TenantLimits(), description="its limits")

    @property
    def tzinfo(self) -> tzinfo | None:
        """The time zone; None for the machine's."""
        return UTC if self.zone == "UTC" else ZoneInfo(self.zone) if self.zone else None

    def own_handlers(self, tenant: str) -> dict[str, HandlerSettings]:
        """The tenant's handlers by their full names.

        None that is, or whose events' names come from, own code is in the shared processes.
        """
        names_by_code = any(is_own_code(each.use) for each in self.lookups.values())
        return {
            full_name(tenant, name): each.model_copy(update={"process": "code"})
            if each.process == "shared" and (names_by_code or is_own_code(each.use))
            else each
            for name, each in self.handlers.items()
        }

    def own_lookups(self, tenant: str) -> dict[str, LookupSettings]:
        """The tenant's lookups by their full names."""
        return {full_name(tenant, name): each for name, each in self.lookups.items()}

    def own_users(self, tenant: str) -> dict[str, ConsoleUser]:
        """The tenant's people by the names under which they sign in."""
        return {
            full_name(tenant, name): each.model_copy(update={"tenant": tenant})
            for name, each in self.users.items()
        }


def is_own_code(use: str) -> bool:
    """Return whether `use` is an import path, not the name of an installed plugin."""
    return ":" in use


class Claims:
    """Which tenant an extension belongs to.

    Args:
        tenants: with the extensions that they claim.
    """

    def __init__(self, tenants: Mapping[str, TenantSettings]) -> None:
        claims = [
            (*claim.split("/", 1), tenant)
            for tenant, settings in sorted(tenants.items())
            for claim in settings.extensions
        ]
        claims.sort(key=lambda claim: (_is_wild(claim[1]), -len(claim[1])))
        self._claims: dict[str, list[tuple[re.Pattern[str], str]]] = {}
        for pbx, pattern, tenant in claims:
            matches = compiled([pattern])
            if matches is not None:
                self._claims.setdefault(pbx, []).append((matches, tenant))
        self.tenant = lru_cache(_REMEMBERED)(self._tenant)

    def _tenant(self, pbx: str, extension: str) -> str:
        for matches, tenant in self._claims.get(pbx, ()):
            if matches.fullmatch(extension):
                return tenant
        return ""


def _is_wild(pattern: str) -> bool:
    organisation, _, rest = pattern.partition("*")
    return bool(set("*?[").intersection(rest if organisation.isdigit() and rest else pattern))


def wrong_tenants(
    tenants: Mapping[str, TenantSettings],
    pbxs: Mapping[str, PbxSettings],
    handlers: Mapping[str, HandlerSettings],
) -> Iterator[str]:
    """What is wrong with tenants, beyond their tables: a sentence each.

    Args:
        pbxs: the PBXs of the installation.
        handlers: the operator's.
    """
    for name, table in handlers.items():
        if isinstance(table.tenants, frozenset) and table.tenants - tenants.keys():
            unknown = ", ".join(sorted(table.tenants - tenants.keys()))
            yield f"handlers.{name}.tenants: there is no tenant {unknown}"
    known = pbxs.keys() or {"main"}
    owners: dict[str, str] = {}
    for name, tenant in tenants.items():
        for claim in tenant.extensions:
            pbx = claim.partition("/")[0]
            if pbx not in known:
                yield (
                    f"tenants.{name}.extensions: {claim}: no PBX is called {pbx!r}, only "
                    f"{', '.join(sorted(known))}"
                )
            if owners.setdefault(claim, name) != name:
                yield f"tenants.{name}.extensions: {claim} belongs to {owners[claim]} already"
        for pbx in tenant.pbx:
            if pbx not in known:
                yield f"tenants.{name}.pbx.{pbx}: no such PBX, only {', '.join(sorted(known))}"
        yield from _wrong_plugins(name, tenant)
        for user, each in tenant.users.items():
            if each.tenant:
                yield f"tenants.{name}.users.{user}.tenant: only the operator's may have it"
            if each.role == "operator":
                yield f"tenants.{name}.users.{user}.role: {NO_OPERATOR}"


def _wrong_plugins(name: str, tenant: TenantSettings) -> Iterator[str]:
    if len(tenant.handlers) > tenant.limits.handlers:
        yield (
            f"tenants.{name}.handlers: {len(tenant.handlers)} are more than its "
            f"limits.handlers ({tenant.limits.handlers})"
        )
    for handler, table in tenant.handlers.items():
        if table.tenants is not None:
            yield f"tenants.{name}.handlers.{handler}.tenants: only the operator's may have it"
    for kind, tables in (("handlers", tenant.handlers), ("lookups", tenant.lookups)):
        for plugin, each in tables.items():
            if is_own_code(each.use) and not tenant.own_code:
                yield (
                    f"tenants.{name}.{kind}.{plugin}.use: {each.use!r} is no installed plugin; "
                    f"own code needs own_code = true in [tenants.{name}] of the operator's "
                    "configuration"
                )


def tenants_folder() -> Path:
    """The folder of the tenants' files, beside the configuration."""
    return config_folder() / "tenants"


def tenant_files() -> list[Path]:
    """The files of tenants."""
    return sorted(tenants_folder().glob("*.toml"))


class TenantFiles(InitSettingsSource):
    """The settings in the files of tenants, each the table of the tenant that it is named for."""

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        tables: dict[str, Any] = {}
        for path in tenant_files():
            table = tomllib.loads(path.read_text("utf-8"))
            if _OWN_CODE in table:
                why = f"is the operator's: set it under [tenants.{path.stem}] in {config_path()}"
                table[_OWN_CODE] = Unreadable(why, "")
            tables[path.stem] = table
        super().__init__(settings_cls, {"tenants": tables} if tables else {})
