"""Fixtures: a bench on an empty server."""

from collections.abc import Iterator

import pytest

from offhook.inbox import leases
from tests.workers.serving.bench import Bench, token


@pytest.fixture(autouse=True)
def processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the leases of each server name another process."""
    monkeypatch.setattr(leases, "new_token", token)


@pytest.fixture
def bench(redis_url: str) -> Iterator[Bench]:
    made = Bench(redis_url)
    yield made
    made.redis.close()
