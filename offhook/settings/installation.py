"""The settings of an installation, from the file and the environment."""

import os
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, IPvAnyNetwork, PrivateAttr, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from offhook.redis_servers.redis_url import wrong_urls
from offhook.settings.config_file import config_path, read_files
from offhook.settings.console_table import ConsoleSettings, wrong_users
from offhook.settings.faults import PbxName, PluginName, RedisUrl, Region, Secret, like
from offhook.settings.setting_tables import (
    HandlerName,
    HandlerSettings,
    LookupSettings,
    PbxSettings,
    Start,
)
from offhook.settings.tenants import Claims, TenantFiles, TenantSettings, wrong_tenants
from offhook.settings.watch_settings import WatchSettings

# Settings that a tenant's table may have, too.
_OF_A_TENANT = ("region", "daily_summary", "keep_days", "dead_letter_days", "quarantine_days")


class Settings(WatchSettings):
    """All settings. Environment variables (`OFFHOOK_...`) take precedence over the file."""

    model_config = SettingsConfigDict(
        env_prefix="OFFHOOK_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    secret: Secret = Field(description="signs the callback URLs; at least 32 characters")
    previous_secret: Secret | None = Field(
        default=None, description="still valid while the URLs on the PBX are being replaced"
    )
    public_url: Annotated[
        str,
        like(
            r"https?://[^\s?#]+",
            "a URL such as https://offhook.example.com, without a question mark, # or blank",
        ),
    ] = Field(default="http://127.0.0.1:8080", description="where the PBX reaches the receiver")
    redis_url: RedisUrl = Field(
        default="redis://127.0.0.1:6379/0",
        repr=False,
        description=(
            "the Redis or Valkey server, or the Sentinels that know it: "
            "sentinel://HOST:PORT,HOST:PORT/NAME/DB?password=..., "
            "or some nodes of a cluster: cluster://HOST:PORT,HOST:PORT/?password=...; "
            "with TLS, rediss://, sentinels:// or clusters://"
        ),
    )
    rq_url: RedisUrl | None = Field(
        default=None,
        repr=False,
        description=(
            "the server for RQ's jobs, including dead letters, in the same form, but not a "
            "cluster; that of redis_url if not set"
        ),
    )
    durability: Literal["server", "disk", "replica"] = Field(
        default="server",
        description=(
            "where an event must be before it is answered 200: in the server's memory (written to "
            "its disk as its appendfsync says), on its disk, or on its replicas, too"
        ),
    )
    replicas: int | None = Field(
        default=None,
        ge=1,
        le=100,
        description=(
            "with durability replica, how many replicas must have an event: all of them, or a "
            "failover to one of the others loses it"
        ),
    )
    partitions: int = Field(
        default=16,
        ge=1,
        le=256,
        description="streams of the inbox, spread over processes and machines",
    )
    processes: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="processes that serve the handlers on this machine; one per core if not set",
    )
    max_memory: int = Field(
        default=1_000_000_000,
        ge=100_000_000,
        description="maximum bytes of a serving process; beyond it, its largest handler moves out",
    )
    duplicate_window: float = Field(
        default=5.0,
        ge=0,
        le=86400,
        description="seconds in which an identical callback is a repeat",
    )
    journal: Path = Field(
        default=Path("journal"), description="a folder for events that Redis cannot take yet"
    )
    journal_size: int = Field(
        default=1_000_000_000, ge=1_000_000, description="maximum bytes of a receiver's journal"
    )
    patience: float = Field(
        default=2.0, gt=0, description="seconds to wait for Redis before events go to the journal"
    )
    region: Region | None = Field(
        default=None,
        description=(
            "the country whose numbers are dialled without a prefix, such as GB; "
            "if not set, only numbers that begin with + are known in full"
        ),
    )
    settle: float = Field(
        default=3.0, ge=0, le=60, description="seconds from the last hangup to the end of a call"
    )
    settle_unanswered: float = Field(
        default=60.0,
        ge=0,
        le=3600,
        description=(
            "seconds from the last hangup to the end of a call that was not answered, unless its "
            "caller is known to have gone: a phone may still ring whose dial was lost"
        ),
    )
    call_timeout: float = Field(
        default=14400.0, ge=60, le=31_536_000, description="seconds of silence that close a call"
    )
    daily_summary: (
        Annotated[
            str,
            like(r"([01][0-9]|2[0-3]):[0-5][0-9]", "a time of day, such as 18:00 or 07:30"),
        ]
        | None
    ) = Field(
        default=None,
        description="local time of the daily-summary event, such as 18:00; none if not set",
    )
    keep_days: float = Field(
        default=7.0, gt=0, le=36_500, description="days to keep delivered events, for replays"
    )
    max_events: int | None = Field(
        default=None,
        ge=1000,
        description=(
            "maximum number of events in the inbox; beyond it the oldest are deleted, even if "
            "they are not yet delivered; no limit if not set"
        ),
    )
    record: Literal["all", "failures"] = Field(
        default="all",
        description=(
            "the deliveries to keep a record of, as long as events: all, or only attempts that "
            "failed and redeliveries"
        ),
    )
    max_body: int = Field(
        default=65536, ge=1024, description="maximum bytes of a callback's query, and of its body"
    )
    max_parameters: int = Field(
        default=100, ge=10, description="maximum number of a callback's parameters"
    )
    max_parameter_length: int = Field(
        default=4096, ge=64, description="maximum characters of one parameter"
    )
    read_timeout: float = Field(
        default=10.0, gt=0, le=3600, description="maximum seconds for a callback to arrive"
    )
    url_rate: float = Field(
        default=100.0,
        gt=0,
        description="maximum callbacks per second of one URL; 30 seconds' worth may come at once",
    )
    source_rate: float = Field(
        default=1000.0,
        gt=0,
        description="maximum requests per second of one address, except proxies; bursts as above",
    )
    proxies: list[IPvAnyNetwork] = Field(
        default=[IPv4Network("127.0.0.0/8"), IPv6Network("::1/128")],
        description="addresses of your proxies, whose X-Forwarded-For is believed",
    )
    allowed_addresses: list[IPvAnyNetwork] | None = Field(
        default=None, description="the only addresses that may call; all if not set"
    )
    metrics_addresses: list[IPvAnyNetwork] = Field(
        default=[IPv4Network("127.0.0.0/8"), IPv6Network("::1/128")],
        description="the only addresses that may read /metrics, if there is no metrics_token",
    )
    metrics_token: Secret | None = Field(
        default=None,
        description="the bearer token that /metrics requires of everyone; at least 32 characters",
    )
    revoked: Path = Field(
        default=Path("revoked.json"), description="the file in which `offhook url revoke` writes"
    )
    idle_timeout: float = Field(
        default=130.0,
        gt=0,
        le=3600,
        description="seconds that an idle connection stays open; more than a proxy keeps it",
    )
    quarantine_size: int = Field(
        default=1000, ge=0, description="number of refused callbacks to keep for inspection"
    )
    quarantine_days: float = Field(
        default=30.0, gt=0, le=36_500, description="days to keep refused callbacks"
    )
    dead_letter_days: float = Field(
        default=90.0, gt=0, le=36_500, description="days to keep dead letters, then delete them"
    )
    handlers: dict[HandlerName, HandlerSettings] = Field(
        default_factory=dict, description="the handlers, one table each"
    )
    lookups: dict[PluginName, LookupSettings] = Field(
        default_factory=dict, description="sources of callers' names, a table each, asked in order"
    )
    pbx: dict[PbxName, PbxSettings] = Field(
        default_factory=dict, description="the PBXs that `offhook setup` manages, one table each"
    )
    console: ConsoleSettings = Field(
        default_factory=ConsoleSettings,
        description="who may use `offhook console`; `users` has those of tenants, too, once read",
    )
    tenants: dict[PluginName, TenantSettings] = Field(
        default_factory=dict,
        description="organizations with their own extensions and handlers, one table each",
    )
    _tenant: str = PrivateAttr("")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = TomlConfigSettingsSource(settings_cls, config_path())
        return init_settings, env_settings, file, TenantFiles(settings_cls)

    @model_validator(mode="before")
    @classmethod
    def _from_files(cls, values: Any) -> Any:
        """Read a setting from the file that `NAME_file` or `OFFHOOK_NAME_FILE` names."""
        if not isinstance(values, dict):
            return values
        values = dict(values)
        for name in cls.model_fields:
            path = os.environ.get(f"OFFHOOK_{name.upper()}_FILE")
            if path:
                values[f"{name}_file"] = path
                if f"OFFHOOK_{name.upper()}" not in os.environ:
                    values.pop(name, None)  # from the file offhook.toml, which it overrides
        return read_files(values, cls.model_fields)

    @property
    def journal_folder(self) -> Path:
        """The folder of the receivers' journals."""
        return config_path().parent / self.journal

    @property
    def revoked_file(self) -> Path:
        """The file of revoked callback URLs."""
        return config_path().parent / self.revoked

    @property
    def jobs_url(self) -> str:
        """The server of RQ's jobs."""
        return self.rq_url or self.redis_url

    @property
    def pools(self) -> set[str]:
        """The pools of processes that serve the handlers; empty: the shared one."""
        return {policy.pool_of(name) for name, policy in self.all_handlers.items()}

    @property
    def starts(self) -> dict[str, Start]:
        """The handlers, and where each begins."""
        return {name: each.start for name, each in self.handlers.items()}

    @property
    def tenant(self) -> str:
        """Whose settings these are, if they are from `of`; empty: the operator's."""
        return self._tenant

    @cached_property
    def all_handlers(self) -> dict[str, HandlerSettings]:
        """The handlers of the operator and of all tenants, by full name."""
        every = dict(self.handlers)
        for name, tenant in self.tenants.items():
            every |= tenant.own_handlers(name)
        return every

    @cached_property
    def all_lookups(self) -> dict[str, LookupSettings]:
        """The lookups of the operator and of all tenants, by full name."""
        every = dict(self.lookups)
        for name, tenant in self.tenants.items():
            every |= tenant.own_lookups(name)
        return every

    def handlers_for(self, tenant: str) -> dict[str, HandlerSettings]:
        """The handlers that get a tenant's events: its own, and those of the operator that do."""
        theirs = {name: each for name, each in self.handlers.items() if each.gets(tenant)}
        return theirs | self.of(tenant).handlers

    def tenant_of(self, pbx: str, extension: str) -> str:
        """The tenant that an extension belongs to; empty: the operator."""
        return self.claims.tenant(pbx, extension) if self.tenants else ""

    def access_of(self, pbx: str, extension: str) -> str:
        """The tenant whose access to the PBX's API manages an extension; empty: the operator's."""
        tenant = self.tenant_of(pbx, extension)
        return tenant if tenant and pbx in self.tenants[tenant].pbx else ""

    def of(self, tenant: str) -> "Settings":
        """The settings that hold for a tenant: its own, and else the operator's.

        Handlers and lookups are the tenant's alone, by their full names. The settings of a tenant
        that is not configured, which may still have events, are the operator's without plugins.
        """
        if not tenant:
            return self
        if tenant not in self.views:
            self.views[tenant] = self._view(tenant)
        return self.views[tenant]

    def __copy__(self) -> "Settings":
        """A copy, to be changed, that computes anew what follows from the settings."""
        copy = super().__copy__()
        for name in copy.__dict__.keys() - type(self).model_fields.keys():
            del copy.__dict__[name]
        return copy

    def __getstate__(self) -> dict[Any, Any]:
        """For another process: without what follows from the settings."""
        state = super().__getstate__()
        own = {name: state["__dict__"][name] for name in type(self).model_fields}
        return state | {"__dict__": own}

    def _view(self, tenant: str) -> "Settings":
        its = self.tenants.get(tenant) or TenantSettings(extensions=[])
        own = {name: getattr(its, name) for name in _OF_A_TENANT}
        update = {name: value for name, value in own.items() if value is not None}
        update["handlers"] = its.own_handlers(tenant)
        update["lookups"] = its.own_lookups(tenant)
        update["pbx"] = self.pbx | its.pbx
        view = self.model_copy(update=update | {"tenants": {}})
        view._tenant = tenant
        return view

    @cached_property
    def claims(self) -> Claims:
        """Which tenant each extension belongs to."""
        return Claims(self.tenants)

    @cached_property
    def views(self) -> dict[str, "Settings"]:
        """What `of` has returned, by tenant."""
        return {}

    @model_validator(mode="after")
    def _check(self) -> "Settings":
        if self.durability == "replica" and self.replicas is None:
            raise ValueError(
                'replicas: durability "replica" needs it; set it to the number of replicas that '
                "the server has"
            )
        wrong = [
            *wrong_urls(self.redis_url, self.rq_url),
            *wrong_tenants(self.tenants, self.pbx, self.handlers),
            *wrong_users(self.console, self.tenants),
        ]
        if wrong:
            raise ValueError("\n".join(wrong))
        users = dict(self.console.users)
        for name, tenant in self.tenants.items():
            users |= tenant.own_users(name)
        self.__dict__["console"] = self.console.model_copy(update={"users": users})
        return self
