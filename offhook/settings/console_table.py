"""The table `[console]`: the people who may sign in to the console, and their API tokens."""

import re
from collections.abc import Collection, Iterator
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from offhook.settings.config_file import read_files
from offhook.settings.faults import like

Role = Literal["viewer", "agent", "supervisor", "operator"]
Scope = Literal["calls", "numbers", "live", "dial", "deliveries", "repair", "people"]
NO_OPERATOR = (
    "a user of a tenant cannot be an operator, who sees handlers and dead letters: "
    "choose supervisor"
)
POP_URL = ("number", "e164", "name", "did", "call")  # what may be in the URL of a screen pop

UserName = Annotated[
    str,
    like(
        r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}",
        "a name of letters, digits, and . _ @ + -, such as ruth or ruth@example.com",
    ),
]
TokenName = Annotated[
    str, like(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}", "named with letters, digits, - and _")
]


def _hash(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().startswith("$argon2id$"):
        raise ValueError("must be a hash that `offhook console user` prints, not the password")
    return value


def _pop_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or "{" in parts.netloc:
        raise ValueError(
            "must be a URL with http or https, such as https://crm.example.com/search?q={e164}, "
            "and nothing in braces before its path"
        )
    unknown = [name for name in re.findall(r"{(.*?)}", value) if name not in POP_URL]
    if unknown:
        raise ValueError(
            f"knows no {{{unknown[0]}}}: only {', '.join(f'{{{n}}}' for n in POP_URL)}"
        )
    return value


PopUrl = Annotated[str, AfterValidator(_pop_url)]


class ConsoleToken(BaseModel):
    """One `[console.users.NAME.tokens.TOKEN]` table: a token of the API."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hash: Annotated[
        str, like(r"sha256:[0-9a-f]{64}", "a hash that `offhook console token` prints")
    ] = Field(repr=False, description="the hash that `offhook console token` prints")
    scopes: frozenset[Scope] = Field(
        description=(
            "what the token may do, within the user's role: calls, numbers (not masked), live "
            "(screen pops of the own extensions), dial (calls from the own extensions), "
            "deliveries (handlers, dead letters, quarantine), repair (change them), "
            "people (users and wall links)"
        )
    )


class ConsoleUser(BaseModel):
    """One `[console.users.NAME]` table: a person who may sign in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    password: Annotated[SecretStr, AfterValidator(_hash)] = Field(
        description="the hash that `offhook console user` prints"
    )
    role: Role = Field(
        description=(
            "viewer (calls, numbers masked), agent (calls of own extensions), "
            "supervisor (all calls) or operator (deliveries, too)"
        )
    )
    tenant: str = Field(
        default="", description="the tenant whose calls the user sees; the operator's if not set"
    )
    extensions: list[str] = Field(
        default=[],
        description=(
            "the user's own extensions, such as 0003*210: an agent sees their calls, and every "
            "role gets their screen pops and dials from the first one"
        ),
    )
    pop_url: PopUrl | None = Field(
        default=None,
        description="the URL that the user's screen pop opens, instead of the console's",
    )
    tokens: dict[TokenName, ConsoleToken] = Field(
        default_factory=dict, description="the user's API tokens, a table each"
    )


class OidcSettings(BaseModel):
    """The `[console.oidc]` table: an OpenID provider at which people sign in."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    issuer: Annotated[
        str,
        like(
            r"https://[^\s?#@]+|http://(localhost|127\.0\.0\.1)(:[0-9]+)?(/[^\s?#@]*)?",
            "the https address of the provider, such as https://login.example.com/realms/acme",
        ),
    ] = Field(description="the provider's address, as its discovery document says it")
    client_id: str = Field(min_length=1, description="the id of this console at the provider")
    client_secret: SecretStr | None = Field(
        default=None, description="the secret of that client; a public client has none"
    )
    label: str = Field(default="single sign-on", description="the words on the button")
    scopes: list[str] = Field(
        default=["openid", "profile", "email"], description="the scopes to ask for"
    )
    name_claim: str = Field(
        default="email", description="the claim that is the user's name in this console"
    )
    role_claim: str = Field(
        default="groups", description="the claim that says the role, a text or a list of texts"
    )
    roles: dict[str, Role] = Field(
        default_factory=dict,
        description="role of each value of that claim; of several, the one with most rights",
    )
    default_role: Role | None = Field(
        default=None, description="role of everyone else; without it, they get in not at all"
    )
    extensions_claim: str = Field(
        default="extensions", description="the claim with the user's own extensions"
    )
    tenant_claim: str | None = Field(
        default=None,
        description="the claim with the user's tenant; without it, all are the operator's",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_files(cls, values: Any) -> Any:
        """Read a setting from the file that `NAME_file` names."""
        return read_files(values, cls.model_fields) if isinstance(values, dict) else values


class ConsoleSettings(BaseModel):
    """The `[console]` table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    users: dict[UserName, ConsoleUser] = Field(
        default_factory=dict, description="who may sign in to the console, a table each"
    )
    oidc: OidcSettings | None = Field(
        default=None, description="the OpenID provider at which people may sign in"
    )
    session_hours: float = Field(
        default=12.0, gt=0, le=8760, description="hours until a person must sign in again"
    )
    answer_within: float = Field(
        default=20.0,
        gt=0,
        le=3600,
        description="seconds within which a call should be answered, for the service level",
    )
    pop_url: PopUrl | None = Field(
        default=None,
        description=(
            "the URL that a screen pop opens, such as https://crm.example.com/search?q={e164}; "
            "{number}, {e164}, {name}, {did} and {call} are replaced, percent-encoded"
        ),
    )
    origins: list[
        Annotated[
            str, like(r"https?://[^\s/?#@]+", "an origin such as https://console.example.com")
        ]
    ] = Field(
        default=[],
        description="the origins under which a proxy publishes the console",
    )


def wrong_users(console: ConsoleSettings, tenants: Collection[str]) -> Iterator[str]:
    """What is wrong with users of tenants, a sentence each.

    Args:
        tenants: those that are configured.
    """
    for name, user in console.users.items():
        if user.tenant and user.tenant not in tenants:
            yield f"console.users.{name}.tenant: there is no tenant {user.tenant!r}"
        elif user.tenant and user.role == "operator":
            yield f"console.users.{name}.role: {NO_OPERATOR}"
