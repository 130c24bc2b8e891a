"""An upgrade under load from the version before, as docs/upgrading.md says, and the way back."""

import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from offhook.inbox import keys
from tests.installation import ROOT, Installation, Outcome, audit, wait_until
from tests.processes import session_of

HANDLERS = """
[handlers.fast]
use = "tests.recorders:record"
[handlers.parks]
use = "tests.recorders:park_some"
retry = [6]
"""
NAMES = ("fast", "parks")
FIRST = "d6cd585"  # until there are releases: a commit that every later version can go back to


def git(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of the release before, or of `FIRST`."""
    named = git("describe", "--tags", "--abbrev=0", "--match", "v*", "HEAD~1")
    revision = named.stdout.strip() or FIRST
    if git("cat-file", "-e", f"{revision}^{{commit}}").returncode:
        pytest.fail(f"this clone does not have {revision}: git fetch --unshallow --tags")
    folder = tmp_path_factory.mktemp("earlier")
    files = git("ls-tree", "-r", "--name-only", revision).stdout.split()
    packages = [name.split("/")[0] for name in files if name.count("/") == 1 and "py.typed" in name]
    archive = folder / "packages.tar"
    done = git("archive", f"--output={archive}", revision, *packages)
    assert done.returncode == 0, done.stderr
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder


@contextmanager
def load(offhook: Installation, name: str) -> Iterator[Outcome]:
    """Send callbacks until the end of the block; the outcome is complete after it."""
    outcome, stop = Outcome(), threading.Event()

    def run() -> None:
        turn = 0
        while not stop.is_set():
            part = offhook.load(100, name=f"{name}-{turn}", connections=8)
            outcome.accepted.update(part.accepted)
            turn += 1

    loading = threading.Thread(target=run)
    loading.start()
    try:
        yield outcome
    finally:
        stop.set()
        loading.join()


def change(offhook: Installation, code: Path) -> None:
    """Upgrade the receiver, then the workers, while those of another machine still run."""
    offhook.use(code)
    offhook.receiver.terminate()
    offhook.receiver.wait()
    offhook.receiver = offhook.start_receiver()
    wait_until(offhook.is_ready, "the receiver is ready")
    before = offhook.supervisor
    offhook.supervisor = offhook.start_supervisor()
    both = {before.pid, offhook.supervisor.pid}
    wait_until(lambda: serving(offhook) == both, "both versions serve partitions")
    before.terminate()
    assert before.wait(60) == 0
    only = {offhook.supervisor.pid}
    wait_until(lambda: serving(offhook) == only, "one version serves all partitions")


def serving(offhook: Installation) -> set[int]:
    """The supervisors whose processes have a lease, or 0 if some partition has none."""
    with offhook.client() as client:
        leases = [str(client.get(keys.serving(partition))) for partition in range(16)]
    return {session_of(int(lease.split("/")[1])) if "/" in lease else 0 for lease in leases}


def test_upgrade_under_load_and_back_loses_nothing(earlier: Path, tmp_path: Path) -> None:
    with Installation.running(tmp_path, HANDLERS, code=earlier) as offhook:
        outcomes = []
        for name, code in (("up", ROOT), ("back", earlier)):
            # Parked by one version, redelivered by the other.
            outcomes.append(offhook.load(30, name=f"parked-{name}"))
            with load(offhook, name) as outcome:
                change(offhook, code)
            outcomes.append(outcome)
        outcomes.append(offhook.load(50, name="after"))
        accepted = Outcome()
        for outcome in outcomes:
            accepted.accepted.update(outcome.accepted)
        offhook.wait_for_all(accepted, NAMES)
        for name in NAMES:
            audit(accepted, delivered(offhook, name, accepted), repeats=True)
        with offhook.client() as client:
            assert client.exists(keys.quarantine()) == 0
            assert client.exists("rq:failed:offhook.fast.redeliver") == 0
        assert "cannot be read" not in offhook.log.read_text()


def delivered(offhook: Installation, name: str, accepted: Outcome) -> list[tuple[str, str, int]]:
    """What a handler got, but events whose answer a restart cut off."""
    known = {(call, n) for call, numbers in accepted.accepted.items() for n in numbers}
    return [each for each in offhook.delivered(name) if each[1:] in known]
