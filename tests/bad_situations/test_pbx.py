"""What an integrator reads when the PBX cannot be used."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from tests.conftest import Configure
from tests.offhook.sandbox import Sandbox, sandbox
from tests.offhook_cli.conftest import Offhook
from tests.unifiedapi.serving import serve
from unifiedapi.client import UnifiedApi
from unifiedapi.sandbox.tls import make_certificate


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait between retries."""
    for module in ("api", "registrar"):
        monkeypatch.setattr(
            f"offhook.provisioning.{module}.UnifiedApi", partial(UnifiedApi, waits=())
        )


@pytest.fixture(scope="module")
def pbx() -> Iterator[Sandbox]:
    with sandbox() as running:
        yield running


HOST = 'host = "URL"\n'
APP = HOST + 'client_id = "sandbox-app"\nclient_secret = "sandbox-secret"\n'
NO_SUCH_EXTENSION = (
    "the PBX refuses: extension_invalid (400): The extension must be the number of an existing "
    "extension of the kind that this request is for; @self only where it is allowed."
)
# The table [pbx.main], what is typed, and what is said; `URL` is a sandbox PBX.
SITUATIONS = {
    (f'{HOST}client_id = "sandbox-app"\nclient_secret = "wrong"', "presence"): (
        "the PBX gives no token: invalid_client (401): The app or its secret is unknown: "
        "check client_id and client_secret"
    ),
    (f'{HOST}client_id = "another"\nclient_secret = "sandbox-secret"', "presence"): (
        "the PBX gives no token: invalid_client (401): The app or its secret is unknown: "
        "check client_id and client_secret"
    ),
    (f'{HOST}token = "revoked"', "presence"): (
        "the PBX refuses: access_denied (401): You are not authorized to perform this request: "
        "check the token and its user"
    ),
    ('host = "http://127.0.0.1:1"\ntoken = "x"', "presence"): (
        "127.0.0.1:1 could not be reached: All connection attempts failed: "
        "check host, the network and the firewall"
    ),
    ('host = "https://no.such.host.invalid"\ntoken = "x"', "presence"): (
        "no.such.host.invalid could not be reached: [Errno -2] Name or service not known: "
        "check host, the network and the firewall"
    ),
    ('host = "https://x"\ntoken = "x"\nca_file = "no.pem"', "presence"): (
        "pbx.main: ca_file: cannot use HERE/no.pem: No such file or directory"
    ),
    ('host = "https://x"\ntoken = "x"\nca_file = "offhook.toml"', "presence"): (
        "pbx.main: ca_file: cannot use HERE/offhook.toml: it is not a PEM file"
    ),
    ("", "presence"): "pbx.main: has no host: set it, and client_id and client_secret_file",
    ('dialect = "telphin"', "presence"): "pbx.main: Offhook does not speak the API of telphin",
    (APP, "presence 0003*999"): NO_SUCH_EXTENSION,
    (APP, "presence --user 99"): (
        "the PBX refuses: user_invalid (400): The userId must be a user's id, @me, @viewer or "
        "@owner."
    ),
    (APP, "presence --user jane"): "'jane' is not @me, @viewer, @owner or a user's number",
    (APP, "presence --pbx office"): "no PBX is configured as 'office'; configured: main",
    (APP, "agents 0003*210"): NO_SUCH_EXTENSION,
    (APP, "setup"): "name extensions, or use --file, --all or --known",
    (APP, "setup 0003*999 --yes"): f"! main 0003*999: {NO_SUCH_EXTENSION}",
    (APP, "setup 0003*210 --events hangups"): (
        "hangups is not an event type: choose from dial-in, dial-out, hangup, answer-in, answer-out"
    ),
    (APP, "setup 0003*210 --handlers crm"): "no handler is configured as 'crm'; configured: none",
    (APP, "setup --file no.csv"): "no.csv: cannot be read: No such file or directory",
    (APP, "setup apply no.toml"): "no.toml: cannot be read: No such file or directory",
    ("", "setup --all"): "--all: there is no access to the API of the PBX main: name the phones",
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_pbx_that_cannot_be_used_is_explained(
    situation: tuple[str, str], pbx: Sandbox, configure: Configure, offhook: Offhook, tmp_path: Path
) -> None:
    table, typed = situation
    configure(f"[pbx.main]\n{table.replace('URL', pbx.url)}\n")
    result = offhook(*typed.split())
    assert result.exit_code in (1, 2)
    assert result.stdout == ""
    assert result.stderr.replace(str(tmp_path), "HERE").splitlines()[-1] == SITUATIONS[situation]


ANSWERS: dict[str, tuple[Response, str]] = {
    "a web page": (
        HTMLResponse("<h1>Welcome</h1>"),
        "the response is not one of UnifiedAPI: the response (200) is not JSON: check host",
    ),
    "another API": (
        JSONResponse({"users": []}),
        "the response is not one of UnifiedAPI: not a Page: Object missing required field `entry`: "
        "check host",
    ),
    "no such path": (
        PlainTextResponse("Not Found", 404),
        "the PBX refuses: HTTP error (404): check host",
    ),
    "overloaded": (
        PlainTextResponse("busy", 503),
        "the PBX refuses: HTTP error (503): try again later",
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_host_that_is_no_pbx_is_explained(
    name: str, configure: Configure, offhook: Offhook
) -> None:
    answer, sentence = ANSWERS[name]
    with serve(answer) as url:
        configure(f'[pbx.main]\nhost = "{url}"\ntoken = "x"\n')
        result = offhook("presence")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.replace(url.partition("://")[2], "HOST") == f"{sentence}\n"


def test_an_untrusted_certificate_is_explained(
    configure: Configure, offhook: Offhook, tmp_path: Path
) -> None:
    made = make_certificate(tmp_path, "localhost", "127.0.0.1")
    with serve(HTMLResponse(""), made) as url:
        configure(f'[pbx.main]\nhost = "{url}"\ntoken = "x"\n')
        result = offhook("presence")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.replace(url.partition("://")[2], "HOST") == (
        "the certificate of HOST is not trusted: unable to get local issuer certificate; "
        "if the PBX uses its own CA, set ca_file to that CA's certificate\n"
    )
