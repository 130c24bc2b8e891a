"""Who gets in, and what each role may open: every route, with every role."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from http.cookies import SimpleCookie

import httpx
import msgspec
import pytest
import redis as blocking
from starlette.routing import Mount

from offhook import EventType, ExtensionSettings, queues
from offhook.call import Kind
from offhook.connection import opened
from offhook.dialects.voipnow import read_event
from offhook.errors import ConfigError
from offhook.extensions import Extensions
from offhook.settings import load_settings
from offhook_console.access import ConsoleRoute, ConsoleSocket, next_page
from offhook_console.app import routes
from offhook_console.people import RIGHTS, Right
from tests.conftest import Configure
from tests.events import batch_of, event
from tests.offhook_console.conftest import (
    ORIGIN,
    PASSWORD,
    READ_TOKEN,
    ROLES,
    TOKEN,
    Console,
    place,
    running,
    users,
)
from tests.workers.folded import fold

ROUTES = [route for route in routes() if isinstance(route, ConsoleRoute)]
CASES = [
    (route, method) for route in ROUTES for method in sorted((route.methods or set()) - {"HEAD"})
]
STREAMS = ("/live", "/wall/live")
NAMES = [f"{method} {route.path}" for route, method in CASES]


def path_of(route: ConsoleRoute) -> str:
    """Return the path, with names that mean nothing."""
    return re.sub(r"{\w+(:path)?}", "unknown", route.path)


def test_every_route_declares_its_right() -> None:
    others = [route for route in routes() if not isinstance(route, ConsoleRoute | ConsoleSocket)]
    assert [type(route) for route in others] == [Mount]  # the static files
    sockets = [route for route in routes() if isinstance(route, ConsoleSocket)]
    assert [(route.path, route.right) for route in sockets] == [("/live", Right.LIVE)]
    public = {route.path for route in ROUTES if route.public}
    assert public == {
        "/sign-in",
        "/sign-in/oidc",
        "/sign-in/oidc/callback",
        "/api/v1/openapi.json",
        "/wall/{link}",  # the link is the key
        "/wall/{link}/live",
    }
    everyone = {route.path for route in ROUTES if not route.public and route.right is None}
    assert everyone == {"/", "/sign-out"}
    for route, method in CASES:
        changes = method != "GET" and not route.public and route.right is not None
        assert not changes or route.right in (Right.REPAIR, Right.DIAL, Right.PEOPLE), route.path


@pytest.mark.parametrize("role", ROLES)
async def test_each_role_opens_what_its_rights_allow(console: Console, role: str) -> None:
    client = console(role)
    for route, method in CASES:
        if route.path in STREAMS:
            continue  # without an end: below
        status = (await client.request(method, path_of(route), json={})).status_code
        may = route.public or route.right is None or route.right in RIGHTS[role]  # type: ignore[index]
        assert (status != 403) is may, f"{role}: {method} {route.path} answered {status}"
        assert status != 500
        if route.path == "/sign-out":
            client = console(role)


async def test_without_signing_in_nothing_opens(console: Console) -> None:
    client = console("")
    for route, method in CASES:
        if route.public:
            continue
        answer = await client.request(method, path_of(route))
        if route.path.startswith("/api/"):
            assert answer.status_code == 401, route.path
            assert answer.headers["content-type"] == "application/problem+json"
        elif method == "GET":
            assert answer.status_code == 303, route.path
            assert answer.headers["location"].startswith("/sign-in")
        else:
            assert answer.status_code == 401, route.path


async def test_a_stream_needs_signing_in(console: Console) -> None:
    for path in STREAMS:
        assert (await console("").get(path)).status_code == 303


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.test"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://console.test.evil.test", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "", "Sec-Fetch-Site": "none"},
    ],
)
async def test_a_request_of_another_site_changes_nothing(
    console: Console, headers: dict[str, str]
) -> None:
    client = console("operator")
    for route, method in CASES:
        if method in ("GET", "HEAD"):
            continue
        answer = await client.request(method, path_of(route), headers=headers)
        assert answer.status_code == 403, f"{method} {route.path}"


async def test_a_request_without_an_origin_changes_nothing(console: Console) -> None:
    client = console("operator")
    for name in ("origin", "sec-fetch-site"):
        del client.headers[name]
    assert (
        await client.post("/dead-letters/operations", data={"kind": "retry"})
    ).status_code == 403
    client.headers["Origin"] = ORIGIN  # a browser without fetch metadata
    assert (
        await client.post("/dead-letters/operations", data={"kind": "retry"})
    ).status_code == 409


async def test_origins_of_a_proxy_are_configured(configure: Configure, password_hash: str) -> None:
    configure(f'[console]\norigins = ["https://calls.example.com"]\n{users(password_hash)}')
    async with running() as console:
        client = console("operator")
        client.headers["Origin"] = "https://calls.example.com"
        assert (await client.post("/sign-out")).status_code == 303


async def sign_in(
    client: httpx.AsyncClient, name: str, password: str, **more: str
) -> tuple[int, str]:
    answer = await client.post("/sign-in", data={"name": name, "password": password, **more})
    return answer.status_code, answer.headers.get("location", answer.text)


async def test_signing_in_and_out(console: Console) -> None:
    client = console("")
    answer = await client.post(
        "/sign-in", data={"name": "operator", "password": PASSWORD, "next": "/calls?q=1"}
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/calls?q=1")
    cookie = SimpleCookie(answer.headers["set-cookie"])["offhook"]
    assert cookie["httponly"]
    assert cookie["samesite"] == "strict"
    assert (await client.get("/handlers")).status_code == 200
    assert (await client.post("/sign-out")).status_code == 303
    assert (await client.get("/handlers")).status_code == 303


async def test_over_https_the_cookie_is_for_this_host_alone(console: Console) -> None:
    client = console("")
    client.base_url = httpx.URL("https://console.test")
    client.headers["Origin"] = "https://console.test"
    answer = await client.post("/sign-in", data={"name": "viewer", "password": PASSWORD})
    cookie = SimpleCookie(answer.headers["set-cookie"])["__Host-offhook"]
    assert cookie["secure"]
    assert cookie["path"] == "/"


async def test_wrong_passwords_are_limited(console: Console) -> None:
    client = console("")
    for left in (4, 3, 2):
        status, page = await sign_in(client, "operator", "wrong")
        assert status == 401
        assert f"{left} more tries" in page
    assert "1 more try" in (await sign_in(client, "operator", "wrong"))[1]
    assert "Wait for 15 minutes" in (await sign_in(client, "operator", "wrong"))[1]
    status, page = await sign_in(client, "operator", PASSWORD)
    assert status == 429
    assert "Too many tries" in page
    assert (await sign_in(client, "viewer", PASSWORD))[0] == 303  # another name


async def test_an_unknown_name_and_a_wrong_password_look_the_same(console: Console) -> None:
    client = console("")
    unknown, wrong = [await sign_in(client, name, "wrong") for name in ("nobody", "viewer")]
    assert unknown[0] == wrong[0] == 401
    assert unknown[1].replace("nobody", "viewer") == wrong[1]


async def test_a_success_gives_the_tries_back(console: Console) -> None:
    client = console("")
    for _ in range(3):
        for _ in range(3):
            await sign_in(client, "viewer", "wrong")
        assert (await sign_in(client, "viewer", PASSWORD))[0] == 303


@pytest.mark.parametrize(
    ("wanted", "to"),
    [
        ("/calls?q=a%20b", "/calls?q=a%20b"),
        ("//evil.test", "/"),
        ("///evil.test", "/"),
        ("/\\evil.test", "/"),
        ("https://evil.test/", "/"),
        ("javascript:alert(1)", "/"),
        ("", "/"),
        (None, "/"),
        ("/\t/evil.test", "/"),
        ("/\n//evil.test", "/"),
        (" ////evil.test", "/"),
        ("\v////evil.test", "/"),
        ("//[", "/"),
        ("/\t/[", "/"),
    ],
)
def test_signing_in_leads_to_a_page_of_this_console(wanted: str | None, to: str) -> None:
    assert next_page(wanted) == to


async def test_a_forged_or_old_cookie_is_refused(console: Console) -> None:
    client = console("")
    for cookie in (b"", b"x", b"WyJvcGVyYXRvciIsICJ4Il0.Zw.x", b"\xc3\xa9", b'"a; b'):
        answer = await client.get("/now", headers={b"Cookie": b"offhook=" + cookie})
        assert answer.status_code == 303


async def test_a_new_password_ends_sessions(configure: Configure, password_hash: str) -> None:
    configure(users(password_hash))
    async with running() as console:
        cookie = console("operator").cookies["offhook"]
    configure(users(password_hash[:-2] + "xx"))
    async with running() as console:
        client = console("")
        client.cookies.set("offhook", cookie)
        assert (await client.get("/now")).status_code == 303


async def test_a_link_from_elsewhere_keeps_the_session(console: Console) -> None:
    # A SameSite=Strict cookie does not come with it, but with the refresh that follows.
    answer = await console("").get("/calls?q=x", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 200
    assert 'http-equiv="refresh"' in answer.text


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_a_token_has_its_scopes_within_its_users_role(console: Console) -> None:
    client = console("")
    assert (await client.get("/api/v1/handlers", headers=bearer(TOKEN))).status_code == 200
    assert (await client.get("/api/v1/calls", headers=bearer(READ_TOKEN))).status_code == 200
    assert (await client.get("/api/v1/handlers", headers=bearer(READ_TOKEN))).status_code == 403
    assert (await client.get("/api/v1/calls", headers=bearer(TOKEN + "x"))).status_code == 401
    assert (await client.get("/api/v1/calls", headers={"Authorization": TOKEN})).status_code == 401


async def test_a_wrong_token_is_not_saved_by_a_cookie(console: Console) -> None:
    answer = await console("operator").get("/api/v1/calls", headers=bearer("ofh_wrong"))
    assert answer.status_code == 401


async def test_a_token_needs_no_origin(console: Console) -> None:
    client = console("")
    for name in ("origin", "sec-fetch-site"):
        del client.headers[name]
    body = {"kind": "retry"}
    answer = await client.post("/api/v1/dead-letters/operations", json=body, headers=bearer(TOKEN))
    assert answer.status_code == 409  # nothing matches


async def test_every_answer_has_the_security_headers(console: Console) -> None:
    client = console("operator")
    asset = re.search(r'href="(/static/[^"]+\.css)"', (await client.get("/now")).text)
    assert asset is not None
    paths = ["/now", "/sign-in", "/unknown", "/api/v1/calls", "/calls.csv", asset[1]]
    for path in paths:
        headers = (await client.get(path)).headers
        assert headers["content-security-policy"].startswith("default-src 'none';"), path
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == (
            "public, max-age=31536000, immutable" if path == asset[1] else "no-store"
        )


async def test_a_large_request_is_refused(console: Console) -> None:
    client = console("operator")
    assert (await client.post("/dead-letters/operations", content=b"x" * 70_000)).status_code == 413

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield b"x" * 10_000

    assert (await client.post("/sign-in", content=chunks())).status_code == 413


async def test_the_digits_of_a_masked_number_are_nowhere(
    console: Console, rq: blocking.Redis
) -> None:
    placed = [
        await place("answered", seed=1),
        await place("missed", seed=2),
        await place("outgoing", seed=3),
    ]
    queues.bury(rq, "crm", event(), attempt=1, error="e", trace="t")
    numbers = {
        digits
        for call in placed
        for callback in call.callbacks
        for value in callback.parameters.values()
        if len(digits := re.sub(r"\D", "", value)) >= 8 and "." not in value
    }
    assert numbers
    async with running() as again:  # with the calls on its board
        for role in ("viewer", "operator"):
            client = again(role)
            pages = [
                (await client.get(p))
                for p in ("/now", "/calls", "/calls.csv", "/missed?state=all", "/api/v1/calls")
            ]
            pages += [(await client.get(f"/calls/main/{call.id}")) for call in placed]
            pages += [(await client.get(f"/api/v1/calls/main/{call.id}")) for call in placed]
            assert {page.status_code for page in pages} == {200}
            seen = " ".join(page.text for page in pages)
            plain = re.sub(r"[ ()-]", "", seen)
            found = [number for number in numbers if number[-7:] in plain]
            assert (found == []) is (role == "viewer"), (role, found)


async def test_a_masked_number_cannot_be_found_out_digit_by_digit(console: Console) -> None:
    call = await place("missed", seed=2)
    number = dict(call.callbacks[0].parameters)["CallerIDNum"]
    wrong = f"{(int(number[-4]) + 1) % 10}{number[-3:]}"

    async def found(role: str, words: str) -> bool:
        listed = await console(role).get("/api/v1/calls", params={"q": words})
        return call.id in listed.text

    assert await found("supervisor", number[-4:])
    assert not await found("supervisor", wrong)
    # To a viewer, the digits before the last three make no difference.
    assert await found("viewer", number[-4:])
    assert await found("viewer", wrong)
    assert await found("viewer", f"Name {wrong}")


async def test_an_agent_sees_the_calls_of_own_extensions(console: Console) -> None:
    placed = [await place("answered", seed=seed) for seed in range(1, 9)]
    own = {call.id for call in placed if any(c.extension == "0003*210" for c in call.callbacks)}
    assert own
    assert len(own) < len(placed)
    client = console("agent")
    listed = (await client.get("/api/v1/calls")).json()["calls"]
    assert {call["id"] for call in listed} == own
    for call in placed:
        status = (await client.get(f"/calls/main/{call.id}")).status_code
        assert status == (200 if call.id in own else 404)


async def test_a_secret_is_on_no_page(console: Console) -> None:
    client = console("operator")
    secret = load_settings().secret.get_secret_value()
    hashed = load_settings().console.users["operator"].password.get_secret_value()
    for route, method in CASES:
        if method == "GET" and route.path not in STREAMS:
            text = (await client.get(path_of(route))).text
            assert secret not in text
            assert hashed not in text


TENANT = """
[tenants.acme]
extensions = ["main/0003*21?"]
[tenants.acme.handlers.crm]
use = "console"
[handlers.crm]
use = "console"
"""


async def test_what_is_a_tenants_is_not_shown_to_the_operator(
    configure: Configure, password_hash: str, rq: blocking.Redis
) -> None:
    configure(users(password_hash) + TENANT)
    its, own = msgspec.structs.replace(event("its", 1), tenant="acme"), event("own", 2)
    for handler, each in (("acme/crm", its), ("crm", own)):
        queues.bury(rq, handler, each, attempt=1, error="503", trace="t")
    async with running() as console:
        client = console("operator")
        letters = (await client.get("/api/v1/dead-letters")).json()
        assert [each["handler"] for each in letters["dead_letters"]] == ["crm"]
        assert "acme" not in (await client.get("/dead-letters")).text
        theirs = queues.dead_letter_id("acme/crm", its.id)
        assert (await client.get(f"/dead-letters/{theirs}")).status_code == 404
        for path in ("/calls/acme:main/its", "/api/v1/calls/acme:main/its"):
            assert (await client.get(path)).status_code == 404
        asked = await client.post("/api/v1/dead-letters/operations", json={"kind": "discard"})
        assert asked.json()["count"] == 1
        assert asked.json()["wanted"]["ids"] == [queues.dead_letter_id("crm", own.id)]
        await client.post(f"/api/v1/dead-letters/operations/{asked.json()['id']}/undo")


async def test_a_tenants_user_sees_the_calls_of_the_tenant_alone(
    configure: Configure, password_hash: str
) -> None:
    theirs = "".join(
        f'[console.users.acme-{role}]\npassword = "{password_hash}"\nrole = "{role}"\n'
        'tenant = "acme"\nextensions = ["0003*210"]\n'
        for role in ("viewer", "agent", "supervisor")
    )
    viewer = f'[tenants.acme.users.viewer]\npassword = "{password_hash}"\nrole = "viewer"\n'
    configure(users(password_hash) + theirs + TENANT + viewer)
    its = await place("answered", seed=1, tenant="acme")
    live = await place("answered", 1, seed=3, tenant="acme", ago=timedelta(seconds=20))
    own = await place("missed", seed=2)
    async with running() as console:
        for user, seen, hidden in (
            ("acme-supervisor", [its, live], [own]),
            ("acme-viewer", [its, live], [own]),
            ("acme-agent", [], [own]),
            ("acme/viewer", [its, live], [own]),
            ("supervisor", [own], [its, live]),
            ("operator", [own], [its, live]),
        ):
            client = console(user)
            lists = ["/now", "/calls", "/calls.csv", "/api/v1/calls", "/api/v1/calls/live"]
            texts = [(await client.get(path)).text for path in lists]
            for call in hidden:
                assert not any(call.id in text for text in texts), user
                for pbx in ("main", "acme:main", ":main"):
                    for path in (f"/calls/{pbx}/{call.id}", f"/api/v1/calls/{pbx}/{call.id}"):
                        assert (await client.get(path)).status_code == 404, user
            for call in seen:
                assert any(call.id in text for text in texts), user
                assert (await client.get(f"/calls/main/{call.id}")).status_code == 200, user
        assert (await console("acme-supervisor").get("/handlers")).status_code == 403


async def test_labels_of_other_organizations_are_not_shown(
    configure: Configure, password_hash: str
) -> None:
    people = "".join(
        f'[console.users.{name}]\npassword = "{password_hash}"\nrole = "supervisor"\n'
        f'tenant = "{tenant}"\nextensions = ["0003*210"]\n'
        for name, tenant in (("ann", "acme"), ("olga", ""))
    )
    configure(people + TENANT + "[pbx.main]\n[pbx.second]\n")
    settings = load_settings()
    dialled = {"CallFlow": "IN", "CallerIDNum": "0003*299", "CallerExtension": "0003*299"}
    ring = read_event(
        pbx="main",
        extension="0003*210",
        type=EventType.DIAL_IN,
        parameters={"CallID": "inside", **dialled},
    )
    async with opened(settings) as (inbox, _):
        await Extensions(inbox.redis).change(
            {
                ("main", "0003*210"): ExtensionSettings(label="Front desk", kind=Kind.PHONE),
                ("main", "0003*299"): ExtensionSettings(label="Ruth", kind=Kind.PHONE),
                ("second", "0003*210"): ExtensionSettings(label="Otto", kind=Kind.PHONE),
            }
        )
        await inbox.append(batch_of(msgspec.structs.replace(ring, tenant="acme")), 0)
    await asyncio.to_thread(fold, settings.model_copy(update={"handlers": {}}))
    async with running() as console:
        for user, shown, hidden in (
            ("ann", {"Front desk", "0003*299"}, {"Ruth", "Otto"}),
            ("olga", {"Otto"}, {"Front desk"}),
        ):
            paths = ("/now", "/me", "/dial?number=299", "/calls", "/calls.csv", "/wall")
            seen = "".join([(await console(user).get(path)).text for path in paths])
            assert {each for each in shown | hidden if each in seen} == shown, user


@pytest.mark.parametrize(
    ("tenant", "role", "wrong"),
    [
        ("acm", "viewer", "console.users.tom.tenant: there is no tenant 'acm'"),
        ("acme", "operator", "console.users.tom.role: a user of a tenant cannot be an operator"),
    ],
)
def test_a_tenants_user_is_checked(
    configure: Configure, password_hash: str, tenant: str, role: str, wrong: str
) -> None:
    configure(
        f'[console.users.tom]\npassword = "{password_hash}"\nrole = "{role}"\n'
        f'tenant = "{tenant}"\n{TENANT}'
    )
    with pytest.raises(ConfigError, match=re.escape(wrong)):
        load_settings()
