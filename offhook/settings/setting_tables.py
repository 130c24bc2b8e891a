"""The tables of the configuration: one for each handler, lookup and PBX."""

from datetime import UTC, tzinfo
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from offhook.call import CALL_LOG, Direction
from offhook.settings.config_file import config_folder, read_files
from offhook.settings.faults import Encoding, EventTypes, PluginName, Zone, like

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
            "extensions, summaries, trouble; the handler's own choice if not set"
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
    tenants: Literal["all"] | frozenset[PluginName] | None = Field(
        default=None,
        description=(
            "tenants whose events a handler of the operator also gets: all, or a list; none if not "
            "set"
        ),
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
            "where the handler runs: shared (with others), own (a process for it alone), or any "
            "other name, shared by the handlers that give the same"
        ),
    )
    start: Start = Field(
        default="now",
        description="begin with new events (now) or with the oldest in the inbox (earliest)",
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        repr=False,
        description="the handler's own options; NAME_file reads one from a file",
    )

    def pool_of(self, name: str) -> str:
        """The pool of processes that serves the handler of this name; empty: the shared one.

        A tenant's pools are its own: `TENANT/POOL`.
        """
        tenant, slash, _ = name.rpartition("/")
        return {"shared": "", "own": name}.get(self.process, f"{tenant}{slash}{self.process}")

    def gets(self, tenant: str) -> bool:
        """Return whether a handler of the operator gets this tenant's events."""
        return not tenant or self.tenants == "all" or tenant in (self.tenants or ())


class LookupSettings(BaseModel):
    """One `[lookups.NAME]` table: a source of outside callers' names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    use: str = Field(description="an installed lookup's name, or package.module:name")
    timeout: float = Field(
        default=2.0,
        gt=0,
        le=10,
        description="maximum seconds for an answer; without one, the event has no name",
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
            "without it, unreadable characters are replaced"
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
        values = read_files(values, cls.model_fields)
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
