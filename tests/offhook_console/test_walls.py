"""The wall and wall links: masked, read-only, revocable, and of one tenant."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import redis as blocking
from msgspec.structs import replace

from offhook import ExtensionSettings, Party
from offhook.call import Call, Kind, Leg
from offhook.inbox import keys
from offhook.operations import wall_links
from offhook_console.call_views import call_key
from offhook_console.floor import Floor, FloorAgent
from offhook_console.moments import midnight_of
from offhook_console.parts import ConsoleParts
from offhook_console.people import View
from offhook_console.wall_views import wall_card
from tests.conftest import Configure
from tests.offhook_console.conftest import TOKEN, Console, place, running, users

ACME = '[tenants.acme]\nextensions = ["main/0003*21?"]\n'


def audited(rq: blocking.Redis) -> list[str]:
    """Return the entries of the audit log, as JSON."""
    found: Any = rq.xrange(keys.audit())
    return [fields[b"e"].decode() for _, fields in found]


async def make(client: httpx.AsyncClient, name: str, **more: str) -> str:
    """Make a wall link on the People page; return its path."""
    form = {"name": name, "key": name, **more}
    page = await client.post("/people/walls", data=form)
    assert page.status_code == 200, page.text
    found = re.search(r'id="wall-url">http://console.test(/wall/[^<]+)<', page.text)
    assert found is not None
    return found[1]


async def test_a_wall_link_shows_the_wall_without_signing_in_until_it_is_revoked(
    console: Console, rq: blocking.Redis
) -> None:
    supervisor, screen = console("supervisor"), console("")
    path = await make(supervisor, "Reception screen")
    shown = await screen.get(path)
    assert shown.status_code == 200
    assert "Wall link “Reception screen”" in shown.text
    assert "leave the wall" not in shown.text
    listed = (await supervisor.get("/people")).text
    assert "Reception screen" in listed
    assert "seen now" in listed
    walls: Any = rq.hgetall(keys.wall_links())
    (stored,) = walls.items()
    secret = path.rpartition("/")[2].encode()
    assert not any(secret in each for each in stored)  # only its hash
    assert secret.decode() not in " ".join(audited(rq))
    id_ = re.search(r"/people/walls/(\w+)/revoke", listed)
    assert id_ is not None
    answer = await supervisor.post(f"/people/walls/{id_[1]}/revoke")
    assert answer.status_code == 303
    for gone in (path, f"{path}/live"):
        assert (await screen.get(gone)).status_code == 404
    assert rq.hlen(keys.last_seen()) == 1  # of the supervisor alone
    said = audited(rq)
    assert "made the wall link “Reception screen”" in said[0]
    assert "revoked the wall link “Reception screen”" in said[1]


async def test_a_form_that_is_sent_again_makes_no_second_link(
    console: Console, rq: blocking.Redis
) -> None:
    client = console("operator")
    await make(client, "Hall")
    again = await client.post("/people/walls", data={"name": "Hall", "key": "Hall"})
    assert again.status_code == 303
    assert rq.hlen(keys.wall_links()) == 1


@pytest.mark.parametrize("secret", ["x", "acme.x", "%00", "x" * 300, "live"])
async def test_an_unknown_link_opens_nothing(console: Console, secret: str) -> None:
    status = (await console("").get(f"/wall/{secret}")).status_code
    assert status == (303 if secret == "live" else 404)


async def test_a_wall_shows_three_digits_of_a_number(console: Console) -> None:
    placed = [
        await place("answered", n, seed=seed, ago=timedelta(seconds=9))
        for seed, n in ((2, 1), (3, 2))
    ]
    async with running() as again:
        client = again("supervisor")
        pages = [(await client.get("/wall")).text]
        pages.append((await again("").get(await make(client, "Hall"))).text)
        for page in pages:
            plain = re.sub(r"[ ()-]", "", page)
            for call in placed:
                said = dict(call.callbacks[0].parameters)
                number = said["CallerIDNum"]
                assert f"…{number[-3:]}" in plain
                assert number[-4:] not in plain.replace(f"…{number[-3:]}", "")
        agent = (await again("agent").get("/wall")).text
        assert agent.count('class="c ') <= pages[0].count('class="c ')


def test_a_wall_has_the_queue_and_the_agent_but_no_name_of_a_caller() -> None:
    began = datetime(2026, 5, 1, 12, tzinfo=UTC)
    call = Call(
        id="1",
        pbx="main",
        direction="in",
        caller=Party(number="+447700900168", e164="+447700900168", name="Müller GmbH"),
        called=Party(extension="0003*400", did="442079460100"),
        started=began,
        legs=(
            Leg(extension="0003*400", kind=Kind.QUEUE, direction="in", rang=began),
            Leg(extension="0003*210", direction="in", rang=began),
        ),
    )
    labels = {
        ("main", "0003*400"): ExtensionSettings(label="Sales"),
        ("main", "0003*210"): ExtensionSettings(label="Jane Cooper"),
    }
    now = began + timedelta(seconds=9)
    waiting = wall_card(call, labels, now)
    assert (waiting.head, waiting.line, waiting.word) == ("Sales", "caller …168", "waiting")
    answered = replace(call, answered=began, answered_by="0003*210")
    talking = wall_card(answered, labels, now)
    assert (talking.head, talking.line) == ("Jane Cooper", "Sales · caller …168")
    withheld = wall_card(replace(call, caller=Party(name="Müller GmbH")), labels, now)
    assert withheld.line == "withheld number"
    out = replace(call, direction="out", caller=Party(extension="0003*210"), called=call.caller)
    calling = wall_card(out, labels, now)
    assert (calling.head, calling.line, calling.word) == ("Jane Cooper", "to …168", "calling out")
    for card in (waiting, talking, calling):
        assert "Müller" not in repr(card)
        assert "900" not in repr(card)


async def test_a_tenants_wall_shows_the_tenants_calls_alone(
    configure: Configure, password_hash: str
) -> None:
    theirs = (
        f'[console.users.ann]\npassword = "{password_hash}"\nrole = "supervisor"\ntenant = "acme"\n'
    )
    configure(users(password_hash) + theirs + ACME)
    its = await place("answered", 1, seed=2, tenant="acme", ago=timedelta(seconds=9))
    own = await place("answered", 1, seed=3, ago=timedelta(seconds=9))
    async with running() as console:
        paths = {
            "acme": await make(console("ann"), "Hall"),
            "operator": await make(console("operator"), "Hall"),
            "operator's of acme": await make(console("operator"), "Lobby", tenant="acme"),
        }
        last = {
            name: dict(call.callbacks[0].parameters)["CallerIDNum"][-3:]
            for name, call in (("its", its), ("own", own))
        }
        for whose, path in paths.items():
            page = (await console("").get(path)).text
            assert (f"…{last['its']}" in page) is ("acme" in whose), whose
            assert (f"…{last['own']}" in page) is (whose == "operator"), whose
        seen = (await console("ann").get("/people")).text
        assert seen.count("/revoke") == 2
        assert "operator" not in re.findall(r'<th scope="row">([^<]+)</th><td>', seen)
        answer = await console("ann").post(
            "/people/walls", data={"name": "x", "tenant": "beta", "key": "1"}
        )
        assert answer.status_code == 404
        # A link of the operator's own is not found under a tenant's name.
        forged = paths["operator"].replace("/wall/", "/wall/acme.")
        assert (await console("").get(forged)).status_code == 404
        (mine,) = [
            each["link"]["id"]
            for each in (await console("operator").get("/api/v1/walls")).json()["walls"]
            if each["tenant"] == ""
        ]
        for tenant in ("", "acme"):
            revoked = await console("ann").post(
                f"/people/walls/{mine}/revoke", data={"tenant": tenant}
            )
            assert revoked.status_code == 404


async def test_the_api_makes_a_link_once_for_an_idempotency_key(
    console: Console, rq: blocking.Redis
) -> None:
    client = console("")
    client.headers["Authorization"] = f"Bearer {TOKEN}"
    made, again = [
        await client.post("/api/v1/walls", json={"name": "Hall"}, headers={"Idempotency-Key": "k"})
        for _ in range(2)
    ]
    assert made.status_code == again.status_code == 201
    assert made.json()["link"] == again.json()["link"]
    assert again.json()["url"] is None  # it is kept nowhere
    assert rq.hlen(keys.wall_links()) == 1
    other = await client.post(
        "/api/v1/walls", json={"name": "Lobby"}, headers={"Idempotency-Key": "k"}
    )
    assert other.status_code == 409
    secret = made.json()["url"].rpartition("/")[2].encode()
    assert not any(secret in (rq.get(key) or b"") for key in rq.scan_iter("offhook:request:*"))
    assert (await client.get(made.json()["url"])).status_code == 200
    wall = f"/api/v1/walls/{made.json()['link']['id']}"
    assert (await client.delete(wall)).status_code == 204
    assert (await client.delete(wall)).status_code == 404
    assert (await client.get(made.json()["url"])).status_code == 404


@pytest.mark.parametrize(
    ("name", "shown"), [("", "Screen"), (" a \x00 b\u202e", "a b"), ("x" * 60, "x" * 60)]
)
async def test_a_name_has_no_characters_that_do_not_print(
    console: Console, name: str, shown: str
) -> None:
    client = console("operator")
    await make(client, name)
    (wall,) = (await client.get("/api/v1/walls")).json()["walls"]
    assert wall["link"]["name"] == shown


async def test_a_long_name_is_refused(console: Console) -> None:
    form = {"name": "x" * 61, "key": "1"}
    made = await console("operator").post("/people/walls", data=form)
    assert made.status_code == 409
    assert "name" in made.text
    corrected = await console("operator").post("/people/walls", data=form | {"name": "Hall"})
    assert corrected.status_code == 200  # the same form, which the browser had kept


async def test_there_are_only_so_many_links(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wall_links, "MOST", 1)
    client = console("operator")
    await make(client, "one")
    answer = await client.post("/people/walls", data={"name": "two", "key": "2"})
    assert answer.status_code == 409
    assert "revoke some" in answer.text


def parts_of(console: Console) -> ConsoleParts:
    parts: ConsoleParts = console("")._transport.app.state.parts  # type: ignore[attr-defined]
    return parts


async def test_a_call_that_is_answered_while_the_page_is_made_is_shown_once(
    configure: Configure, password_hash: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(users(password_hash))
    await place("answered", 1, seed=2, ago=timedelta(seconds=5))
    async with running() as console:
        board = parts_of(console).feed.board
        [call] = board.calls()
        agents = Floor.agents

        async def answered_meanwhile(floor: Floor) -> list[FloorAgent]:
            answered = replace(call, answered=call.started, answered_by=call.called.extension)
            board.put(answered, midnight_of(datetime.now(UTC)))
            return await agents(floor)

        monkeypatch.setattr(Floor, "agents", answered_meanwhile)
        page = (await console("operator").get("/wall")).text
        assert board.lane("ringing", View(masked=True)) == []
        assert page.count(f'id="{call_key(f"main/{call.id}")}"') == 1


async def test_revoking_ends_streams_here_and_in_other_processes(
    configure: Configure, password_hash: str
) -> None:
    configure(users(password_hash))
    async with running() as one, running() as other:
        path = await make(one("operator"), "Hall")
        listed = (await one("operator").get("/api/v1/walls")).json()["walls"]
        streams = [asyncio.create_task(each("").get(f"{path}/live")) for each in (one, other)]
        async with asyncio.timeout(30):
            while not all(parts_of(each).walls._walls for each in (one, other)):
                await asyncio.sleep(0.01)  # until both listen
        id_ = listed[0]["link"]["id"]
        assert (await one("operator").delete(f"/api/v1/walls/{id_}")).status_code == 204
        async with asyncio.timeout(30):
            for stream in streams:
                text = (await stream).text
                assert "event: dark" in text
                assert "fragments" not in text


async def test_a_link_of_a_removed_tenant_opens_nothing(
    configure: Configure, password_hash: str, rq: blocking.Redis
) -> None:
    configure(users(password_hash) + ACME)
    async with running() as console:
        path = await make(console("operator"), "Hall", tenant="acme")
        assert (await console("").get(path)).status_code == 200
    configure(users(password_hash))
    async with running() as console:
        assert (await console("").get(path)).status_code == 404


async def test_the_people_page_lists_users_tokens_and_tenants(
    configure: Configure, password_hash: str
) -> None:
    configure(users(password_hash) + ACME)
    await place("answered", tenant="acme", ago=timedelta(seconds=60))
    async with running() as console:
        client = console("operator")
        await console("agent").get("/now")
        page = (await client.get("/people")).text
        for text in ("supervisor", "0003*210", "reports", "acme", "main/0003*21?"):
            assert text in page
        found = (await client.get("/people?q=VIEW")).text
        assert re.findall(r'<tr><th scope="row">([\w.]+)</th><td><span', found) == ["viewer"]
        listed = {
            each["name"]: each for each in (await client.get("/api/v1/users")).json()["users"]
        }
        assert listed["agent"]["seen"] is not None
        assert listed["viewer"]["seen"] is None
        assert [each["name"] for each in listed["operator"]["tokens"]] == ["all", "reports"]
        assert (await console("viewer").get("/people")).status_code == 403
