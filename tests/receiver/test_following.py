"""A receiver that takes other settings while it serves."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import redis
import uvicorn
from starlette.applications import Starlette

from offhook.callback_url import callback_url, revoke
from offhook.errors import ConfigError
from offhook.inbox import keys
from offhook.settings import load_settings
from receiver.app import Receiver, create_app
from receiver.following import receiver_part
from receiver.uvicorn_protocol import server_config
from tests.conftest import SECRET, Configure
from tests.receiver.storing import until

OTHER = "another secret for the URLs, of 40 letters"


@asynccontextmanager
async def serving(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    """Serve an app as `offhook serve` does. Yield a client with one connection."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(server_config(host="", port=0, app=lambda: app))
    running = asyncio.create_task(server.serve([listening]))
    limits = httpx.Limits(max_connections=1)
    base = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        async with httpx.AsyncClient(base_url=base, limits=limits) as client:
            yield client
    finally:
        server.should_exit = True
        await running


def url(secret: str = SECRET, extension: str = "0003*210") -> str:
    return callback_url("", secret, "main", extension, "dial-in")


async def test_other_settings_hold_from_the_next_request_on(
    configure: Configure, redis_url: str, tmp_path: Path
) -> None:
    patient: dict[str, object] = {"patience": 10}  # Redis has no fault
    configure('[handlers.crm]\nuse = "console"\n', **patient)
    app = create_app(load_settings())
    receiver: Receiver = app.state.receiver
    async with serving(app) as client:

        async def status(path: str) -> int:
            answer = await client.get(path, params={"CallID": "1", "n": "1", "CallFlow": "IN"})
            if answer.is_success:  # else it may be closed
                stream = answer.extensions["network_stream"]
                connections.append(stream.get_extra_info("client_addr"))
            return answer.status_code

        connections: list[object] = []
        await until(lambda: receiver.store.takes_directly)
        assert await status(url()) == 200
        handlers = '[handlers.crm]\nuse = "console"\n[handlers.new]\nuse = "console"\n'
        configure(handlers, secret=OTHER, previous_secret=SECRET, url_rate=1, **patient)
        await receiver.take(load_settings())
        with redis.Redis.from_url(redis_url) as server:
            assert server.hget(keys.known(0), "new") == server.xrevrange(keys.inbox(0))[0][0]
        assert await status(url()) == await status(url(OTHER)) == 200
        assert connections == connections[:1] * 3
        assert 429 in {await status(url()) for _ in range(40)}
        revoke(tmp_path / "gone.json", [("main", "0003*211", "dial-in")])
        configure(handlers, secret=OTHER, revoked="gone.json")
        await receiver.take(load_settings())
        assert await status(url()) == 404
        assert await status(url(OTHER)) == 200
        revoked = url(OTHER, "0003*211")
        async with asyncio.timeout(20):
            while await status(revoked) != 404:
                await asyncio.sleep(0.1)
        configure(handlers, secret=OTHER, allowed_addresses=["127.0.0.9"])
        await receiver.take(load_settings())
        assert await status(url(OTHER)) == 404


async def test_metrics_are_those_of_the_other_settings(configure: Configure) -> None:
    configure('[handlers.crm]\nuse = "console"\n')
    app = create_app(load_settings())
    receiver: Receiver = app.state.receiver
    token = "a token for the scraper of these tests, long enough"
    async with serving(app) as client:
        await until(lambda: receiver.store.takes_directly)
        assert 'handler="crm"' in (await client.get("/metrics")).text
        configure('[handlers.new]\nuse = "console"\n', metrics_token=token)
        await receiver.take(load_settings())
        assert (await client.get("/metrics")).status_code == 404
        await asyncio.sleep(1.1)  # a scrape is kept for a second
        found = await client.get("/metrics", headers={"Authorization": f"Bearer {token}"})
        assert 'handler="new"' in found.text
        assert 'handler="crm"' not in found.text


def test_what_cannot_change_is_refused(configure: Configure, tmp_path: Path) -> None:
    configure()
    part = receiver_part(load_settings(), lambda *_: None)
    configure(journal="elsewhere", durability="disk")
    with pytest.raises(ConfigError, match=r"^durability, journal cannot change while it runs: "):
        part.prepare()
    (tmp_path / "revoked.json").write_text("{")
    configure()
    with pytest.raises(ConfigError, match="is damaged"):
        part.prepare()
