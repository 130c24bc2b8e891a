"""Commands that an event costs the Redis server, as the server counts them."""

import asyncio
from pathlib import Path

import pytest

from benchmarks.backlog import fill, positions
from benchmarks.machine import commands
from benchmarks.one_server import serve
from offhook.settings import load_settings
from receiver.group_commit import MAX_BATCH
from tests.conftest import Configure
from tests.events import event
from tests.receiver.storing import append, storing, until


def run_since(url: str, before: dict[str, int]) -> dict[str, int]:
    """Return the number of runs of each command since `before`, without `INFO` itself."""
    now = commands(url)
    return {name: count - before.get(name, 0) for name, count in now.items() if name != "info"}


def delivered(progress: Path) -> int:
    """Return what the handler has counted."""
    return int.from_bytes(progress.read_bytes(), "little")


async def test_events_accepted_together_share_one_round_trip(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sent = [event(f"call-{n}") for n in range(2 * MAX_BATCH)]

    async with storing(redis_url) as (store, commit):
        await until(lambda: store.takes_directly)
        await append(commit, "first", event("first"))  # loads the script
        before = commands(redis_url)
        await asyncio.gather(*(append(commit, one.id, one) for one in sent))
        ran = run_since(redis_url, before)
    assert ran["evalsha"] == 2
    assert ran["xadd"] == len(sent)
    assert sum(ran.values()) < 3.1 * len(sent)  # deduplicate, append, mark


async def test_deliveries_share_round_trips(
    redis_url: str, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (progress := tmp_path / "progress").write_bytes(bytes(8))
    monkeypatch.setenv("PROGRESS", str(progress))
    configure('[handlers.crm]\nuse = "benchmarks.handlers:nothing"\n')
    settings = load_settings()

    await positions(settings)
    await fill(settings, 5_000)
    before = commands(redis_url)
    await serve(settings, folds=False, ended=lambda: delivered(progress) >= 5_000)
    ran = run_since(redis_url, before)
    assert delivered(progress) == 5_000
    assert ran.pop("rpush") == 5_000  # a call's record, within the script of the flush
    assert sum(ran.values()) < 5_000 / 5
