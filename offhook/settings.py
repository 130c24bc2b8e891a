"""The configuration: read once at the start of a process, from file and environment."""

import os
import re
from collections.abc import Iterable
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from offhook.call import Direction
from offhook.errors import ConfigError
from offhook.event import GROUPS, EventType
from offhook.inbox.keys import CALL_LOG
from offhook.redis_url import check_url

DEFAULT_FILE = "offhook.toml"
HANDLER_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
PBX_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


def _secret(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value()) < 32:
        raise ValueError("is shorter than 32 characters; `offhook init` makes a good one")
    return value


def _event_types(value: Any) -> Any:
    """The event types, each group replaced by what is in it."""
    if not isinstance(value, list | tuple | set | frozenset):
        return value  # pydantic says what it should be
    if unknown := [name for name in value if name not in {*GROUPS, *EventType}]:
        raise ValueError(
            f"there is no event type {', '.join(map(repr, unknown))}, only {', '.join(EventType)}, "
            f"and the groups {', '.join(GROUPS)}"
        )
    return frozenset(each for name in value for each in GROUPS.get(name, (name,)))


Secret = Annotated[SecretStr, AfterValidator(_secret)]


def _like(pattern: str, what: str) -> AfterValidator:
    """A text of this form; `what` says to a person which that is."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"must be {what}")
        return value

    return AfterValidator(check)


def _redis_url(value: str) -> str:
    if not value.startswith(("redis://", "rediss://", "unix://", "sentinel://")):
        raise ValueError("must begin with redis://, rediss://, unix:// or sentinel://")
    try:
        check_url(value)
    except ValueError:
        # Not its message: it may hold a part of the password.
        raise ValueError("is no URL of a Redis server; is the password percent-encoded?") from None
    return value


def _zone(value: str) -> str:
    try:
        if value != "UTC":
            ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            "is no time zone such as Europe/Berlin, or this machine has no database of them "
            "(Debian: apt install tzdata)"
        ) from None
    return value


class HandlerSettings(BaseModel):
    """One `[handlers.NAME]` table: which handler, what it gets, and how hard to try."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    use: str = Field(description="an installed handler's name, or package.module:name")
    events: Annotated[frozenset[EventType], BeforeValidator(_event_types)] | None = Field(
        default=None,
        description=(
            "the event types it gets, or groups of them: raw (the five callbacks), calls, "
            "extensions, summaries; what the handler is made for when not set"
        ),
    )
    extensions: list[str] | None = Field(
        default=None, description="the extensions it gets, * and ? as wildcards; all when not set"
    )
    direction: Direction | None = Field(
        default=None, description="only incoming, outgoing or internal calls; all when not set"
    )
    pbx: frozenset[str] | None = Field(
        default=None, description="the PBXs it gets events of; all when not set"
    )
    concurrency: int = Field(
        default=16, ge=1, le=1000, description="how many calls it works on at once"
    )
    timeout: float = Field(
        default=30.0, gt=0, le=3600, description="seconds that one delivery may take"
    )
    retry: list[Annotated[float, Field(ge=1, le=31_536_000)]] = Field(
        default=[10, 60, 300, 1800, 7200],
        description="seconds to wait before each redelivery; after the last one: dead letter",
    )
    start: Literal["now", "earliest"] = Field(
        default="now", description="where a new handler begins: with new events, or all still kept"
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        repr=False,
        description="the handler's own options; NAME_file reads one from a file",
    )


class LookupSettings(BaseModel):
    """One `[lookups.NAME]` table: who is asked for the name of an outside caller."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    use: str = Field(description="an installed lookup's name, or package.module:name")
    timeout: float = Field(
        default=2.0,
        gt=0,
        le=10,
        description="seconds that it has for an answer; then the event goes on without",
    )
    lifetime: float | None = Field(
        default=None,
        ge=0,
        le=86400,
        description=(
            "seconds that an answer is remembered, 0: it is asked each time; "
            "if not set, as the lookup itself says (300, csv: 0)"
        ),
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        repr=False,
        description="the lookup's own options; NAME_file reads one from a file",
    )


class PbxSettings(BaseModel):
    """One `[pbx.NAME]` table: a PBX, and how to sign in to its API, where that is spoken."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    dialect: Literal["voipnow", "telphin"] = Field(
        default="voipnow",
        description="what its callbacks look like: voipnow, or telphin (which is Ringme's, too)",
    )
    host: (
        Annotated[
            str,
            _like(r"https?://[^\s/?#@]+/?", "an address alone, such as https://pbx.example.com"),
        ]
        | None
    ) = Field(default=None, description="the PBX's address, such as https://pbx.example.com")
    client_id: str | None = Field(
        default=None, description="the key of an app that is registered on the PBX as trusted"
    )
    client_secret: SecretStr | None = Field(default=None, description="the secret of that app")
    token: SecretStr | None = Field(
        default=None, description="instead of key and secret, a token that nobody renews"
    )
    ca_file: Path | None = Field(
        default=None,
        description="the certificate authority to trust, as PEM; the well-known ones if not set",
    )
    insecure: bool = Field(
        default=False,
        description="do not check the PBX's certificate, or sign in over plain http://",
    )
    user: Annotated[
        str, _like(r"@me|@viewer|@owner|[0-9]+", "@me, @owner, or a user's id in digits")
    ] = Field(
        default="@me",
        description="whose extensions they are: @me (the app's user), @owner, or a user's id",
    )
    zone: Annotated[str, AfterValidator(_zone)] | None = Field(
        default=None,
        description=(
            "the PBX's time zone, such as Europe/Berlin, in which it dates its call records; "
            "without it calls are not compared with them"
        ),
    )

    @property
    def tzinfo(self) -> tzinfo:
        """Its time zone; UTC if it was not said. UTC needs no database of them."""
        return UTC if self.zone in (None, "UTC") else ZoneInfo(self.zone)

    @model_validator(mode="before")
    @classmethod
    def _from_files(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values = _read_files(values, cls.model_fields)
        if isinstance(values.get("ca_file"), str | Path):
            values["ca_file"] = config_path().parent / values["ca_file"]
        return values

    @model_validator(mode="after")
    def _one_way_in(self) -> "PbxSettings":
        if self.dialect == "telphin":
            if needless := ", ".join(sorted(self.model_fields_set - {"dialect"})):
                raise ValueError(f"Offhook does not speak the API of telphin: remove {needless}")
            return self
        if self.host is None:
            raise ValueError("needs a host, such as https://pbx.example.com")
        app = (self.client_id, self.client_secret)
        if (self.token is None) == (app == (None, None)):
            raise ValueError("needs either client_id and client_secret, or a token")
        if self.token is None and None in app:
            raise ValueError("client_id and client_secret belong together: one is missing")
        return self


class Settings(BaseSettings):
    """Everything that can be set. Environment variables (`OFFHOOK_...`) win over the file."""

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
        _like(
            r"https?://[^\s?#]+",
            "a URL such as https://offhook.example.com, without a question mark, # or blank",
        ),
    ] = Field(default="http://127.0.0.1:8080", description="where the PBX reaches the receiver")
    redis_url: Annotated[str, AfterValidator(_redis_url)] = Field(
        default="redis://127.0.0.1:6379/0",
        repr=False,
        description=(
            "the Redis or Valkey server; or who names it: "
            "sentinel://HOST:PORT,HOST:PORT/NAME/DB?password=..."
        ),
    )
    durability: Literal["server", "disk", "replica"] = Field(
        default="server",
        description=(
            "where an event must be before it is answered 200: with the server (which writes it "
            "to its disk as its appendfsync says), on the server's disk, or on a replica, too"
        ),
    )
    partitions: int = Field(
        default=1,
        ge=1,
        le=256,
        description="streams of the inbox; more let one handler use more cores",
    )
    duplicate_window: float = Field(
        default=5.0,
        ge=0,
        le=86400,
        description="seconds in which an identical callback is taken for a repeat; 0: never",
    )
    journal: Path = Field(
        default=Path("journal"),
        description="a folder on a disk, for events that Redis cannot take yet",
    )
    journal_size: int = Field(
        default=1_000_000_000,
        ge=1_000_000,
        description="bytes that the journal of one receiver process may have",
    )
    patience: float = Field(
        default=2.0,
        gt=0,
        description="seconds that Redis has to take events, then the journal does",
    )
    region: (
        Annotated[str, _like(r"[A-Z]{2}", "a country's two letters, in capitals, such as GB")]
        | None
    ) = Field(
        default=None,
        description=(
            "the country whose numbers are dialled without a prefix, such as GB; "
            "without it only numbers that begin with + are known in full"
        ),
    )
    settle: float = Field(
        default=3.0,
        ge=0,
        le=60,
        description="seconds after the last hangup until a call is taken for ended",
    )
    call_timeout: float = Field(
        default=14400.0,
        ge=60,
        le=31_536_000,
        description="seconds without an event, then a call is closed whose end never came",
    )
    daily_summary: (
        Annotated[
            str, _like(r"([01][0-9]|2[0-3]):[0-5][0-9]", "a time of day, such as 18:00 or 07:30")
        ]
        | None
    ) = Field(
        default=None,
        description="when, in local time, to tell handlers how the day's calls went, such as 18:00",
    )
    keep_days: float = Field(
        default=7.0,
        gt=0,
        le=36_500,
        description="days that delivered events stay in the inbox, for replays",
    )
    max_events: int | None = Field(
        default=None,
        ge=1000,
        description=(
            "events that the inbox may hold; beyond it the oldest are forgotten, also those that a "
            "handler has not got; no such limit when not set"
        ),
    )
    max_body: int = Field(
        default=65536, ge=1024, description="bytes that a callback's query or body may have"
    )
    max_parameters: int = Field(
        default=100, ge=10, description="parameters that a callback may have"
    )
    max_parameter_length: int = Field(
        default=4096, ge=64, description="characters that one parameter may have"
    )
    read_timeout: float = Field(
        default=10.0, gt=0, le=3600, description="seconds that a callback may take to arrive"
    )
    quarantine_size: int = Field(
        default=1000, ge=0, description="refused callbacks kept for a person to look at"
    )
    handlers: dict[str, HandlerSettings] = Field(
        default_factory=dict, description="the handlers, one table each"
    )
    lookups: dict[str, LookupSettings] = Field(
        default_factory=dict,
        description="who knows the names of outside callers, one table each, asked in this order",
    )
    pbx: dict[str, PbxSettings] = Field(
        default_factory=dict,
        description="the PBXs on which `offhook setup` works, one table each",
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
        """`NAME_file`, or `OFFHOOK_NAME_FILE`, names a file that holds the value of a setting."""
        if not isinstance(values, dict):
            return values
        values = dict(values)
        for name in cls.model_fields:
            path = os.environ.get(f"OFFHOOK_{name.upper()}_FILE")
            if path:
                values[f"{name}_file"] = path
        return _read_files(values, cls.model_fields)

    @property
    def cursors(self) -> dict[str, Literal["now", "earliest"]]:
        """Whose cursors the inbox has, and where a new one begins: the handlers', and our own."""
        starts: dict[str, Literal["now", "earliest"]] = {
            name: handler.start for name, handler in self.handlers.items()
        }
        return starts | {CALL_LOG: "now"}

    @model_validator(mode="after")
    def _names(self) -> "Settings":
        if CALL_LOG in self.handlers:
            raise ValueError(
                f"handlers.{CALL_LOG}: is the name of Offhook's own cursor; give it another one"
            )
        for name in self.handlers:
            if not HANDLER_NAME.fullmatch(name):
                raise ValueError(
                    f"handlers.{name}: a handler's name is lower-case letters, digits, - and _"
                )
        for name in self.lookups:
            if not HANDLER_NAME.fullmatch(name):
                raise ValueError(
                    f"lookups.{name}: a lookup's name is lower-case letters, digits, - and _"
                )
        for name in self.pbx:
            if not PBX_NAME.fullmatch(name):
                raise ValueError(f"pbx.{name}: a PBX's name is letters, digits, - and _")
        return self


def config_path() -> Path:
    """The configuration file: `$OFFHOOK_CONFIG`, or `offhook.toml` in the working directory."""
    return Path(os.environ.get("OFFHOOK_CONFIG") or DEFAULT_FILE)


def load_settings() -> Settings:
    """Read the configuration.

    Raises:
        ConfigError: every fault at once, each with the name of its setting.
    """
    _check_file()
    try:
        return Settings()  # type: ignore[call-arg]  # the fields come from file and environment
    except ValidationError as error:
        raise ConfigError(
            [_sentence(fault) for fault in error.errors(include_url=False)]
        ) from error
    except ValueError as error:  # the file is not TOML
        raise ConfigError(f"{config_path()}: {error}") from error


def _check_file() -> None:
    """Raise a `ConfigError` when the file is not there although it was named, or is not to be read.

    Without it all would begin, with no handlers: the environment may hold enough for that.
    """
    path = config_path()
    try:
        path.open("rb").close()
    except FileNotFoundError as error:
        if os.environ.get("OFFHOOK_CONFIG"):
            raise ConfigError(
                f"OFFHOOK_CONFIG: there is no file {path}; correct it, or let `offhook init` write "
                "one (who configures by environment variables alone leaves it empty)"
            ) from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def _read_files(values: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Replace each `NAME_file` by `NAME`, read from that file."""
    values = dict(values)
    for name in names:
        key = f"{name}_file"
        path = values.pop(key, None)
        if path and name not in values:
            location = config_path().parent / path
            try:
                values[name] = location.read_text().strip()
            except OSError as error:
                raise ValueError(f"{key}: cannot read {location}: {error.strerror}") from error
    return values


def _sentence(fault: ErrorDetails) -> str:
    name = ".".join(map(str, fault["loc"]))
    if fault["type"] == "missing" and name == "secret":
        where = "" if config_path().exists() else f", and no {DEFAULT_FILE} in {Path.cwd()}"
        return (
            f"secret: there is none{where}; without it anybody could send events. "
            "Name your configuration in OFFHOOK_CONFIG, let `offhook init` write one, "
            "or set OFFHOOK_SECRET or OFFHOOK_SECRET_FILE"
        )
    message = what_is_wrong(fault)
    return f"{name}: {message}" if name else message


# What pydantic says to programmers, as one says it to people. {...} is from the fault's context.
_FAULTS = {
    "missing": "is not set, and must be",
    "extra_forbidden": "there is no such setting",
    "unexpected_keyword_argument": "there is no such option",
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be {le:g} or less",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "string_type": "must be a text, in quotes",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list, in [ and ]",
    "frozen_set_type": "must be a list, in [ and ]",
    "dict_type": "must be a table",
    "model_type": "must be a table",
}


def what_is_wrong(fault: ErrorDetails) -> str:
    """A fault that pydantic found, without the setting's name, in words for the operator."""
    if fault["type"] in _FAULTS:
        return _FAULTS[fault["type"]].format(**fault.get("ctx", {}))
    return fault["msg"].removeprefix("Value error, ")
