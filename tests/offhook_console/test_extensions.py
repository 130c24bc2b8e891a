"""Extensions: what differs on the PBX, and setting them up, in the background."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import httpx
import msgspec
import pytest

from offhook import ExtensionSettings
from offhook.call import Kind
from offhook.connection import opened
from offhook.extensions import Extensions
from offhook.inbox import keys
from offhook.operations.audit import changes
from offhook.operations.phone_states import RegistrationState
from offhook.settings import load_settings
from offhook_console import extension_setup
from tests.conftest import Configure
from tests.offhook.sandbox import Sandbox, sandbox
from tests.offhook_console.conftest import Console, running, users

SECRETS = ("sandbox-token", "forty characters")


@pytest.fixture
def pbx() -> Iterator[Sandbox]:
    with sandbox() as made:
        yield made


@pytest.fixture
async def consoles(
    configure: Configure, password_hash: str, pbx: Sandbox
) -> AsyncIterator[Console]:
    configure(
        f"[pbx.main]\nhost = '{pbx.url}'\ntoken = 'sandbox-token'\ninsecure = true\n"
        "[tenants.acme]\nextensions = ['main/0003*213']\n" + users(password_hash)
    )
    known = {
        ("main", f"0003*21{n}"): ExtensionSettings(label=f"Desk {n}", kind=Kind.PHONE)
        for n in range(4)
    }
    async with opened(load_settings()) as (inbox, _):
        await Extensions(inbox.redis).change(known)
        state = msgspec.json.encode(RegistrationState(registered=False))
        await inbox.redis.hset(keys.phones("main"), "0003*211", state)
    async with running() as clients:
        yield clients


async def ended(client: httpx.AsyncClient) -> dict[str, object]:
    """Wait until the run has ended; return it."""
    for _ in range(600):
        found: dict[str, object] = (await client.get("/api/v1/extensions/run")).json()
        if not found["runs"]:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError("the run does not end")


async def test_drift_is_found_shown_and_mended(consoles: Console, pbx: Sandbox) -> None:
    client = consoles("operator")
    assert (await client.post("/extensions/compare")).status_code == 303
    assert (await ended(client))["run"]["failed"] == 0  # type: ignore[index]
    page = (await client.get("/extensions")).text
    assert "3 of 3 extensions differ" in page
    assert "main 0003*210 create dial-in, dial-out, hangup, answer-in, answer-out" in page
    assert "0003*213" not in page  # a tenant's
    assert "Do this on 3 extensions…" in page
    gone = (await client.get("/extensions?phone=gone")).text
    assert ("Desk 1" in gone, "Desk 0" in gone) == (True, False)
    found = (await client.get("/api/v1/extensions?drift=yes&q=desk+2")).json()
    assert [each["extension"] for each in found["extensions"]] == ["0003*212"]
    assert found["extensions"][0]["plan"][0][0] == "+"
    assert pbx.changes() == []
    assert (await client.post("/extensions/setup")).status_code == 303
    run = (await ended(client))["run"]
    assert (run["kind"], run["done"], run["failed"]) == ("setup", 3, 0)  # type: ignore[index]
    assert len(pbx.types("0003*210")) == 5
    page = (await client.get("/extensions")).text
    assert "up to date" in page
    assert "differ. This" not in page
    assert (await client.post("/extensions/setup")).status_code == 409  # nothing differs
    async with opened(load_settings()) as (inbox, _):
        did = [each.did for each in await changes(inbox.redis)]
        everything = str([await inbox.redis.dump(key) async for key in inbox.redis.scan_iter()])
    assert did[0] == "asked to set up 3 extensions on the PBX: 0003*210, 0003*211, 0003*212"
    for secret in SECRETS:
        assert secret not in page
        assert secret not in everything


async def test_an_extension_is_set_up_once_its_plan_was_seen(
    consoles: Console, pbx: Sandbox
) -> None:
    client = consoles("operator")
    plan = await client.get("/extensions/setup?extensions=0003*210&label=Front+%3Cb%3E")
    assert "create dial-in" in plan.text
    assert "label: Front &lt;b&gt;" in plan.text
    assert pbx.changes() == []
    body = {"extensions": ["0003*210"], "label": "Front", "kind": "phone"}
    assert (await client.post("/api/v1/extensions/setup", json=body)).status_code == 202
    run = (await ended(client))["run"]
    assert (run["kind"], run["by"], run["errors"]) == ("setup", "operator", [])  # type: ignore[index]
    assert len(pbx.types("0003*210")) == 5
    [one] = (await client.get("/api/v1/extensions?q=0003*210")).json()["extensions"]
    assert (one["label"], one["kind"]) == ("Front", "phone")
    for wrong in ("", "x", "0003*213", " ".join(f"0003*{n}" for n in range(300, 330))):
        answer = await client.get("/extensions/setup", params={"extensions": wrong})
        assert answer.status_code == 400, wrong
    assert (await client.post("/api/v1/extensions/compare")).status_code == 202
    await ended(client)


async def test_a_setup_stops_once_its_lease_is_anothers(
    consoles: Console, pbx: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extension_setup, "_BEAT", 0.05)
    pbx.holds = True
    running: set[asyncio.Task[None]] = set()
    async with opened(load_settings()) as (inbox, _):
        setup = extension_setup.ExtensionSetup(load_settings(), inbox.redis, running)
        await setup.start_setup("ruth", {("main", "0003*210"): ExtensionSettings()})
        [work] = running
        await inbox.redis.set(keys.SETUP_LEASE, "another console", ex=60)
        async with asyncio.timeout(30):
            await asyncio.wait([work])
        assert work.cancelled()
        assert running == set()
        assert await inbox.redis.get(keys.SETUP_LEASE) == b"another console"
        run, _ = await setup.state()
        assert run is not None
        assert run.ended is None
    pbx.holds = False


@pytest.mark.usefixtures("quick_retries")
async def test_failures_are_told_and_one_run_goes_on_at_a_time(
    consoles: Console, pbx: Sandbox
) -> None:
    client = consoles("operator")
    async with opened(load_settings()) as (inbox, _):
        await inbox.redis.set(keys.SETUP_LEASE, "another console", ex=60)
        assert (await client.post("/extensions/compare")).status_code == 409
        await inbox.redis.delete(keys.SETUP_LEASE)
    pbx.dies_after = 0
    await client.post("/extensions/compare")
    run = (await ended(client))["run"]
    assert run["failed"] == 3  # type: ignore[index]
    page = (await client.get("/extensions")).text
    assert "3 extensions failed" in page
    assert "sandbox-token" not in page
    refused = await client.get("/extensions/setup?extensions=0003*210")
    assert refused.status_code == 200
    assert "0003*210: " in refused.text
