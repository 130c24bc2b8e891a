"""Pausing a handler and resuming it: what people do, noted in the audit log."""

from redis.asyncio import Redis

from offhook.inbox.paused import pause_handler, resume_handler
from offhook.operations.audit import Change, note_change
from offhook.settings import tenant_of_plugin


async def set_paused(redis: Redis, handler: str, by: str, *, paused: bool) -> bool:
    """Pause a handler, or resume it. Return False if it is so already.

    All processes follow within two seconds; deliveries that run are finished. While it is paused,
    its position, its parked lanes and their attempts stay as they are.

    Args:
        handler: its full name.
        by: who asks for it.
    """
    if paused:
        changed = await pause_handler(redis, handler, by)
    else:
        changed = await resume_handler(redis, handler)
    if changed:
        change = Change.HANDLER_PAUSED if paused else Change.HANDLER_RESUMED
        tenant = tenant_of_plugin(handler)
        await note_change(redis, by, change, {"handler": handler}, tenant=tenant)
    return changed
