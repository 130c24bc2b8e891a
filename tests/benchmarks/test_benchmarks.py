"""Run every benchmark once, small and without the other engines, to see that it works."""

import re
import subprocess
import sys

import pytest

from tests.installation import ROOT

FOLDER = ROOT / "benchmarks"
# The options, and a pattern in the output that only a measurement can produce.
COMMANDS = {
    "receive": (["--quick", "--only", "^Offhook$", "form"], r"\| Offhook +\| +[1-9]"),
    "deliver": (
        ["--quick", "--only", "^Offhook$", "folding.*100", "bare"],
        r"\| a bare aiohttp loop +\| +[1-9]",
    ),
    "latency": (
        ["--quick", "--only", "^Offhook$"],
        r"\| Offhook +\| +\d+\.\d+ \| +\d+\.\d+ \| +\d+",
    ),
    "reload": (["--quick", "--only", "reload"], r"\| offhook reload .* 0\.0 \|  0\.0 \|"),
    "recovery": (["--quick", "--only", "^Offhook$", "horse"], r"\| Offhook .* 0 \|"),
    "order": (["--quick", "--only", "Offhook"], r"\| Offhook +\| +0 % \|"),
    "commands": (["--quick", "--only", "backlog", "200/s"], r"\| Offhook delivers.*\| +\d"),
    "memory": (["--quick"], r"\| the server, per call, 3 handlers \(events \d.* bytes \|"),
    "extensions": (
        ["--quick", "--only", "changed", "json"],
        r"\| setup show --json +\| +\d+\.\d \|",
    ),
    "record": (["--quick", "--only", "not folded", "reading"], r"\| one call +\| +\d+\.\d \|"),
    "growth": (["--quick", "--only", "handlers", "extensions"], r"\| extensions +\| +[1-9]"),
    "engine": (
        ["--quick", "--only", "rest", "alone", "beside", "letters", "redeliveries", "lone"],
        r"\| redeliveries a second +\| +[1-9]",
    ),
    "calls": (["--quick", "--only", "both"], r"\| +five \| +[1-9][\d,]* \|"),
    "tenants": (
        ["--quick", "--only", "20 tenants", "beside"],
        r"\| beside a flood .* 0\.0 \| +0\.0 \| +[1-9]",
    ),
    "search": (["--quick"], r"\| number, national +\| +1 \| +\d"),
    "console": (["--quick", "--only", "phones"], r"\| phones +\| +\d+\.\d \|"),
    "durability": (
        ["--quick", "--only", "server, .*everysec", "replica, .*always"],
        r"\| replica, appendfsync always +\| +\d",
    ),
    "cluster": (["--quick", "--only", "cluster of 1"], r"\| cluster of 1 +\| +[1-9]"),
    "sizing": (["--extensions", "1000"], r"record of deliveries +0\.1 GB"),
    "setup": (["--extensions", "5"], r"speedup: \d"),
}
LEFT_OUT = {"instructions"}  # needs valgrind


@pytest.mark.parametrize("name", COMMANDS)
def test_benchmark_runs(name: str) -> None:
    arguments, expected = COMMANDS[name]
    ran = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-5000:]
    assert re.search(expected, ran.stdout), ran.stdout


def test_every_benchmark_is_listed() -> None:
    programs = {path.stem for path in FOLDER.glob("*.py") if "def main() ->" in path.read_text()}
    assert programs == COMMANDS.keys() | LEFT_OUT
