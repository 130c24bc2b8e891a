"""A PBX that answers slowly, or without end, does not hold up the periodic jobs of the others."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
import redis as blocking
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from offhook import ExtensionSettings
from offhook.connection import connect
from offhook.extensions import Extensions
from offhook.inbox import keys
from offhook.settings import Settings, load_settings
from tests.conftest import Configure
from tests.offhook.sandbox import sandbox
from tests.unifiedapi.serving import serve
from tests.workers.reconcile.reconciling import configuration
from workers import pbxs
from workers.phones import watch_all
from workers.reconcile.job import reconcile_all
from workers.registrations import check_all

JOBS = {"watch_phones": watch_all, "check_registrations": check_all, "reconcile": reconcile_all}
EXTENSION = "0003*211"
IN_TIME = 20.0  # seconds; either PBX would take longer


async def without_end(scope: Scope, receive: Receive, send: Send) -> None:
    """List one entry on each page, always another."""
    start = int(Request(scope, receive).query_params["startIndex"])
    entry = {"extension": f"0003*{start}", "id": str(start), "type": "0", "url": "http://pbx"}
    await JSONResponse({"startIndex": start, "entry": [entry]})(scope, receive, send)


async def byte_by_byte(scope: Scope, receive: Receive, send: Send) -> None:
    """Send a byte now and then."""

    async def body() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.2)

    await StreamingResponse(body())(scope, receive, send)


@pytest.mark.parametrize("hostile", [without_end, byte_by_byte])
@pytest.mark.parametrize("name", JOBS)
def test_hostile_pbx_is_left_until_the_next_run(
    name: str,
    hostile: ASGIApp,
    configure: Configure,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(pbxs, "WITHIN", 1.0)
    before = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    with (
        serve(hostile) as url,
        sandbox() as pbx,
        blocking.Redis.from_url(redis_url) as redis,
        caplog.at_level(logging.ERROR, "offhook"),
    ):
        configure(
            f"[pbx.bad]\nhost = '{url}'\ntoken = 'abcdefghij'\nzone = 'UTC'\ninsecure = true\n"
            + configuration(pbx)
        )
        redis.hset("offhook:reconciled:bad", "until", before)
        asyncio.run(_run(JOBS[name], redis_url))
        done = {
            "watch_phones": redis.exists(keys.phones("main")),
            "check_registrations": redis.hexists(keys.TROUBLE, "registrations main/"),
            "reconcile": redis.exists("offhook:reconciled:main"),
        }
    assert done[name]
    assert caplog.messages == [f"{name}: PBX bad has taken more than 1 s: left until the next run"]


def test_an_unexpected_error_stops_no_other_pbx(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pbxs, "_AT_ONCE", 1)
    configure("".join(f"[pbx.{name}]\nhost = 'https://{name}'\ntoken = 'a' \n" for name in "abc"))
    done = []

    async def work(tenant: str, pbx: str) -> None:
        await asyncio.sleep(0)
        if pbx == "a":
            raise ValueError("a bug")
        done.append(pbx)

    with pytest.raises(ValueError, match="a bug"):
        asyncio.run(pbxs.for_each_pbx(load_settings(), "a job", work))
    assert done == ["b", "c"]


async def _run(job: Callable[[Settings], Awaitable[None]], redis_url: str) -> None:
    async with connect(redis_url) as client:
        put = {(name, EXTENSION): ExtensionSettings() for name in ("bad", "main")}
        await Extensions(client).change(put)
    async with asyncio.timeout(IN_TIME):
        await job(load_settings())
