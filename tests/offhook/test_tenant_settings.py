"""The tables and files of tenants, and which tenant an extension belongs to."""

from collections.abc import Callable
from pathlib import Path

import pytest

from offhook.errors import ConfigError
from offhook.plugins.checking import check_all
from offhook.settings import Settings, load_settings
from tests.conftest import Configure

ACME = """
[tenants.acme]
extensions = ["main/0003**", "main/0004*210"]
region = "DE"
keep_days = 3
dead_letter_days = 2
quarantine_days = 1.5
[tenants.acme.handlers.crm]
use = "console"
[tenants.acme.lookups.book]
use = "csv"
options.path = "acme.csv"
"""


@pytest.fixture
def loaded(configure: Configure) -> Callable[..., Settings]:
    """Return a function that writes a configuration with files of tenants, and loads it."""

    def load(text: str, **files: str) -> Settings:
        folder = configure(text).parent / "tenants"
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            (folder / f"{name}.toml").write_text(content)
        return load_settings()

    return load


def test_without_tenants_all_is_the_operators(loaded: Callable[..., Settings]) -> None:
    settings = loaded('[handlers.crm]\nuse = "console"\n')
    assert settings.tenant_of("main", "0003*210") == ""
    assert settings.handlers_for("") == settings.all_handlers == settings.handlers
    assert settings.of("") is settings


def test_a_tenants_settings_hold_before_the_operators(loaded: Callable[..., Settings]) -> None:
    settings = loaded(
        'region = "GB"\n[handlers.crm]\nuse = "console"\n'
        '[handlers.all]\nuse = "console"\ntenants = "all"\n'
        '[handlers.some]\nuse = "console"\ntenants = ["beta"]\n' + ACME,
        beta='extensions = ["main/0005**"]\n[handlers.crm]\nuse = "console"\n',
    )
    acme, beta = settings.of("acme"), settings.of("beta")
    assert (acme.region, beta.region, settings.region) == ("DE", "GB", "GB")
    assert (acme.keep_days, beta.keep_days) == (3, 7)
    assert (acme.dead_letter_days, beta.dead_letter_days) == (2, 90)
    assert (acme.quarantine_days, beta.quarantine_days) == (1.5, 30)
    assert (acme.tenant, beta.tenant, settings.tenant) == ("acme", "beta", "")
    assert [*acme.handlers] == ["acme/crm"]
    assert [*acme.lookups] == ["acme/book"]
    assert {*settings.handlers_for("acme")} == {"all", "acme/crm"}
    assert {*settings.handlers_for("beta")} == {"all", "some", "beta/crm"}
    assert {*settings.handlers_for("")} == {"crm", "all", "some"}
    assert {*settings.all_handlers} == {"crm", "all", "some", "acme/crm", "beta/crm"}


def test_a_tenants_users_sign_in_with_its_name(loaded: Callable[..., Settings]) -> None:
    user = '[{}.ruth]\npassword = "$argon2id$x"\nrole = "{}"\n'
    settings = loaded(
        ACME
        + user.format("console.users", "operator")
        + user.format("tenants.acme.users", "agent"),
        beta='extensions = ["main/0005**"]\n' + user.format("users", "viewer"),
    )
    found = {name: (each.tenant, each.role) for name, each in settings.console.users.items()}
    assert found == {
        "ruth": ("", "operator"),
        "acme/ruth": ("acme", "agent"),
        "beta/ruth": ("beta", "viewer"),
    }


@pytest.mark.parametrize(
    ("table", "wrong"),
    [
        ('role = "operator"', "tenants.beta.users.tom.role: a user of a tenant cannot be"),
        ('role = "viewer"\ntenant = "acme"', "tenants.beta.users.tom.tenant: only the operator's"),
    ],
)
def test_a_tenants_user_stays_in_the_tenant(
    loaded: Callable[..., Settings], table: str, wrong: str
) -> None:
    user = f'[users.tom]\npassword = "$argon2id$x"\n{table}\n'
    with pytest.raises(ConfigError, match=wrong):
        loaded(ACME, beta='extensions = ["main/0005**"]\n' + user)


def test_the_most_exact_claim_decides(loaded: Callable[..., Settings]) -> None:
    settings = loaded(
        ACME, beta='extensions = ["main/0004**", "main/300"]', rest='extensions = ["main/0004*21?"]'
    )
    found = {
        extension: settings.tenant_of("main", extension)
        for extension in ("0003*210", "0003*", "0004*210", "0004*211", "0004*300", "300", "3000")
    }
    assert found == {
        "0003*210": "acme",
        "0003*": "acme",
        "0004*210": "acme",
        "0004*211": "rest",
        "0004*300": "beta",
        "300": "beta",
        "3000": "",
    }
    assert settings.tenant_of("other", "0003*210") == ""


def test_what_is_remembered_of_extensions_is_bounded(loaded: Callable[..., Settings]) -> None:
    settings = loaded(ACME)
    for number in range(100_000):
        settings.tenant_of("main", f"0003*{number}")
    assert settings.claims.tenant.cache_info().currsize < 70_000


def test_own_code_runs_apart_and_needs_the_operator(loaded: Callable[..., Settings]) -> None:
    own = '[handlers.crm]\nuse = "acme_code:Crm"\n[handlers.web]\nuse = "console"\n'
    with pytest.raises(ConfigError) as refused:
        loaded("", acme='extensions = ["main/0003**"]\n' + own)
    assert refused.value.problems == [
        "tenants.acme.handlers.crm.use: 'acme_code:Crm' is no installed plugin; own code needs "
        "own_code = true in [tenants.acme] of the operator's configuration"
    ]
    with pytest.raises(ConfigError, match=r"tenants.acme.own_code: is the operator's"):
        loaded("", acme='own_code = true\nextensions = ["main/0003**"]\n' + own)
    settings = loaded(
        "[tenants.acme]\nown_code = true\n", acme='extensions = ["main/0003**"]\n' + own
    )
    pools = {name: each.pool_of(name) for name, each in settings.all_handlers.items()}
    assert pools == {"acme/crm": "acme/code", "acme/web": ""}
    # A delivery asks the lookups, where it is made.
    settings = loaded(
        "[tenants.acme]\nown_code = true\n",
        acme='extensions = ["main/0003**"]\n[handlers.web]\nuse = "console"\n'
        '[handlers.fast]\nuse = "console"\nprocess = "fast"\n'
        '[lookups.book]\nuse = "acme_code:Book"\n',
    )
    assert settings.pools == {"acme/code", "acme/fast"}


def test_pools_of_tenants_have_names_of_their_own(loaded: Callable[..., Settings]) -> None:
    table = 'extensions = ["main/{}**"]\n[handlers.crm]\nuse = "console"\nprocess = "{}"\n'
    settings = loaded(
        '[handlers.crm]\nuse = "console"\nprocess = "fast"\n',
        acme=table.format("0003", "fast"),
        beta=table.format("0004", "own"),
    )
    assert settings.pools == {"fast", "acme/fast", "beta/crm"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[tenants.acme]\n", "tenants.acme.extensions: is not set, and must be"),
        (
            "[tenants.Acme]\nextensions = []\n",
            "tenants.Acme: must be named with lower-case letters, digits, - and _",
        ),
        (
            '[tenants.acme]\nextensions = ["0003**"]\n',
            "tenants.acme.extensions.0: '0003**' must be a PBX and its extensions, such as "
            "main/0003** or main/0003*210",
        ),
        (
            '[tenants.acme]\nextensions = ["main/0003 *"]\n',
            "tenants.acme.extensions.0: 'main/0003 *': after the PBX comes an extension, with * "
            "and ? as wildcards",
        ),
        (
            '[pbx.uk]\n[tenants.acme]\nextensions = ["main/0003**"]\n',
            "tenants.acme.extensions: main/0003**: no PBX is called 'main', only uk",
        ),
        (
            'tenants.a.extensions = ["main/0003**"]\ntenants.b.extensions = ["main/0003**"]\n',
            "tenants.b.extensions: main/0003** belongs to a already",
        ),
        (
            '[handlers.crm]\nuse = "console"\ntenants = ["acme"]\n',
            "handlers.crm.tenants: there is no tenant acme",
        ),
        (
            '[tenants.acme]\nextensions = []\nhandlers.crm = {use = "console", tenants = "all"}\n',
            "tenants.acme.handlers.crm.tenants: only the operator's may have it",
        ),
        (
            '[tenants.acme]\nextensions = []\nhandlers.crm = {use = "console", timeoutt = 1}\n',
            "tenants.acme.handlers.crm.timeoutt: there is no such setting; did you mean 'timeout'?",
        ),
        (
            '[tenants.acme]\nextensions = []\nlimits.handlers = 0\nhandlers.crm.use = "console"\n',
            "tenants.acme.handlers: 1 are more than its limits.handlers (0)",
        ),
        (
            "[tenants.acme]\nextensions = []\n[tenants.acme.pbx.uk]\n",
            "tenants.acme.pbx.uk: no such PBX, only main",
        ),
    ],
)
def test_a_wrong_tenant_is_named(loaded: Callable[..., Settings], text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        loaded(text)
    assert refused.value.problems == [problem]


def test_a_damaged_file_of_a_tenant_is_named(loaded: Callable[..., Settings]) -> None:
    with pytest.raises(ConfigError, match=r"acme\.toml, line 1: is not TOML"):
        loaded("", acme="extensions = nothing\n")


def test_a_wrong_plugin_is_named_with_its_tenant(configure: Configure, tmp_path: Path) -> None:
    configure(
        '[tenants.acme]\nextensions = ["main/0003**"]\n'
        '[tenants.acme.handlers.crm]\nuse = "webhook"\n'
        '[tenants.acme.lookups.book]\nuse = "csv"\noptions.path = "none.csv"\n'
    )
    found = check_all()
    assert found.problems == ["tenants.acme.handlers.crm.options.url: is not set, and must be"]
    assert [each.partition(":")[0] for each in found.warnings] == ["tenants.acme.lookups.book"]
