"""A reload, with processes that are only their part in it."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest
import redis

from offhook.errors import ConfigError
from offhook.inbox import keys
from offhook.operations import processes
from offhook.operations.processes import OFFHOOK, Reload, begin, cancel, commit, running
from offhook.operations.reload import ReloadFailed, reload
from offhook.operations.reload_member import Member
from offhook.operations.running_files import SERVE, WORK, Loaded, loaded_now
from offhook.settings import load_settings
from tests.conftest import Configure

ON = "nothing has changed, and all processes run on as they were"


@dataclass
class Fake:
    """A process. `fault`: why it cannot prepare; `looks`: how many it takes to prepare."""

    loaded: Loaded
    fault: str = ""
    looks: int = 0
    did: list[str] = field(default_factory=list)
    busy: bool = False

    def prepare(self) -> Loaded | None:
        if self.fault:
            raise ConfigError(self.fault)
        self.looks -= 1
        self.did.append("prepared")
        return self.loaded if self.looks < 0 else None

    def change(self) -> bool:
        self.did.append("changed")
        return not self.busy

    def drop(self) -> None:
        self.did.append("dropped")


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def old(configure: Configure) -> Loaded:
    configure()
    return replace(loaded_now(load_settings()), host="web1", pid=1, at="2026-05-01T10:00:00+00:00")


@pytest.fixture
def new(old: Loaded) -> Loaded:
    return replace(old, files={"/etc/offhook/offhook.toml": "1"})


Add = Callable[..., tuple[Member, Fake]]


@pytest.fixture
def add(client: redis.Redis, old: Loaded, new: Loaded) -> Add:
    """Return a function that adds a process, which has reported once."""

    def add(pid: int = 1, program: str = WORK, **fake: object) -> tuple[Member, Fake]:
        part = Fake(**{"loaded": new} | fake)  # type: ignore[arg-type]
        member = Member(client, replace(old, program=program, pid=pid), part)
        member.look()
        return member, part

    return add


def apply(
    client: redis.Redis, new: Loaded, members: list[Member], timeout: float = 20
) -> tuple[str, list[str]]:
    """Reload while these processes look. Return what is said at the end, and before."""
    ended, said = threading.Event(), list[str]()

    def look() -> None:
        while not ended.wait(0.01):
            for member in members:
                member.look()

    looking = threading.Thread(target=look)
    looking.start()
    try:
        return f"{reload(client, new, timeout, said.append)} changed", said
    except ReloadFailed as error:
        return str(error), said
    finally:
        ended.set()
        looking.join()


def versions(client: redis.Redis) -> set[str]:
    return {each.loaded.version for each in running(client)}


def test_all_change_after_all_are_ready(client: redis.Redis, new: Loaded, add: Add) -> None:
    one, first = add(1, looks=3)
    two, second = add(2, SERVE)
    second.loaded = replace(new, program=SERVE, code={})
    told, said = apply(client, new, [one, two])
    assert told == "2 changed"
    assert "every process is ready: changing to the new version" in said
    assert first.did == ["prepared"] * 4 + ["changed"]
    assert second.did == ["prepared", "changed"]
    assert {each.loaded.files["/etc/offhook/offhook.toml"] for each in running(client)} == {"1"}
    assert apply(client, new, [one, two])[0] == "2 changed"
    assert first.did[-1] == second.did[-1] == "changed", "there was nothing to do"


def test_none_changes_if_one_cannot(
    client: redis.Redis, old: Loaded, new: Loaded, add: Add
) -> None:
    one, first = add(1)
    two, second = add(2, fault="a setting is wrong")
    told, _ = apply(client, new, [one, two])
    assert told == f"`offhook work` on web1 (process 2) refuses: a setting is wrong\n{ON}"
    one.look()
    assert first.did in (["prepared", "dropped"], ["dropped"], [])
    assert versions(client) == {old.version}
    second.fault = ""
    assert apply(client, new, [one, two])[0] == "2 changed"


def test_other_files_on_another_machine_are_named(
    client: redis.Redis, new: Loaded, add: Add
) -> None:
    others = replace(new, files={"/srv/offhook.toml": "2", "/srv/acme.toml": "3"})
    two, second = add(2, loaded=others)
    told, _ = apply(client, new, [two])
    assert told == (
        "`offhook work` on web1 (process 2) refuses: its files are not those of this version: "
        f"acme.toml and offhook.toml\n{ON}"
    )
    assert second.did[:2] == ["prepared", "dropped"]


def test_another_version_of_offhook_refuses(
    client: redis.Redis, new: Loaded, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, first = add(1)
    monkeypatch.setattr(processes, "OFFHOOK", "9.0")
    told, _ = apply(client, new, [one])
    assert f"it runs Offhook {OFFHOOK}, and 9.0 is installed: restart it" in told
    assert "prepared" not in first.did


def test_one_that_does_not_answer_in_time_is_named(
    client: redis.Redis, old: Loaded, new: Loaded, add: Add
) -> None:
    one, first = add(1)
    add(2)
    told, _ = apply(client, new, [one], timeout=3)
    late = "`offhook work` on web1 (process 2)"
    assert told == f"1 of 2 processes are ready in time; not {late}; {ON}"
    one.look()
    assert first.did == ["prepared", "dropped"]
    assert versions(client) == {old.version}


def test_deliveries_in_flight_may_last_longer(client: redis.Redis, new: Loaded, add: Add) -> None:
    one, first = add(1, busy=True)
    told, _ = apply(client, new, [one], timeout=3)
    assert told.startswith("0 of 1 processes run the new version in time; not `offhook work` on ")
    first.busy = False
    one.look()
    assert versions(client) == {new.version}


def test_without_processes_it_says_what_to_start(client: redis.Redis, new: Loaded) -> None:
    assert apply(client, new, [])[0].startswith("no process of Offhook reports to this Redis: ")


def test_of_two_reloads_one_waits(client: redis.Redis, new: Loaded, add: Add) -> None:
    one, _ = add(1)
    assert begin(client, Reload.to(new), 30)
    told, _ = apply(client, new, [one], timeout=0.5)
    assert told == f"another reload has not finished; {ON}"
    cancel(client)
    assert apply(client, new, [one])[0] == "1 changed"


def test_what_was_prepared_is_dropped_when_its_reload_is_gone(
    client: redis.Redis, new: Loaded, add: Add
) -> None:
    one, first = add(1)
    assert begin(client, Reload.to(new), 30)
    one.look()
    assert first.did == ["prepared"]
    assert 0 < client.pttl(keys.RELOAD) <= 30_000
    client.delete(keys.RELOAD)  # as it is once that time is over
    one.look()
    assert first.did == ["prepared", "dropped"]
    assert not one.process.reload


def test_a_process_that_missed_a_reload_follows_and_a_newer_one_does_not(
    client: redis.Redis, old: Loaded, new: Loaded
) -> None:
    change = Reload.to(new)
    commit(client, change)
    newest = Member(client, replace(old, at="2126-05-01T10:00:00+00:00"), Fake(new))
    newest.look()
    assert not newest.process.step
    late = Member(client, old, Fake(new))
    late.look()
    assert late.process.step == "done"
    assert late.process.loaded.version == new.version


def test_a_process_without_redis_runs_on(client: redis.Redis, add: Add) -> None:
    one, first = add(1)
    client.connection_pool.connection_kwargs["port"] = 1
    client.connection_pool.disconnect()
    one.look()
    one.leave()
    assert first.did == []


def test_a_process_that_ended_is_not_waited_for(client: redis.Redis, new: Loaded, add: Add) -> None:
    one, _ = add(1)
    add(2)[0].leave()
    gone, _ = add(3)
    client.delete(keys.process(gone.name))  # as when it expires
    began = time.monotonic()
    assert apply(client, new, [one])[0] == "1 changed"
    assert time.monotonic() - began < 25
