"""A new version of configuration and code, in processes that serve a stream of callbacks."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import NamedTuple

import aiohttp
import pytest
import redis

from offhook.operations.processes import running
from tests.chaos.audit import Event, audit
from tests.chaos.load import Callers, send, url_of
from tests.installation import OFFHOOK, Installation, wait_until
from tests.processes import children

PLUGIN = """
import asyncio
import os
import time
from dataclasses import dataclass
from pathlib import Path
from offhook import Handler

CODE = "one"

@dataclass(frozen=True)
class Record(Handler):
    option: str

    async def handle(self, event, context):
        await asyncio.sleep(0.05)
        said = event.id, event.call_id, event.parameters["n"], time.time(), CODE, self.option
        with (Path(os.environ["RECORDINGS"]) / context.handler.replace("/", "-")).open("a") as file:
            file.write(" ".join(map(str, said)) + "\\n")
"""
TENANT = """
[tenants.acme]
extensions = ["main/0003*999"]
own_code = true
[tenants.acme.handlers.theirs]
use = "mine:Record"
options.option = "c"
"""
HANDLER = """
[handlers.{name}]
use = "mine:Record"
options.option = "{option}"
"""


class Recorded(NamedTuple):
    id: str
    call: str
    n: int
    at: float
    code: str
    option: str


class Reloading:
    """An installation with two receivers, two processes that serve, and changing files."""

    def __init__(self, offhook: Installation) -> None:
        self.offhook = offhook
        self.config = offhook.folder / "offhook.toml"
        self.plugin = offhook.folder / "mine.py"
        self._settings = self.config.read_text().partition("[handlers.")[0]

    def write(self, handlers: str, settings: str = "") -> None:
        self.config.write_text(f"{self._settings}{settings}\n{handlers}")

    def __call__(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [OFFHOOK, *arguments],
            env=self.offhook.environment,
            cwd=self.offhook.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def versions(self) -> dict[str, str]:
        """Return the version of each process."""
        with redis.Redis.from_url(self.offhook.redis_url) as client:
            loaded = [each.loaded for each in running(client)]
        return {f"{each.program} {each.pid}": each.version for each in loaded}

    def recorded(self, handler: str) -> list[Recorded]:
        path = self.offhook.output / handler
        lines = path.read_text().rpartition("\n")[0].splitlines() if path.exists() else []
        fields = (line.split() for line in lines)
        return [Recorded(i, c, int(n), float(at), code, o) for i, c, n, at, code, o in fields]

    def events_of(self, handler: str) -> set[Event]:
        return {(each.call, each.n) for each in self.recorded(handler)}

    def next_delivery(self) -> Recorded:
        """Return how an event is delivered that comes now."""
        before = len(self.recorded("stays"))
        assert self.offhook.load(1, per_call=1, name=f"next-{time.time()}").count == 1
        wait_until(lambda: len(self.recorded("stays")) > before, "it is delivered")
        return self.recorded("stays")[-1]


async def call(port: int, extension: str) -> None:
    """Make one callback."""
    accepted: dict[tuple[str, int], float] = {}
    async with aiohttp.ClientSession() as session:
        await send(session, url_of(port, extension), f"{extension}-0", 0, accepted)
    assert accepted


@pytest.fixture(scope="module")
def reloading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reloading]:
    folder = tmp_path_factory.mktemp("reloading")
    (folder / "mine.py").write_text(PLUGIN)
    both = HANDLER.format(name="stays", option="a") + HANDLER.format(name="leaves", option="a")
    with Installation.running(folder, both, receivers=2, processes=2) as offhook:
        changing = Reloading(offhook)
        wait_until(lambda: len(changing.versions()) == 4, "all processes report", 60)
        yield changing


def test_a_new_version_costs_no_event_and_no_order(reloading: Reloading) -> None:
    callers = Callers(reloading.offhook.port, calls=12, per_call=5, pause=0.05)
    callers.start()
    try:
        wait_until(lambda: len(callers.accepted) > 50, "events are accepted")
        early = set(callers.accepted)
        wait_until(lambda: early <= reloading.events_of("leaves"), "they are delivered")
        reloading.plugin.write_text(PLUGIN.replace('"one"', '"two"'))
        new = HANDLER.format(name="stays", option="b") + HANDLER.format(name="comes", option="b")
        reloading.write(new + TENANT)
        done = reloading("reload")
        ended = time.time()
        assert done.returncode == 0, done.stderr
        wait_until(lambda: len(callers.accepted) > 0 and time.time() > ended + 1, "events come")
    finally:
        callers.stop()
    accepted = callers.accepted
    assert len(accepted) == callers.sent, "a callback was refused"
    (version,) = {each.partition("-")[0] for each in reloading.versions().values()}
    assert f"4 processes run version {version}-" in done.stdout

    def missing() -> bool:
        # Those that were sent after it, not those whose responses were read after it.
        late = {(call, n) for call, n in accepted if accepted.get((call, n - 1), 0.0) > ended}
        wanted = {"stays": accepted.keys(), "comes": late}
        return any(set(events) - reloading.events_of(name) for name, events in wanted.items())

    wait_until(lambda: not missing(), "every event is delivered", 60)
    asyncio.run(call(reloading.offhook.port, "999"))
    wait_until(lambda: bool(reloading.recorded("acme-theirs")), "the new tenant gets its event")
    found = reloading.recorded("stays")
    findings = audit(accepted, [each[:4] for each in found])
    assert findings.faultless, findings
    assert {(each.code, each.option) for each in found} == {("one", "a"), ("two", "b")}
    assert {each.code for each in found if each.at > ended} == {"two"}
    assert early.isdisjoint(reloading.events_of("comes"))
    assert max(each.at for each in reloading.recorded("leaves")) < ended


def test_a_wrong_version_is_refused_and_all_runs_on(reloading: Reloading) -> None:
    before, versions = reloading.next_delivery(), reloading.versions()
    right = HANDLER.format(name="stays", option="b")
    reloading.write(right.replace("option =", "opton ="))
    refused = reloading("reload")
    assert refused.returncode == 2
    assert refused.stderr.splitlines() == [
        "handlers.stays.options.option: is not set, and must be",
        "handlers.stays.options.opton: there is no such option; did you mean 'option'?",
        "nothing has changed, and all processes run on as they were",
    ]
    reloading.write(right, "partitions = 4")
    refused = reloading("reload")
    assert refused.returncode == 1
    assert "refuses: partitions cannot change while it runs: restart it" in refused.stderr
    wait_until(lambda: len(children(reloading.offhook.supervisor.pid)) == 1, "nothing is prepared")
    wait_until(lambda: reloading.versions() == versions, "all run what they ran")
    assert reloading.next_delivery()[4:] == before[4:]


@pytest.mark.parametrize("program", ["receiver", "supervisor"])
def test_sighup_reloads_all(reloading: Reloading, program: str) -> None:
    reloading.write(HANDLER.format(name="stays", option=program))
    before = reloading.versions()
    getattr(reloading.offhook, program).send_signal(signal.SIGHUP)

    def changed() -> bool:
        now = reloading.versions()
        parts = {version.partition("-")[0] for version in now.values()}
        return now.keys() == before.keys() and len(parts) == 1 and now != before

    wait_until(changed, "all processes have changed", 60)
    assert reloading.next_delivery().option == program


def test_a_receiver_that_is_started_anew_runs_what_the_others_run(reloading: Reloading) -> None:
    reloading.write(HANDLER.format(name="stays", option="c"))
    versions = reloading.versions()
    parent = f"offhook serve {reloading.offhook.receiver.pid}"
    receivers = [name for name in versions if "serve" in name and name != parent]
    os.kill(int(receivers[0].rpartition(" ")[2]), signal.SIGKILL)

    def again() -> bool:
        return bool(reloading.versions().keys() - versions.keys())

    wait_until(again, "another one runs", 60)
    assert set(reloading.versions().values()) <= set(versions.values())
    lines = ["! offhook.toml has changed since `offhook serve` loaded its files ("]
    lines += [f"version {version}: offhook " for version in versions.values()]

    def shown() -> bool:
        status = reloading("status").stdout
        return all(f"\n{line}" in status for line in lines)

    wait_until(shown, "status shows it", 60)
