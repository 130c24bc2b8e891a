"""`offhook doctor`, run by the workers: what is kept, and where it shows."""

import asyncio
import sys
import time
from datetime import timedelta

import pytest

from offhook import queues
from offhook.connection import connect, opened
from offhook.inbox import Inbox
from offhook.operations.figures import read_figures
from offhook.operations.last_diagnosis import LastDiagnosis, keep, last_diagnosis
from offhook.settings import load_settings
from offhook_console.attention import Attention
from tests.conftest import Configure
from workers import doctor
from workers.scheduler import Scheduler

JOB = "workers.doctor.run_doctor"


async def test_the_result_is_kept_and_counted(redis_url: str, configure: Configure) -> None:
    configure("[handlers.crm]\nuse = 'console'\n")
    settings = load_settings()
    await doctor.examine(settings)
    async with opened(settings) as (inbox, rq):
        found = await last_diagnosis(inbox.redis)
        assert found is not None
        assert found.counts["fail"] > 0  # nothing runs here
        assert len(found.problems) == found.counts["fail"] + found.counts["warn"]
        assert any("no workers run" in each for each in found.problems)
        known = await Attention().get(inbox, rq, settings)
        async with connect(redis_url) as client:
            figures = await read_figures(Inbox(client, 1), client, settings)
        assert figures.diagnosis == found
    by_status = [each for each in known if "(`offhook doctor`" not in each]
    assert "no workers run: start `offhook work`" in by_status
    assert any(each.startswith("no receiver answers") or "public_url" in each for each in known)
    assert len(known) == len(by_status) + len({*found.problems} - {*by_status})


def test_a_doctor_that_cannot_run_is_logged(
    redis_url: str,
    configure: Configure,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    configure()
    monkeypatch.setattr(sys, "executable", "/bin/echo")
    asyncio.run(doctor.examine(load_settings()))
    assert caplog.messages == ["`offhook doctor` cannot be run: JSONDecodeError"]


async def test_a_problem_says_when_and_where_it_was_found(redis_url: str) -> None:
    found = LastDiagnosis.of(
        {
            "counts": {"pass": 1, "warn": 1, "fail": 1},
            "parts": [
                {"findings": [{"verdict": "warn", "sentence": "b"}]},
                {
                    "findings": [
                        {"verdict": "pass", "sentence": "c"},
                        {"verdict": "fail", "sentence": "a"},
                    ]
                },
            ],
        },
        "web1",
    )
    assert found.sentences(found.at + timedelta(minutes=12.5), but=["b"]) == [
        "a (`offhook doctor` on web1, 12 min ago)"
    ]
    assert found.problems == ["a", "b"]
    async with connect(redis_url) as redis:
        await keep(redis, found, 100)
        assert await last_diagnosis(redis) == found


async def test_it_is_not_due_while_processes_start(
    redis_url: str, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure("[handlers.crm]\nuse = 'console'\n")
    called: list[str] = []
    monkeypatch.setattr(queues, "call_scheduled", lambda rq, job: called.append(job))
    settings = load_settings()
    async with opened(settings) as (inbox, rq):
        made = Scheduler(settings, inbox, rq)
        await made.round_of_jobs()
        assert called
        assert JOB not in called
        made._began = time.monotonic() - 300
        await made.round_of_jobs()
    assert JOB in called
