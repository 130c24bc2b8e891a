"""Now before the first event: what is still to be done; and while Redis is away."""

import re

import msgspec
import redis as blocking

from offhook import ExtensionSettings
from offhook.connection import connect
from offhook.event import CALLBACKS
from offhook.inbox import keys
from offhook.operations.processes import Process, report
from offhook.operations.running_files import SERVE, WORK, loaded_now
from offhook.settings import load_settings
from tests.conftest import Configure
from tests.offhook_console.conftest import Console, place, running, users


def done(page: str) -> list[str]:
    """Return the steps that are done."""
    steps = re.findall(r"<li>(.*?)</li>", page[page.index('<ol class="steps">') :], re.DOTALL)
    return [re.findall("<h2>(.*?)</h2>", each)[0] for each in steps if 'aria-label="done"' in each]


async def test_steps_lead_to_the_first_call(
    configure: Configure, password_hash: str, rq: blocking.Redis
) -> None:
    configure('[pbx.main]\nhost = "https://pbx.test"\ntoken = "t"\n' + users(password_hash))
    async with running() as console:
        client = console("operator")
        assert done((await client.get("/now")).text) == []
        assert "Waiting for the first callback" in (await console("viewer").get("/now")).text
        assert "offhook setup" not in (await console("viewer").get("/now")).text
        settings = load_settings()
        for name, program in (("r", SERVE), ("w", WORK)):
            report(rq, name, Process(loaded_now(settings, program=program)))
        rq.sadd(keys.listed_phones("main"), "0003*210")
        assert len(done((await client.get("/now")).text)) == 2
        ready = ExtensionSettings(events=tuple(CALLBACKS))
        rq.hset(keys.EXTENSIONS, "main/0003*210", msgspec.json.encode(ready))
        page = (await client.get("/now")).text
        assert len(done(page)) == 3
        assert "1 phone listed" in page
    await place("missed")
    async with running() as console:
        page = (await console("operator").get("/now")).text
        assert "No call yet" not in page
        assert "Just ended" in page


async def test_the_events_of_one_tenant_begin_only_its_wallboard(
    configure: Configure, password_hash: str
) -> None:
    ann = f'[console.users.ann]\npassword = "{password_hash}"\nrole = "supervisor"\n'
    ann += 'tenant = "acme"\n'
    configure(users(password_hash) + ann + '[tenants.acme]\nextensions = ["main/0003**"]\n')
    await place("missed", tenant="acme")
    async with running() as console:
        assert "No call yet" not in (await console("ann").get("/now")).text
        assert "No call yet" in (await console("operator").get("/now")).text


async def test_without_redis_now_shows_what_was_last_known(console: Console) -> None:
    call = await place("missed")
    async with running() as clients:
        client = clients("operator")
        parts = client._transport.app.state.parts  # type: ignore[attr-defined]
        there, parts.inbox.redis = parts.inbox.redis, connect("redis://127.0.0.1:1/0", 0)
        parts.feed._is_down()
        page = await client.get("/now")
        assert page.status_code == 200
        assert call.id in page.text
        assert (await client.get("/calls")).status_code == 503
        await parts.inbox.redis.aclose()
        parts.inbox.redis = there
