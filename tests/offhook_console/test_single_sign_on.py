"""Signing in at a real OpenID provider: redirects, nonce, PKCE; wrong tokens are refused."""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from offhook.errors import ConfigError
from offhook.settings import load_settings
from tests.conftest import Configure
from tests.offhook_console.conftest import ORIGIN, Console, running, users
from tests.offhook_console.openid_provider import CLIENT_SECRET, Provider, provider

CLAIMS = {"email": "ruth@example.com", "email_verified": True, "groups": ["staff", "calls-lead"]}
TABLE = """
[console.oidc]
issuer = "{issuer}"
client_id = "offhook"
client_secret = "{secret}"
roles = {{ calls-lead = "supervisor", calls-admin = "operator", calls-agent = "agent" }}
tenant_claim = "org"
[tenants.acme]
extensions = ["main/0003*21?"]
"""


@pytest.fixture(autouse=True)
def _plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")  # of the provider in this test


@pytest.fixture(scope="module")
def running_provider() -> Iterator[Provider]:
    with provider(dict(CLAIMS)) as made:
        yield made


@pytest.fixture
def issuer(running_provider: Provider) -> Provider:
    """Return the provider as it is at first."""
    made = running_provider
    made.claims, made.twist = dict(CLAIMS), lambda claims: None
    made.key, made.issuer = made.published, made.url
    return made


def table(issuer: str) -> str:
    return TABLE.format(issuer=issuer, secret=CLIENT_SECRET)


@pytest.fixture
async def single(
    configure: Configure, password_hash: str, issuer: Provider
) -> AsyncIterator[Console]:
    configure(users(password_hash) + table(issuer.url))
    async with running() as console:
        yield console


@asynccontextmanager
async def web() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient() as client:
        yield client


async def away_and_back(client: httpx.AsyncClient, to: str = "/calls?q=1") -> str:
    """Go to the provider, and return the address to which it sends the browser back."""
    begun = await client.get("/sign-in/oidc", params={"next": to})
    assert begun.status_code == 302, begun.text
    async with web() as other:
        authorized = await other.get(begun.headers["location"])
    assert authorized.status_code == 302, authorized.text
    back = urlsplit(authorized.headers["location"])
    assert f"{back.scheme}://{back.netloc}{back.path}" == f"{ORIGIN}/sign-in/oidc/callback"
    return f"{back.path}?{back.query}"


async def sign_on(client: httpx.AsyncClient) -> httpx.Response:
    return await client.get(await away_and_back(client))


async def test_a_person_signs_in_at_the_provider(single: Console, issuer: Provider) -> None:
    client = single("")
    assert "Sign in with single sign-on" in (await client.get("/sign-in")).text
    answer = await sign_on(client)
    assert (answer.status_code, answer.headers["location"]) == (303, "/calls?q=1")
    page = (await client.get("/now")).text
    assert "ruth@example.com" in page
    assert (await client.get("/people")).status_code == 200  # a supervisor
    assert (await client.get("/handlers")).status_code == 403
    asked = issuer.authorized[-1]
    assert asked["code_challenge_method"] == "S256"
    assert len(asked["nonce"]) >= 16
    assert len(asked["state"]) >= 16
    assert (await client.post("/sign-out")).status_code == 303
    assert (await client.get("/now")).status_code == 303


@pytest.mark.parametrize(
    ("claims", "path", "status"),
    [
        ({"groups": "calls-admin"}, "/handlers", 200),
        ({"groups": ["calls-agent", "calls-admin"]}, "/handlers", 200),
        ({"groups": "calls-agent", "extensions": ["0003*210"]}, "/calls", 200),
        ({"groups": "calls-agent"}, "/people", 403),
        ({"org": "acme"}, "/people", 200),
    ],
)
async def test_claims_say_the_role(
    single: Console, issuer: Provider, claims: dict[str, Any], path: str, status: int
) -> None:
    issuer.claims |= claims
    client = single("")
    assert (await sign_on(client)).status_code == 303
    assert (await client.get(path)).status_code == status


def set_claims(**wrong: Any) -> Callable[[dict[str, Any]], object]:
    return lambda claims: claims.update(wrong)


def drop(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda claims: claims.pop(name, None)


WRONG: dict[str, Callable[[dict[str, Any]], object]] = {
    "expired": set_claims(exp=int(time.time()) - 3600, iat=int(time.time()) - 7200),
    "issued by another": set_claims(iss="https://evil.test"),
    "for another client": set_claims(aud="another"),
    "for another client, authorized for ours": set_claims(aud="another", azp="offhook"),
    "of another sign-in": set_claims(nonce="another"),
    "without a nonce": drop("nonce"),
    "without an end": drop("exp"),
    "of another access token": set_claims(at_hash="x" * 22),
    "without a name": drop("email"),
    "with a hostile name": set_claims(email="a\r\nb"),
    "with a list as name": set_claims(email=["ruth@example.com"]),
    "not verified": set_claims(email_verified=False),
    "with the name of a user with a password": set_claims(email="operator"),
    "without a role": set_claims(groups=["staff"]),
    "with a role that is no text": set_claims(groups={"calls-admin": True}),
    "of an unknown tenant": set_claims(org="globex"),
    "of a tenant that is no text": set_claims(org=["acme"]),
    "of a tenant's operator": set_claims(org="acme", groups="calls-admin"),
}


async def test_a_wrong_token_lets_nobody_in(single: Console, issuer: Provider) -> None:
    for about, twist in WRONG.items():
        issuer.twist = twist
        client = single("")
        refused = await sign_on(client)
        assert refused.status_code == 403, about
        assert "You were not signed in." in refused.text, about
        assert (await client.get("/now")).status_code == 303, about


async def test_a_forged_token_lets_nobody_in(
    single: Console, issuer: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.key = RSAKey.generate_key(2048, {"kid": "1"})
    assert (await sign_on(single(""))).status_code == 403
    issuer.key = issuer.published
    good = issuer.id_token

    def unsigned(nonce: str | None, access_token: str) -> str:
        _, body, _ = good(nonce, access_token).split(".")
        return f"eyJhbGciOiJub25lIn0.{body}."

    def with_the_public_key_as_secret(nonce: str | None, access_token: str) -> str:
        body = jwt.decode(good(nonce, access_token), issuer.key, ["RS256"]).claims
        key = OctKey.import_key(issuer.published.as_pem(private=False))
        return jwt.encode({"alg": "HS256", "kid": "1"}, body, key, ["HS256"])

    for forge in (unsigned, with_the_public_key_as_secret):
        monkeypatch.setattr(issuer, "id_token", forge)
        assert (await sign_on(single(""))).status_code == 403, forge.__name__


async def test_an_answer_counts_once_and_in_its_own_browser(
    single: Console, issuer: Provider
) -> None:
    client, other = single(""), single("")
    back = await away_and_back(client)
    assert (await other.get(back)).status_code == 403  # a browser that began nothing
    theirs = await away_and_back(other)
    assert (await client.get(theirs)).status_code == 403  # a code that was slipped in
    assert (await client.get(back)).status_code == 403  # its cookie is gone
    good = await away_and_back(client)
    cookie = client.cookies["offhook-oidc"]
    assert (await client.get(good)).status_code == 303
    client.cookies.clear()
    client.cookies.set("offhook-oidc", cookie)
    assert (await client.get(good)).status_code == 403  # the provider knows the code no more
    for wrong in ("", "?error=access_denied", "?code=x", "?code=x&state=None"):
        fresh = single("")
        await away_and_back(fresh)
        assert (await fresh.get(f"/sign-in/oidc/callback{wrong}")).status_code == 403, wrong


async def test_it_leads_to_a_page_of_this_console(single: Console) -> None:
    client = single("")
    answer = await client.get(await away_and_back(client, "//evil.test"))
    assert answer.headers["location"] == "/"


async def test_a_document_of_another_issuer_is_refused(single: Console, issuer: Provider) -> None:
    issuer.issuer = "https://evil.test"
    answer = await single("").get("/sign-in/oidc")
    assert answer.status_code == 502
    assert "another issuer" in answer.text


async def test_a_provider_that_is_down_says_so(configure: Configure, password_hash: str) -> None:
    configure(users(password_hash) + table("http://127.0.0.1:1"))
    async with running() as console:
        answer = await console("").get("/sign-in/oidc")
        assert answer.status_code == 502
        assert "cannot be asked" in answer.text


async def test_another_mapping_ends_the_sessions(
    configure: Configure, password_hash: str, issuer: Provider
) -> None:
    configure(users(password_hash) + table(issuer.url))
    async with running() as console:
        client = console("")
        await sign_on(client)
        cookie = client.cookies["offhook"]
    for changed in (
        table(issuer.url).replace('calls-lead = "supervisor"', 'calls-lead = "viewer"'),
        "",
    ):
        configure(users(password_hash) + changed)
        async with running() as console:
            client = console("")
            client.cookies.set("offhook", cookie)
            assert (await client.get("/now")).status_code == 303


async def test_without_a_provider_there_is_no_single_sign_on(console: Console) -> None:
    assert "Sign in with" not in (await console("").get("/sign-in")).text
    for path in ("/sign-in/oidc", "/sign-in/oidc/callback?code=x&state=y"):
        assert (await console("").get(path)).status_code == 404


@pytest.mark.parametrize(
    "wrong", ["http://login.example.com", "https://a b", "javascript:x", "https://x/?y"]
)
def test_an_issuer_is_an_https_address(configure: Configure, wrong: str) -> None:
    configure(table(wrong))
    with pytest.raises(ConfigError, match=r"console\.oidc\.issuer: "):
        load_settings()
