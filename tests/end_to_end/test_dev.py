"""`offhook dev`, as a developer of a handler runs it."""

import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import httpx

from tests import installation
from tests.conftest import SECRET
from tests.end_to_end.test_demo import mine
from tests.installation import OFFHOOK

# Everything in it that `dev` replaces would fail.
CONFIG = f"""
secret = "{SECRET}"
redis_url = "redis://:password@127.0.0.1:1/0"
public_url = "http://127.0.0.1:1"
durability = "replica"
[pbx.Office]
host = "https://127.0.0.1:1"
token_file = "no-such-file"
ca_file = "no-such-file"
[handlers.mine]
use = "my_handler:show"
pbx = ["Office"]
"""
HANDLER = """
def show(event):
    print("{word}", event.type, flush=True)
"""


# Each step starts processes, which takes long on a busy machine.
wait_until = partial(installation.wait_until, seconds=90)


def start(folder: Path, temporary: Path, *arguments: str) -> tuple["subprocess.Popen[bytes]", Path]:
    output = temporary.parent / f"{temporary.name}.log"
    environment = {n: v for n, v in os.environ.items() if not n.startswith("OFFHOOK_")}
    with output.open("wb") as log:
        running = subprocess.Popen(
            [OFFHOOK, "dev", *arguments],
            cwd=folder,
            env=environment | {"TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    return running, output


def stop(running: "subprocess.Popen[bytes]", output: Path, temporary: Path) -> None:
    """Press Ctrl-C, and check that nothing is left behind."""
    running.send_signal(signal.SIGINT)
    assert running.wait(90) == 0
    sys.stdout.write(output.read_text())
    assert "Stopped." in output.read_text()
    assert "Traceback" not in output.read_text()
    assert list(temporary.iterdir()) == []
    wait_until(lambda: mine(temporary) == {}, f"no process is left: {mine(temporary)}")


def test_one_command_delivers_events_to_my_handler(tmp_path: Path) -> None:
    folder, temporary = tmp_path / "project", tmp_path / "tmp"
    folder.mkdir()
    temporary.mkdir()
    (folder / "offhook.toml").write_text(CONFIG)
    plugin = folder / "my_handler.py"
    plugin.write_text(HANDLER.format(word="first"))
    running, output = start(folder, temporary, "--reload")
    try:
        wait_until(lambda: "work | first dial-in" in output.read_text(), "a delivery")
        text = output.read_text()
        assert re.search(r"● .* dial-in", text)
        shown = re.compile("✓ mine +dial-in")
        wait_until(lambda: bool(shown.search(output.read_text())), "the first delivery is shown")
        plugin.write_text(HANDLER.format(word="second").removesuffix(")\n"))
        broken = f"'my_handler:show' cannot be loaded: SyntaxError: '(' was never closed ({plugin}"
        wait_until(lambda: broken in output.read_text(), "the fault is shown")
        plugin.write_text(HANDLER.format(word="third"))
        wait_until(lambda: output.read_text().count("work | runs ") >= 2, "the workers restart")
        pbx = re.findall(r"--url (\S+)", text)[0]
        httpx.post(f"{pbx}/sandbox/calls", json={"scenario": "missed"}).raise_for_status()
        wait_until(lambda: "work | third dial-in" in output.read_text(), "the new code runs")
    finally:
        stop(running, output, temporary)


def test_without_a_configuration_events_go_to_a_file(tmp_path: Path) -> None:
    folder, temporary = tmp_path / "project", tmp_path / "tmp"
    folder.mkdir()
    temporary.mkdir()
    running, output = start(folder, temporary)
    try:
        wait_until(lambda: "✓ log" in output.read_text(), "a delivery")
        (events,) = temporary.glob("*/events.jsonl")
        assert '"dial-in"' in events.read_text()
    finally:
        stop(running, output, temporary)
    assert list(folder.iterdir()) == []
