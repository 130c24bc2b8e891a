"""The configuration: read once when a process starts, from a file and the environment."""

import os
import tomllib
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, tzinfo
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from offhook.call import CALL_LOG, Direction
from offhook.settings_faults import (
    Encoding,
    EventTypes,
    PbxName,
    PluginName,
    RedisUrl,
    Region,
    Secret,
    Zone,
    check_file,
    config_error,
    like,
    read_secret,
)

DEFAULT_FILE = "offhook.toml"

Start = Literal["now", "earliest"]


def _not_reserved(name: str) -> str:
    if name == CALL_LOG:
        raise ValueError("this name is reserved; choose another one")
    return name


HandlerName = Annotated[PluginName, AfterValidator(_not_reserved)]


class HandlerSettings(BaseModel):
    """One `[handlers.NAME]` table: a handler, the events it gets, and how often to retry."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    use: str = Field(description="an installed handler's name, or package.module:name")
    events: EventTypes | None = Field(
        default=None,
        description=(
            "the event types to deliver, or groups of them: raw (the five callbacks), calls, "
            "extensions, summaries; the handler's own choice if not set"
        ),
    )
    extensions: list[str] | None = Field(
        default=None, description="only these extensions, * and ? as wildcards; all if not set"
    )
    direction: Direction | None = Field(
        default=None, description="only incoming, outgoing or internal calls; all if not set"
    )
    pbx: frozenset[str] | None = Field(
        default=None, description="only events of these PBXs; all if not set"
    )
    concurrency: int = Field(
        default=16, ge=1, le=1000, description="maximum number of calls to work on at a time"
    )
    timeout: float = Field(
        default=30.0, gt=0, le=3600, description="maximum seconds for one delivery"
    )
    retry: list[Annotated[float, Field(ge=1, le=31_536_000)]] = Field(
        default=[10, 60, 300, 1800, 7200],
        description="seconds to wait before each redelivery; after the last one: dead letter",
    )
    process: Annotated[
        str, like(r"shared|own|[A-Za-z0-9_-]+", "shared, own, or a name of letters and digits")
    ] = Field(
        default="shared",
        description=(
            "where the handler runs: shared with others, in a process of its own, or with those "
            "that name the same"
        ),
    )
    start: Start = Field(
        default="now", description="begin with new events (now) or with all still kept (earliest)"
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        repr=False,
        description="the handler's own options; NAME_file reads one from a file",
    )

    def pool_of(self, name: str) -> str:
        """The pool of processes that serves the handler of this name; empty: the shared one."""
        return {"shared": "", "own": name}.get(self.process, self.process)


class LookupSettings(BaseModel):
    """One `[lookups.NAME]` table: a source of outside callers' names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    use: str = Field(description="an installed lookup's name, or package.module:name")
    timeout: float = Field(
        default=2.0, gt=0, le=10, description="maximum seconds for an answer, or there is no name"
    )
    lifetime: float | None = Field(
        default=None,
        ge=0,
        le=86400,
        description=(
            "seconds to cache an answer, 0 for no cache; "
            "if not set, the lookup's own value (300, csv: 0)"
        ),
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        repr=False,
        description="the lookup's own options; NAME_file reads one from a file",
    )


class PbxSettings(BaseModel):
    """One `[pbx.NAME]` table: a PBX, and how to sign in to its API if Offhook can use it."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    dialect: Literal["voipnow", "telphin"] = Field(
        default="voipnow",
        description="the format of its callbacks: voipnow, or telphin (also for Ringme)",
    )
    encoding: Encoding | None = Field(
        default=None,
        description=(
            "the encoding of names that are not UTF-8, such as cp1251 or latin-1; "
            "without it, what cannot be read of them is replaced"
        ),
    )
    host: (
        Annotated[
            str,
            like(r"https?://[^\s/?#@]+/?", "an address alone, such as https://pbx.example.com"),
        ]
        | None
    ) = Field(default=None, description="the PBX's address, such as https://pbx.example.com")
    client_id: str | None = Field(
        default=None, description="the key of an app that is registered on the PBX as trusted"
    )
    client_secret: SecretStr | None = Field(default=None, description="the secret of that app")
    token: SecretStr | None = Field(
        default=None, description="instead of key and secret, a token; it is never renewed"
    )
    ca_file: Path | None = Field(
        default=None, description="PEM file of the CA to trust; the well-known ones if not set"
    )
    insecure: bool = Field(
        default=False, description="skip certificate checks, or sign in over plain http://"
    )
    user: Annotated[
        str, like(r"@me|@viewer|@owner|[0-9]+", "@me, @owner, or a user's id in digits")
    ] = Field(
        default="@me",
        description="the owner of the extensions: @me (the app's user), @owner, or a user's id",
    )
    zone: Zone | None = Field(
        default=None,
        description=(
            "the time zone of the PBX's call records, such as Europe/Berlin; "
            "without it calls are not compared with them"
        ),
    )

    @property
    def tzinfo(self) -> tzinfo:
        """The time zone; UTC if it is not set."""
        return UTC if self.zone in (None, "UTC") else ZoneInfo(self.zone)

    @model_validator(mode="before")
    @classmethod
    def _from_files(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values = _read_files(values, cls.model_fields)
        # The environment can only empty a setting of the file, not remove it.
        for name in ("token", "ca_file"):
            if values.get(name) == "":
                del values[name]
        if isinstance(values.get("ca_file"), str | Path):
            values["ca_file"] = config_folder() / values["ca_file"]
        return values

    @model_validator(mode="after")
    def _one_way_in(self) -> "PbxSettings":
        given = sorted(self.model_fields_set - {"dialect", "encoding"})
        if self.dialect == "telphin" and given:
            raise ValueError(
                f"Offhook does not speak the API of telphin: remove {', '.join(given)}"
            )
        if not given:
            return self  # its callback URLs are registered by hand
        if self.host is None:
            raise ValueError(
                "needs a host, such as https://pbx.example.com; "
                f"without access to its API, remove {', '.join(given)}"
            )
        app = (self.client_id, self.client_secret)
        if (self.token is None) == (app == (None, None)):
            raise ValueError("needs either client_id and client_secret, or a token")
        if self.token is None and None in app:
            raise ValueError("client_id and client_secret belong together: one is missing")
        return self


class Settings(BaseSettings):
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
            "sentinel://HOST:PORT,HOST:PORT/NAME/DB?password=...; "
            "with TLS, rediss:// or sentinels://"
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
        description="bytes of a serving process; beyond it the handler that took most is moved",
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
        description="maximum requests per second of one address that is no proxy; as `url_rate`",
    )
    proxies: list[IPvAnyNetwork] = Field(
        default=[IPv4Network("127.0.0.0/8"), IPv6Network("::1/128")],
        description="addresses of your proxies, whose X-Forwarded-For is believed",
    )
    allowed_addresses: list[IPvAnyNetwork] | None = Field(
        default=None, description="the only addresses that may call; all if not set"
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
        return init_settings, env_settings, file

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
        return _read_files(values, cls.model_fields)

    @property
    def revoked_file(self) -> Path:
        """The file of revoked callback URLs."""
        return config_path().parent / self.revoked

    @property
    def pools(self) -> set[str]:
        """The pools of processes that serve the handlers; empty: the shared one."""
        return {policy.pool_of(name) for name, policy in self.handlers.items()}

    @property
    def starts(self) -> dict[str, Start]:
        """The handlers, and where each begins."""
        return {name: each.start for name, each in self.handlers.items()}

    @model_validator(mode="after")
    def _check(self) -> "Settings":
        if self.durability == "replica" and self.replicas is None:
            raise ValueError(
                'replicas: durability "replica" needs it; set it to the number of replicas that '
                "the server has"
            )
        return self


def config_path() -> Path:
    """The configuration file: `$OFFHOOK_CONFIG`, or `offhook.toml` in the working directory."""
    return Path(os.environ.get("OFFHOOK_CONFIG") or DEFAULT_FILE)


def config_folder() -> Path:
    """The folder of the configuration file, where its relative paths start."""
    return config_path().parent.absolute()


def load_settings() -> Settings:
    """Read the configuration.

    Raises:
        ConfigError: every fault, each with the name of its setting.
    """
    path = config_path()
    check_file(path)
    try:
        return Settings()  # type: ignore[call-arg]  # the fields come from file and environment
    except ValidationError as error:
        raise config_error(error, path, _NAMES) from error


_TABLES: dict[str, type[BaseModel]] = {
    "handlers": HandlerSettings,
    "lookups": LookupSettings,
    "pbx": PbxSettings,
}
_NAMES = {"": [*Settings.model_fields]} | {
    kind: [*table.model_fields] for kind, table in _TABLES.items()
}

T = TypeVar("T", bound=BaseModel)


def sound_tables() -> tuple[dict[str, HandlerSettings], dict[str, LookupSettings]]:
    """The tables of handlers and lookups in the file, whatever is wrong with other settings.

    A table with a fault has only its `use` and its `options`.
    """
    try:
        content = tomllib.loads(config_path().read_text("utf-8"))
    except (OSError, ValueError):
        content = {}
    return _sound(content.get("handlers"), HandlerSettings), _sound(
        content.get("lookups"), LookupSettings
    )


def _sound(tables: Any, model: type[T]) -> dict[str, T]:
    sound = {}
    for name, table in tables.items() if isinstance(tables, dict) else ():
        try:
            sound[name] = model.model_validate(table)
        except ValidationError:
            with suppress(ValidationError, AttributeError):
                plugin = {key: table[key] for key in table.keys() & {"use", "options"}}
                sound[name] = model.model_validate(plugin)
    return sound


def _read_files(values: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Replace each `NAME_file` by `NAME`, read from that file."""
    values = dict(values)
    for name in names:
        path = values.pop(f"{name}_file", None)
        if path is not None and name not in values:
            values[name] = read_secret(path, config_folder())
    return values
