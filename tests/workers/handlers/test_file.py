"""The file handler: what the disk holds after crashes, a full disk and concurrent writers."""

import csv
import gzip
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from offhook import CallEvent, Party, TemporaryError
from offhook.errors import ConfigError
from offhook.testing import configured, deliver, sample_call, sample_event, sample_events
from workers.handlers.file import LOOK_BACK, File


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "calls.jsonl"


def ids(*paths: Path) -> list[str]:
    """The ids of the events in files. Every line must be complete."""
    found = []
    for path in paths:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        assert content.endswith(b"\n") or not content
        found += [json.loads(line)["id"] for line in content.splitlines()]
    return found


def finished(path: Path) -> list[Path]:
    """The finished files, oldest first."""
    return sorted(path.parent.glob(f"{path.stem}-*"))


def yesterday(path: Path) -> datetime:
    """Set the file's time of change to a day ago, and return that."""
    then = datetime.now(UTC) - timedelta(days=1)
    os.utime(path, (then.timestamp(), then.timestamp()))
    return then


def test_an_event_is_a_line(path: Path) -> None:
    events = [*sample_events(), *sample_events("calls")]
    file = configured(File, path=path)
    for event in events:
        deliver(file, event)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [event.as_dict() for event in events]


def test_files_are_for_their_owner_only(path: Path) -> None:
    file = configured(File, path=path, keep=5)
    deliver(file, sample_event())
    with path.open("ab") as torn:
        torn.write(b"torn")
    deliver(file, sample_event())
    yesterday(path)
    deliver(file, sample_event())
    assert len(finished(path)) == 1
    assert {each.stat().st_mode & 0o777 for each in path.parent.iterdir()} == {0o600}


def test_the_next_file_can_be_read_by_those_who_could_read_the_last(path: Path) -> None:
    file = configured(File, path=path)
    deliver(file, sample_event())
    path.chmod(0o640)
    yesterday(path)
    deliver(file, sample_event())
    assert [each.stat().st_mode & 0o777 for each in (path, *finished(path))] == [0o640, 0o640]


def test_csv_has_a_header_once_and_a_row_for_every_event(path: Path) -> None:
    file = configured(File, path=path, format="csv")
    ended, raw = sample_event("call-ended"), sample_event("hangup")
    deliver(file, ended)
    deliver(file, raw)
    with path.open(newline="") as lines:
        first, second = csv.DictReader(lines)
    assert first["id"] == ended.id
    assert first["caller_number"] == "+40211234567"
    assert first["received"] == first["ended"] == "2026-11-21 19:30:53"
    assert first["outcome"] == "answered"
    assert (first["ring_seconds"], first["talk_seconds"]) == ("8.0", "45.0")
    assert first["answered_by"] == "0003*210"
    assert second["id"] == raw.id
    assert second["outcome"] == second["started"] == second["recording"] == ""


def test_a_callers_name_is_never_a_formula(path: Path) -> None:
    cells = {
        'Jane, "the" Doe': 'Jane, "the" Doe',
        "Jane\r\nDoe\x00": "Jane Doe ",
        "=HYPERLINK(1)": "'=HYPERLINK(1)",
        "@SUM(1)": "'@SUM(1)",
        "+40 (21) 123-45.67": "+40 (21) 123-45.67",
        "+1+cmd|' /C calc'!A0": "'+1+cmd|' /C calc'!A0",
        "-cmd": "'-cmd",
        "Müller ☎": "Müller ☎",
    }
    for name in cells:
        caller = Party(name=name, number="1")
        deliver(configured(File, path=path, format="csv"), sample_event("hangup", caller=caller))
    assert len(path.read_text().splitlines()) == 1 + len(cells)
    with path.open(newline="") as lines:
        assert [row["caller_name"] for row in csv.DictReader(lines)] == list(cells.values())


def test_a_file_with_other_columns_is_finished(path: Path) -> None:
    path.write_text("id,colour\n1,red\n")
    deliver(configured(File, path=path, format="csv", compress=False), sample_event("call-ended"))
    (old,) = finished(path)
    assert old.read_text() == "id,colour\n1,red\n"
    assert path.read_text().startswith("id,pbx,call_id,")


def test_a_redelivery_adds_no_line(path: Path) -> None:
    file = configured(File, path=path)
    events = [sample_event("call-ended") for _ in range(3)]
    for event in events:
        deliver(file, event)
    deliver(file, events[2])  # after a crash it is a first attempt again
    deliver(file, events[0], attempt=2)
    assert ids(path) == [event.id for event in events]


def test_a_redelivery_searches_the_whole_file(path: Path) -> None:
    file, event = configured(File, path=path), sample_event("call-ended")
    large = sample_event("hangup", parameters={"text": "x" * LOOK_BACK})
    for each in (event, large):
        deliver(file, each)
    deliver(file, event, attempt=2)
    assert len(ids(path)) == 2
    deliver(file, event)  # a replay: a first attempt does not look back that far
    assert len(ids(path)) == 3


def test_a_redelivery_just_after_midnight_adds_no_line(path: Path) -> None:
    file, event = configured(File, path=path), sample_event("call-ended")
    deliver(file, event)
    yesterday(path)
    deliver(file, event)
    assert ids(path) == [event.id]
    assert finished(path) == []


def test_an_incomplete_line_is_moved_out_of_the_file(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = configured(File, path=path)
    first, torn = sample_event("call-ended"), sample_event("call-ended")
    deliver(file, first)
    deliver(file, torn)
    content = path.read_bytes()
    for cut in (1, 200, len(content.splitlines()[1])):
        path.write_bytes(content[:-cut])
        deliver(file, torn)
        assert ids(path) == [first.id, torn.id]
    assert "calls.jsonl.torn" in caplog.text
    assert (
        (path.parent / "calls.jsonl.torn").read_bytes().startswith(content.splitlines()[1][:-200])
    )


def test_a_crash_in_the_first_line_leaves_a_valid_file(path: Path) -> None:
    path.write_text('{"id":"12')
    event = sample_event("call-ended")
    deliver(configured(File, path=path), event)
    assert ids(path) == [event.id]


def test_a_new_day_starts_a_new_file(path: Path) -> None:
    file = configured(File, path=path, compress=False)
    first, second = sample_event("call-ended"), sample_event("call-ended")
    deliver(file, first)
    then = yesterday(path)
    deliver(file, second)
    (old,) = finished(path)
    assert old.name.startswith(f"calls-{then:%Y%m%d-}")
    assert old.suffix == ".jsonl"
    assert (ids(old), ids(path)) == ([first.id], [second.id])


def test_a_new_day_keeps_the_file_without_daily(path: Path) -> None:
    file = configured(File, path=path, daily=False)
    deliver(file, sample_event("call-ended"))
    yesterday(path)
    deliver(file, sample_event("call-ended"))
    assert finished(path) == []
    assert len(ids(path)) == 2


def test_no_file_exceeds_its_maximum_size(path: Path) -> None:
    file = configured(File, path=path, megabytes=0.003, compress=False)
    events = [sample_event("call-ended") for _ in range(12)]
    for event in events:
        deliver(file, event)
    files = [*finished(path), path]
    assert len(files) > 3
    assert all(each.stat().st_size <= 3000 for each in files)
    assert ids(*files) == [event.id for event in events]


def test_every_csv_file_has_the_header(path: Path) -> None:
    file = configured(File, path=path, format="csv", megabytes=0.001, compress=False)
    for _ in range(6):
        deliver(file, sample_event("call-ended"))
    files = [*finished(path), path]
    assert len(files) > 1
    assert {each.read_text().splitlines()[0][:6] for each in files} == {"id,pbx"}
    assert sum(len(each.read_text().splitlines()) - 1 for each in files) == 6


def test_finished_files_are_compressed_and_the_oldest_deleted(path: Path) -> None:
    mine = path.parent / "calls-mine.jsonl"
    mine.write_text("not ours")
    file = configured(File, path=path, megabytes=0.001, keep=3)
    events = [sample_event("call-ended") for _ in range(6)]
    for event in events:
        deliver(file, event)
    files = [each for each in finished(path) if each != mine]
    assert [each.suffix for each in files] == [".gz"] * 3
    assert ids(*files, path) == [event.id for event in events[2:]]
    assert mine.read_text() == "not ours"


def test_files_of_the_same_time_are_all_kept(path: Path) -> None:
    file = configured(File, path=path, megabytes=0.001)
    events = [sample_event("call-ended") for _ in range(4)]
    for event in events:
        deliver(file, event)
        os.utime(path, (1_000_000_000, 1_000_000_000))
    assert len(finished(path)) == 3
    assert ids(*finished(path), path) == [event.id for event in events]


def test_an_interrupted_compression_is_done_later(path: Path) -> None:
    file = configured(File, path=path, megabytes=0.001)
    left = path.parent / "calls-20260101-000000-000000.jsonl"
    left.write_text('{"id":"1"}\n')
    (path.parent / f".{left.name}.gz.part").write_bytes(b"half")
    deliver(file, sample_event("call-ended"))
    deliver(file, sample_event("call-ended"))
    assert not left.exists()
    assert ids(path.parent / f"{left.name}.gz") == ["1"]
    assert list(path.parent.glob("*.part")) == []


def test_a_failed_compression_does_not_fail_the_delivery(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = configured(File, path=path, megabytes=0.001)
    (path.parent / "calls-20260101-000000-000000.jsonl").symlink_to("nowhere")
    deliver(file, sample_event("call-ended"))
    deliver(file, sample_event("call-ended"))
    assert "cannot compress or delete old files" in caplog.text
    assert len(ids(path)) == 1


def test_a_failed_compression_leaves_the_file(path: Path) -> None:
    file = configured(File, path=path, megabytes=0.001)
    left = path.parent / "calls-20260101-000000-000000.jsonl"
    left.write_text('{"id":"1"}\n')
    (path.parent / f"{left.name}.gz").mkdir()
    deliver(file, sample_event("call-ended"))
    deliver(file, sample_event("call-ended"))
    assert ids(left) == ["1"]
    assert list(path.parent.glob(".*.part")) == []


def test_a_delivered_event_is_synced(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[int, int]] = []

    def watched(handle: int) -> None:
        real(handle)
        synced.append((os.fstat(handle).st_ino, os.fstat(handle).st_size))

    real = os.fsync
    monkeypatch.setattr(os, "fsync", watched)
    file, event = configured(File, path=path), sample_event("call-ended")
    deliver(file, event)
    written = (path.stat().st_ino, path.stat().st_size)
    assert synced[0] == written
    assert synced[1][0] == path.parent.stat().st_ino  # a new name in the folder
    deliver(file, event, attempt=2)  # the first attempt may have ended before its sync
    assert synced[2:] == [written]


def test_a_full_disk_is_temporary(path: Path) -> None:
    path.symlink_to("/dev/full")
    with pytest.raises(TemporaryError, match="No space left on device"):
        deliver(configured(File, path=path), sample_event("call-ended"))


def _limited(path: Path, limit: int, event: CallEvent) -> str:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        deliver(configured(File, path=path), event)
    except TemporaryError as error:
        return str(error)
    return "delivered"


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_partly_written_line_is_removed(path: Path) -> None:
    """A limit on file sizes ends a write in the middle, like a full disk."""
    file = configured(File, path=path)
    first, second = sample_event("call-ended"), sample_event("call-ended")
    deliver(file, first)
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as process:
        limit = path.stat().st_size + 300
        assert "File too large" in process.submit(_limited, path, limit, second).result(60)
    assert ids(path) == [first.id]
    deliver(file, second, attempt=2)
    assert ids(path) == [first.id, second.id]


def test_a_missing_folder_is_temporary(path: Path) -> None:
    path.mkdir()
    file = configured(File, path=path / "calls")
    path.rename(path.with_name("gone"))
    with pytest.raises(TemporaryError, match="No such file or directory"):
        deliver(file, sample_event("call-ended"))


def _deliver_many(path: Path, number: int) -> None:
    file = configured(File, path=path, megabytes=0.02)
    for n in range(25):
        deliver(file, sample_event("call-ended", id=f"{number}-{n}-"))
        deliver(file, sample_event("call-ended", id=f"all-{n}-"))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_several_processes_write_one_file(path: Path) -> None:
    forked = multiprocessing.get_context("fork")  # as RQ's workers do
    together = forked.Barrier(4)
    with ProcessPoolExecutor(4, forked, initializer=together.wait) as processes:
        for done in [processes.submit(_deliver_many, path, number) for number in range(4)]:
            done.result(timeout=120)
    found = ids(*finished(path), path)
    assert len(finished(path)) > 3
    own = [id for id in found if not id.startswith("all")]  # noqa: A001
    assert sorted(own) == sorted(f"{number}-{n}-" for number in range(4) for n in range(25))
    for number in range(4):
        mine = [id for id in own if id.startswith(f"{number}-")]  # noqa: A001
        assert mine == [f"{number}-{n}-" for n in range(25)]


def test_several_threads_write_one_file(path: Path) -> None:
    file = configured(File, path=path)
    with ThreadPoolExecutor(8) as threads:
        for done in [
            threads.submit(deliver, file, sample_event("call-ended", id=f"<{n % 50}>"))
            for n in range(100)
        ]:
            done.result(timeout=60)
    assert sorted(ids(path)) == sorted(f"<{n}>" for n in range(50))


_WRITER = """
import json, sys
from offhook import CallEvent
from offhook.testing import configured, deliver
from workers.handlers.file import File

file = configured(File, path=sys.argv[1])
for line in sys.stdin:
    event = CallEvent.from_dict(json.loads(line))
    deliver(file, event)
    print(event.id, flush=True)
"""


def test_a_killed_worker_leaves_each_event_once(path: Path) -> None:
    events = [sample_event("call-ended") for _ in range(120)]
    left = list(events)
    for lines in (40, 999):
        with subprocess.Popen(
            [sys.executable, "-c", _WRITER, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin
            assert process.stdout
            process.stdin.write("".join(json.dumps(e.as_dict()) + "\n" for e in left))
            process.stdin.close()
            told = [line.strip() for line, _ in zip(process.stdout, range(lines), strict=False)]
            os.kill(process.pid, signal.SIGKILL)
        left = [event for event in left if event.id not in told]
    assert left == []
    assert ids(path) == [event.id for event in events]


def test_a_writer_waits_for_the_lock(path: Path) -> None:
    """A worker that dies releases the lock."""
    holding = subprocess.Popen(
        [
            sys.executable, "-c",
            "import fcntl, sys, time; lock = open(sys.argv[1], 'a'); fcntl.flock(lock, 2);"
            "print('held', flush=True); time.sleep(60)",
            path.with_name(f".{path.name}.lock"),
        ],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holding.stdout
    with holding.stdout:
        assert holding.stdout.readline() == b"held\n"
        with ThreadPoolExecutor(1) as threads:
            delivery = threads.submit(deliver, configured(File, path=path), sample_event())
            time.sleep(0.3)
            assert not delivery.done()
            holding.kill()
            holding.wait()
            delivery.result(timeout=10)
    assert len(ids(path)) == 1


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"path": "none/calls.jsonl"}, "path"),
        ({"path": "."}, "path"),
        ({"path": "/tmp"}, "path"),  # noqa: S108 - an existing folder
        ({"format": "xml"}, "format"),
        ({"daily": "maybe"}, "daily"),
        ({"megabytes": 0}, "megabytes"),
        ({"megabytes": 1001}, "megabytes"),
        ({"compress": "xz"}, "compress"),
        ({"keep": 0}, "keep"),
    ],
)
def test_an_error_names_a_wrong_option(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigError) as raised:
        configured(File, **{"path": "calls.jsonl"} | options)
    (problem,) = raised.value.problems
    assert problem.startswith(f"options.{name}: ")


def test_an_error_names_a_missing_folder() -> None:
    with pytest.raises(ConfigError, match=r"there is no folder .*/none: create it"):
        configured(File, path="none/calls.jsonl")


def test_its_default_events_are_one_per_call(path: Path) -> None:
    assert list(File.events) == ["call-ended", "call-corrected"]
    missed = sample_event("call-ended", summary=sample_call("missed"))
    deliver(configured(File, path=path), missed)
    assert json.loads(path.read_text())["summary"]["outcome"] == "missed"
