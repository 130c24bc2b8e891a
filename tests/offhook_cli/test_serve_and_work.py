"""`offhook serve` and `offhook work`, run as processes."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis
from redis.asyncio import Redis as AsyncRedis

from offhook.callback_url import callback_url
from offhook.inbox import Inbox, keys
from tests.conftest import SECRET, Configure
from tests.events import event
from tests.installation import OFFHOOK, wait_until
from tests.offhook_cli.conftest import Offhook, append
from tests.ports import free_port
from tests.processes import children, processes, session_of, title

TWO = '[handlers.crm]\nuse = "console"\n[handlers.chat]\nuse = "console"\n'


@contextmanager
def running(log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command in the background, with its output in a file.

    At the end none of its processes is left: they use the Redis server of the next test, too.
    """
    with log.open("wb") as file:
        process = subprocess.Popen(
            [OFFHOOK, *arguments],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        # `--reload` starts the workers in a session of their own.
        sessions = {process.pid, *children(process.pid)}
        process.kill()
        process.wait()
        while family := [pid for pid in processes() if session_of(pid) in sessions]:
            for pid in family:
                with suppress(ProcessLookupError):  # it has just ended
                    os.kill(pid, signal.SIGKILL)


def call(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


def test_workers_do_not_start_with_a_faulty_lookup(configure: Configure, offhook: Offhook) -> None:
    configure(TWO + '[lookups.staff]\nuse = "phonebook"\n[lookups.crm]\nuse = "hubspot"\n')
    result = offhook("work")
    assert result.exit_code == 2
    first, second = result.stderr.splitlines()
    assert first.startswith("lookups.staff.use: no lookup is called 'phonebook': installed are ")
    assert second.startswith("lookups.crm.options.token: ")


@pytest.mark.parametrize("processes", ["1", "2"])
def test_receiver_accepts_callbacks_and_logs_no_secret(
    processes: str, configure: Configure, tmp_path: Path
) -> None:
    configure()
    port, log = free_port(), tmp_path / "log"
    arguments = ("serve", "--port", str(port), "--processes", processes)
    base = f"http://127.0.0.1:{port}"
    good = callback_url(base, SECRET, "main", "0003*210", "hangup")
    with running(log, *arguments) as process:
        wait_until(lambda: call(f"{base}/health/ready") == 200, "the receiver is ready")
        assert call(f"{good}?CallID=1") == 200
        assert call(good) == 400
        assert call(f"{good}x") == 404
        process.send_signal(signal.SIGINT)
        process.wait(20)
    output = log.read_text()
    assert f"The receiver listens on {base}.\n" in output
    assert "a callback was refused: missing_call_id" in output
    assert good.rpartition("/")[2] not in output
    assert "Traceback" not in output
    assert process.returncode == 0


@pytest.mark.parametrize("processes", ["1", "3"])
def test_unusable_journal_folder_is_one_sentence(
    processes: str, configure: Configure, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    configure(journal=str(tmp_path / "file" / "journal"))
    log = tmp_path / "log"
    arguments = ("serve", "--port", str(free_port()), "--processes", processes)
    with running(log, *arguments) as process:
        assert process.wait(20) == 2
    output = log.read_text()
    assert output.count("name a folder where events can be kept while Redis is down") == 1
    assert "listens" not in output
    assert "Traceback" not in output


def test_port_in_use_is_one_sentence(configure: Configure, tmp_path: Path) -> None:
    configure()
    port = str(free_port())
    with running(tmp_path / "first", "serve", "--port", port):
        wait_until(
            lambda: call(f"http://127.0.0.1:{port}/health/live") == 200, "the receiver answers"
        )
        second = subprocess.run(
            [OFFHOOK, "serve", "--port", port], capture_output=True, text=True, check=False
        )
    assert second.returncode == 2
    assert second.stderr == (
        f"cannot listen on 127.0.0.1, port {port}: Address already in use; "
        "choose with --host and --port\n"
    )


def first_line(log: Path, *arguments: str) -> str:
    """Run `offhook work` until it has named its queues, and return the first line it printed."""
    with running(log, "work", *arguments) as process:
        wait_until(lambda: bool(re.search(rb"runs .*\n", log.read_bytes())), "it names its queues")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    return log.read_text().splitlines()[0]


def test_work_serves_every_queue(configure: Configure, tmp_path: Path) -> None:
    configure(TWO + 'process = "own"\n', processes=2)
    assert first_line(tmp_path / "log") == (
        "runs 5 workers: offhook.serve.0, offhook.serve.1, offhook.serve.chat, "
        "offhook.scheduled, scheduler"
    )


def test_work_that_is_stopped_as_soon_as_it_names_its_queues_ends_gracefully(
    configure: Configure,
) -> None:
    configure(TWO)
    script = (
        "import os, signal, sys\n"
        "from offhook_cli import main, work\n"
        "work.note = lambda _: os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.argv = ['offhook', 'work']\n"
        "main()\n"
    )
    stopped = subprocess.run([sys.executable, "-c", script], timeout=60, check=False)
    assert stopped.returncode == 0


def titles(pid: int) -> set[str]:
    """What `ps` shows of a process and those below it."""
    mine = re.sub(r"(version) [0-9a-f]{8}$", r"\1", title(pid))
    return {mine}.union(*map(titles, children(pid)))


def test_ps_shows_which_process_is_which(
    configure: Configure, tmp_path: Path, redis_url: str
) -> None:
    configure(TWO + 'process = "own"\n', processes=1)
    expected = {
        "offhook work",
        "offhook work: version",
        "offhook work: offhook.serve",
        "offhook work: offhook.serve: deliveries",
        "offhook work: offhook.serve.chat",
        "offhook work: offhook.serve.chat: deliveries",
        "offhook work: offhook.scheduled",
        "offhook work: scheduler",
    }
    with running(tmp_path / "log", "work") as process, redis.Redis.from_url(redis_url) as client:
        wait_until(lambda: bool(client.exists(keys.serving(0, "chat"))), "both pools are served")
        wait_until(lambda: bool(client.exists(keys.serving(0))), "both pools are served")
        wait_until(lambda: titles(process.pid) == expected, "each process has its title")
    arguments = ("serve", "--port", str(free_port()), "--processes", "2")
    with running(tmp_path / "log", *arguments) as process:
        wait_until(
            lambda: "offhook serve: callbacks" in titles(process.pid), "the receivers have titles"
        )
        process.send_signal(signal.SIGTERM)  # its receivers would outlive it
        assert process.wait(60) == 0


def test_handler_with_an_unknown_pbx_is_reported(configure: Configure, tmp_path: Path) -> None:
    configure('[handlers.crm]\nuse = "console"\npbx = ["mian"]\n[pbx.main]\ndialect = "telphin"\n')
    assert first_line(tmp_path / "log") == ("! handlers.crm.pbx names mian; configured: main")


def test_without_handlers_the_fix_is_named(configure: Configure, offhook: Offhook) -> None:
    path = configure()
    result = offhook("work")
    assert result.exit_code == 2
    assert f"add a [handlers.NAME] table to {path}" in result.stderr


def test_workers_do_not_start_with_a_faulty_handler(configure: Configure, tmp_path: Path) -> None:
    configure('[handlers.crm]\nuse = "webhook"\noptions.urll = "https://crm.example.com"\n')
    answer = subprocess.run([OFFHOOK, "work"], capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert re.search(
        r"^handlers\.crm\.options\.urll: there is no such option; did you mean 'url'\?$",
        answer.stderr,
        re.M,
    )


def test_a_process_that_starts_anew_runs_what_the_others_run(
    configure: Configure, tmp_path: Path, redis_url: str
) -> None:
    plugin = tmp_path / "one_version.py"
    plugin.write_text("def show(event): print('old', event.call_id, flush=True)\n")
    broken = tmp_path / "broken_version.py"
    broken.write_text("def show(event:\n")
    table = "[handlers.{name}]\nuse = '{name}:show'\n"
    two = table.format(name="one_version") + table.format(name="broken_version")
    configure(two, processes=1)
    log = tmp_path / "log"
    with running(log, "work"), redis.Redis.from_url(redis_url) as client:
        wait_until(lambda: bool(client.exists(keys.serving(0))), "the partition is served")
        before = client.get(keys.serving(0))
        configure(two.replace("one_version:show", "no_such"), processes=1)
        plugin.write_text("def show(event): print('new', event.call_id, flush=True)\n")
        broken.write_text(plugin.read_text())
        os.kill(int(before.split(b"/")[1]), signal.SIGKILL)
        wait_until(
            lambda: client.get(keys.serving(0)) not in (None, before), "another process serves it"
        )
        asyncio.run(append_one(redis_url))
        wait_until(lambda: "old one" in log.read_text(), "the handler gets it", seconds=60)
    assert "new one" not in log.read_text()
    assert "no_such" not in log.read_text()


async def append_one(redis_url: str) -> None:
    async with AsyncRedis.from_url(redis_url) as client:
        await append(Inbox(client, partitions=1), event("one"))


def test_workers_start_anew_when_a_file_changes(
    configure: Configure, tmp_path: Path, redis_url: str
) -> None:
    plugin = tmp_path / "reloaded.py"
    plugin.write_text("print('first', flush=True)\ndef show(event): ...\n")
    configure('[handlers.mine]\nuse = "reloaded:show"\n')
    log = tmp_path / "log"

    def wait_for(text: str) -> None:
        wait_until(lambda: text in log.read_text(), text, seconds=60)

    with running(log, "work", "--reload") as process, redis.Redis.from_url(redis_url) as client:
        wait_for("first\nruns ")
        configure('[handlers.mine]\nuse = "no_such"\n')
        wait_for("Changed: offhook.toml: starting the workers anew\n")
        wait_for("handlers.mine.use: no handler is called 'no_such'")
        plugin.write_text("print('second', flush=True)\ndef show(event): ...\n")
        wait_for("reloaded.py: starting the workers anew\n")
        before = len(log.read_text())
        configure('[handlers.mine]\nuse = "reloaded:show"\n')
        # Those that start meanwhile may have read it; they are stopped all the same.
        pattern = re.compile(r"Changed: offhook\.toml.*second\nruns ", re.DOTALL)
        wait_until(lambda: bool(pattern.search(log.read_text(), before)), "they run it", 60)
        wait_until(lambda: bool(client.exists(keys.serving(0))), "the partition is served")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert not client.exists(keys.serving(0))
    assert "Traceback" not in log.read_text()


def test_workers_end_with_the_process_that_starts_them_anew(
    configure: Configure, tmp_path: Path, redis_url: str
) -> None:
    configure(TWO)
    log = tmp_path / "log"
    with running(log, "work", "--reload") as process, redis.Redis.from_url(redis_url) as client:
        wait_until(lambda: bool(client.exists(keys.serving(0))), "the partition is served")
        [work] = children(process.pid)  # the first one of its session
        process.kill()
        wait_until(lambda: not client.exists(keys.serving(0)), "no process serves it")
        wait_until(lambda: work not in map(session_of, processes()), "all have ended")


def test_handler_in_the_working_directory_is_found(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def handle(event): ...\n")
    configure('[handlers.mine]\nuse = "mine:handle"\n')
    answer = subprocess.run(
        [sys.executable, "-m", "offhook_cli", "handlers"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert answer.returncode == 0, answer.stderr
