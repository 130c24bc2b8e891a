"""The journal's file: batches come back complete and in order, whatever happens."""

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import pytest

from offhook.errors import ConfigError, InboxUnavailable
from offhook.inbox import Batch
from receiver.journal import Journal, open_journals
from tests.events import batch_of, event
from tests.receiver.storing import files_may_have, until

LIMIT = 10_000_000


class Refused(Exception):
    """The consumer refuses a batch."""


class Taker:
    """Accepts the first `most` batches and refuses the rest."""

    def __init__(self) -> None:
        self.taken: list[Batch] = []
        self.most = 1_000_000

    async def __call__(self, batch: Batch) -> None:
        if len(self.taken) >= self.most:
            raise Refused
        await asyncio.sleep(0)
        self.taken.append(batch)


def batches(count: int, size: int = 10) -> list[Batch]:
    return [batch_of(event("Zoë\n" + "x" * size, n), event("b", n)) for n in range(count)]


async def drained(journal: Journal) -> list[Batch]:
    taker = Taker()
    while not await journal.drain(taker):
        pass
    return taker.taken


async def append_all(journal: Journal, some: list[Batch]) -> None:
    for batch in some:
        await journal.append(batch)


async def left_behind(folder: Path, some: list[Batch]) -> Path:
    """Return the path of a journal with these batches, as left by a dead process."""
    [journal] = open_journals(folder, LIMIT)
    await append_all(journal, some)
    journal.close()
    return journal.path


async def test_batches_come_back_unchanged_and_in_order(tmp_path: Path) -> None:
    some = batches(3000, size=200)  # more than is read at once

    [journal] = open_journals(tmp_path, LIMIT)
    assert journal.size == 0
    await append_all(journal, some)
    assert journal.size == journal.path.stat().st_size > 1_000_000
    assert await drained(journal) == some
    assert journal.size == journal.path.stat().st_size == 0
    await append_all(journal, some[:2])
    assert await drained(journal) == some[:2]
    journal.close()
    assert list(tmp_path.iterdir()) == []


async def test_drain_resumes_with_the_refused_batch(tmp_path: Path) -> None:
    some = batches(5)

    [journal] = open_journals(tmp_path, LIMIT)
    await append_all(journal, some)
    taker = Taker()
    for taker.most in (0, 2, 2, 4):
        with pytest.raises(Refused):
            await journal.drain(taker)
    taker.most = 100
    assert await journal.drain(taker)
    assert taker.taken == some
    journal.close()


async def test_batches_appended_during_a_drain_are_drained(tmp_path: Path) -> None:
    some = batches(600, size=3000)

    [journal] = open_journals(tmp_path, LIMIT)
    await journal.append(some[0])
    appending = asyncio.create_task(append_all(journal, some[1:]))
    taker = Taker()
    while not appending.done():
        await journal.drain(taker)
    await appending
    assert taker.taken, "nothing was appended during a drain"
    while not await journal.drain(taker):
        pass
    assert taker.taken == some
    journal.close()


async def test_line_longer_than_one_read_is_drained(tmp_path: Path) -> None:
    some = [*batches(1), *batches(1, size=1_800_000), *batches(1)]

    [journal] = open_journals(tmp_path, LIMIT)
    await append_all(journal, some)
    assert await drained(journal) == some
    journal.close()


async def test_only_the_owner_can_read_the_file(tmp_path: Path) -> None:
    path = await left_behind(tmp_path, batches(1))
    assert path.stat().st_mode & 0o077 == 0


# Journals of dead receivers


async def test_dead_receivers_journals_are_drained_oldest_first(tmp_path: Path) -> None:
    some = batches(6)
    for n in range(0, 6, 2):
        journals = open_journals(tmp_path, LIMIT)
        await append_all(journals[-1], some[n : n + 2])
        os.utime(journals[-1].path, (1000 - n, 1000 - n))  # the times of the files do not matter
        for journal in journals:
            journal.close()
        time.sleep(0.002)  # names begin with milliseconds
    journals = open_journals(tmp_path, LIMIT)
    assert len(journals) == 4

    found = []
    for journal in journals:
        found += await drained(journal)
        journal.close()
    assert found == some
    assert list(tmp_path.iterdir()) == []


async def test_oldest_journal_is_first_even_if_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = batches(6)
    (tmp_path / "zzz.journal").write_text("another program's file")
    for n in range(0, 6, 2):
        # As another process, which does not remember earlier times.
        monkeypatch.setattr("offhook.event._latest", 0)
        monkeypatch.setattr("time.time_ns", lambda n=n: (1_000_000 - n * 3600) * 10**9)
        journals = open_journals(tmp_path, LIMIT)
        await append_all(journals[-1], some[n : n + 2])
        for journal in journals:
            journal.close()
    *journals, own = open_journals(tmp_path, LIMIT)

    found = []
    for journal in journals:
        found += await drained(journal)
        journal.close()
    assert found == some
    own.close()


def test_journal_of_a_running_receiver_is_not_taken_over(tmp_path: Path) -> None:
    hold = """
import asyncio, sys, pathlib
from receiver.journal import open_journals
from tests.events import batch_of, event
journal = open_journals(pathlib.Path(sys.argv[1]), 1000000)[-1]
asyncio.run(journal.append(batch_of(event())))
print(journal.path, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        text=True,
    ) as other:
        assert other.stdout
        path = other.stdout.readline().strip()
        try:
            [own] = open_journals(tmp_path, LIMIT)
            own.close()
            with pytest.raises(BlockingIOError):
                Journal(Path(path), LIMIT)
        finally:
            other.kill()
    [theirs, own] = open_journals(tmp_path, LIMIT)
    assert str(theirs.path) == path
    theirs.close()
    own.close()


def test_receivers_starting_together_keep_their_own_journals(tmp_path: Path) -> None:
    start = """
import sys, pathlib
from receiver.journal import open_journals
sys.stdin.readline()
held = [open_journals(pathlib.Path(sys.argv[1]), 1000000) for _ in range(100)]
assert all(len(each) == 1 and each[0].path.exists() for each in held)
print("fine")
"""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", start, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )
        for _ in range(3)
    ]
    answers = []
    for each in started:
        assert each.stdin
        each.stdin.write(b"\n")
        each.stdin.flush()
    for each in started:
        answers.append(each.communicate()[0])
    assert answers == [b"fine\n"] * 3


def test_empty_journals_are_deleted(tmp_path: Path) -> None:
    for name in ("1", "2", "3"):
        (tmp_path / f"{name}.journal").touch()
    [own] = open_journals(tmp_path, LIMIT)
    assert list(tmp_path.iterdir()) == [own.path]
    own.close()


@pytest.mark.parametrize("cut", [1, 5, 100])
async def test_incomplete_last_batch_is_skipped(tmp_path: Path, cut: int) -> None:
    some = batches(3)
    path = await left_behind(tmp_path, some)
    os.truncate(path, path.stat().st_size - cut)
    [torn, own] = open_journals(tmp_path, LIMIT)

    assert await drained(torn) == some[:2]
    assert torn.size == 0
    torn.close()
    own.close()
    assert list(tmp_path.iterdir()) == []


async def test_file_with_only_an_incomplete_batch_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "1.journal").write_bytes(b"\0" * 700_000)
    [torn, own] = open_journals(tmp_path, LIMIT)

    assert await drained(torn) == []
    torn.close()
    own.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [b"#", b"\n", b"\r"])
async def test_damaged_batch_is_kept_aside_and_the_rest_drained(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    some = batches(3)
    path = await left_behind(tmp_path, some)
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    middle = len(lines[0]) + len(lines[1]) // 2
    path.write_bytes(data[:middle] + damage + data[middle + 1 :])
    [old, own] = open_journals(tmp_path, LIMIT)

    assert await drained(old) == [some[0], some[2]]
    old.close()
    own.close()
    [kept] = tmp_path.iterdir()
    assert kept == path.with_suffix(".damaged")
    assert (
        kept.read_bytes()
        == data[middle - len(lines[1]) // 2 : middle]
        + damage
        + (data[middle + 1 : len(lines[0]) + len(lines[1])])
    )
    assert kept.stat().st_mode & 0o077 == 0
    assert "is damaged" in caplog.text


async def test_valid_line_that_is_no_batch_is_skipped(tmp_path: Path) -> None:
    some = batches(1)
    path = await left_behind(tmp_path, some)
    other = b'{"not":"a batch"}'
    path.write_bytes(b"%08x %s\n00000000 \n\n" % (zlib.crc32(other), other) + path.read_bytes())
    [old, own] = open_journals(tmp_path, LIMIT)

    assert await drained(old) == some
    old.close()
    own.close()


# The disk has a fault


async def test_full_journal_refuses_batches_until_drained(tmp_path: Path) -> None:
    some = batches(3, size=1000)

    [journal] = open_journals(tmp_path, 9000)
    await journal.append(some[0])
    with pytest.raises(InboxUnavailable, match="has reached its limit of 9000 bytes"):
        await journal.append(batches(1, size=8000)[0])
    await journal.probe()  # there is room for a smaller batch
    assert journal.fault == "the journal has reached its limit of 9000 bytes"
    assert await drained(journal) == [some[0]]
    assert journal.fault is None
    await journal.append(some[1])
    assert await drained(journal) == [some[1]]
    journal.close()


async def test_failed_write_leaves_the_journal_unchanged(tmp_path: Path) -> None:
    some = batches(4, size=2000)

    [journal] = open_journals(tmp_path, LIMIT)
    await journal.append(some[0])
    size = journal.path.stat().st_size
    with files_may_have(size + 100):
        for _ in range(2):
            with pytest.raises(InboxUnavailable, match="cannot be written: File too large"):
                await journal.append(some[1])
        assert journal.path.stat().st_size == journal.size == size
        await journal.probe()
        assert journal.fault == "the journal cannot be written: File too large"
    await journal.probe()
    assert journal.fault is None
    assert journal.path.stat().st_size == size
    await append_all(journal, some[2:])
    assert await drained(journal) == [some[0], *some[2:]]
    journal.close()


async def test_failed_write_that_cannot_be_truncated_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = batches(4, size=2000)

    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    [journal] = open_journals(tmp_path, LIMIT)
    await journal.append(some[0])
    with monkeypatch.context() as patch:  # there is no way to make a real disk fail like this
        patch.setattr(os, "fdatasync", broken)
        patch.setattr(os, "ftruncate", broken)
        with pytest.raises(InboxUnavailable, match="Input/output error"):
            await journal.append(some[1])
    assert journal.path.stat().st_size > journal.size
    await journal.append(batch_of(event("short")))
    taken = await drained(journal)
    assert [len(batch.events) for batch in taken] == [2, 1]
    journal.close()
    assert list(tmp_path.iterdir()) == []  # no batch counts as damaged


async def test_batch_appended_after_a_failed_sync_of_the_empty_journal_survives_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = batches(2)

    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    [journal] = open_journals(tmp_path, LIMIT)
    await journal.append(some[0])
    with monkeypatch.context() as patch:  # there is no way to make a real disk fail like this
        patch.setattr(os, "fsync", broken)
        with pytest.raises(OSError, match="Input/output error"):
            await journal.drain(Taker())
    await journal.append(some[1])
    journal.close()  # as a crash does, it leaves the file
    [old, own] = open_journals(tmp_path, LIMIT)
    assert await drained(old) == [some[1]]
    old.close()
    own.close()
    assert list(tmp_path.iterdir()) == []


async def test_a_disk_that_hangs_is_logged_once_whatever_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    responds = threading.Event()
    monkeypatch.setattr(os, "fdatasync", lambda file: responds.wait(30))
    [journal] = open_journals(tmp_path, LIMIT, 0.05)

    with caplog.at_level(logging.WARNING):
        appending = asyncio.create_task(journal.append(batches(1)[0]))
        await until(lambda: journal.fault is not None)
        probing = asyncio.create_task(journal.probe())  # which the receiver does twice a second
        await asyncio.wait([probing], timeout=0.2)
        assert journal.fault == "the journal's disk has not responded for 0.05 s"
        responds.set()
        await asyncio.gather(appending, probing)
    journal.close()
    assert journal.fault is None
    assert [each.getMessage().partition(":")[0] for each in caplog.records] == [
        "the journal's disk has not responded for 0.05 s",
        "the journal's disk responds again",
    ]


@pytest.mark.parametrize("place", ["file/journal", "file"])
def test_impossible_folder_is_a_configuration_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"^journal: .* cannot be written \(.+\): name a folder"):
        open_journals(tmp_path / place, LIMIT)


async def test_closed_journal_leaves_no_open_descriptor(tmp_path: Path) -> None:
    path = await left_behind(tmp_path, batches(1))
    for _ in range(3):
        journals = open_journals(tmp_path, LIMIT)
        assert open_in(tmp_path) == sorted([path, journals[-1].path])
        for journal in journals:
            journal.close()
    assert open_in(tmp_path) == []


def open_in(folder: Path) -> list[Path]:
    """Return the files of a folder that this process has open."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the list itself
            found.append(descriptor.readlink())
    return sorted(path for path in found if path.is_relative_to(folder))
