"""A lease of a piece of work: one process has it, and changes no other one's."""

import asyncio

from offhook.connection import opened
from offhook.inbox import keys
from offhook.operations.run_lease import RunLease
from offhook.settings import load_settings
from tests.conftest import Configure


async def test_a_lease_has_one_holder_who_alone_may_renew_and_release(
    configure: Configure,
) -> None:
    configure()
    async with opened(load_settings()) as (inbox, _):
        one, other = (RunLease(inbox.redis, keys.SETUP_LEASE, 60) for _ in range(2))
        assert (await one.take(), await other.take()) == (True, False)
        assert (await one.renew(), await other.renew()) == (True, False)
        await other.release()
        assert await one.renew()
        await one.release()
        assert (await one.renew(), await other.take()) == (False, True)
        await one.release()
        assert await other.renew()


async def test_a_lease_expires_unless_it_is_renewed(configure: Configure) -> None:
    configure()
    async with opened(load_settings()) as (inbox, _):
        one, other = (RunLease(inbox.redis, keys.SETUP_LEASE, 1) for _ in range(2))
        assert await one.take()
        async with asyncio.timeout(30):
            while not await other.take():
                await asyncio.sleep(0.1)
        assert not await one.renew()
