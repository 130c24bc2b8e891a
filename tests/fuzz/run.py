"""`make fuzz`: fuzz each target for a while, guided by coverage (atheris, libFuzzer).

What a run learns stays in `.fuzz/` and the next run goes on from it. An input that breaks a promise
is written into `tests/fuzz/corpus/`, so `make test` fails until the defect is fixed.
"""

import argparse
import gc
import importlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LEARNED = ROOT / ".fuzz"
SHARES = {"receive": 4, "answer": 3, "callback": 2, "stored": 1}  # of the time, for each target
_INSTRUMENTED = [
    *("offhook", "receiver", "unifiedapi", "tests.fuzz"),
    *("uvicorn.protocols", "python_multipart", "urllib.parse", "email"),
]
_TOLD_EVERY = 10.0  # seconds between two lines of progress
_LONGEST = 120  # seconds for one input, on a busy machine
_MEMORY = 1000  # MB of a process
_COVERAGE = re.compile(r"cov: (\d+).*rss: (\d+)Mb")


@dataclass
class Outcome:
    """What came of a target: its inputs, the corpus files it added, and its failure if any."""

    name: str
    seconds: float
    inputs: int = 0
    coverage: int = 0
    memory: int = 0
    learned: int = 0
    failure: str = ""

    def line(self) -> str:
        rate = self.inputs / max(self.seconds, 0.001)
        return (
            f"{self.name:<9}{self.inputs:>11} inputs {rate:>7.0f}/s  coverage {self.coverage:>5}  "
            f"{self.memory:>4} MB  {self.learned:>4} new corpus files"
        )


def main() -> int:
    """Fuzz the targets in turn. Returns 1 if one failed."""
    parser = argparse.ArgumentParser(description="Fuzz Offhook's inputs.")
    parser.add_argument("--minutes", type=float, default=10, help="in all (default 10)")
    parser.add_argument("--target", choices=SHARES, action="append", help="default: each in turn")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--repeat", nargs="+", type=Path, help="only run these files of a target")
    options = parser.parse_args()
    names: Sequence[str] = options.target or tuple(SHARES)
    if options.repeat:
        return _repeat(names[0], options.repeat)
    seconds = options.minutes * 60
    if options.child:
        _fuzz(options.child, seconds)
        return 0
    share = seconds / sum(SHARES[name] for name in names)
    outcomes = [_watch(name, share * SHARES[name]) for name in names]
    print("\nSummary")
    for outcome in outcomes:
        print(f"  {outcome.line()}")
    total = sum(outcome.inputs for outcome in outcomes)
    failures = [outcome for outcome in outcomes if outcome.failure]
    print(f"  {total} inputs, {len(failures)} failures")
    for outcome in failures:
        print(outcome.failure)
    return 1 if failures else 0


def _watch(name: str, seconds: float) -> Outcome:
    """Fuzz a target in a process of its own, and show its progress."""
    print(f"{name}: {seconds:.0f} s", flush=True)
    folder = LEARNED / name
    folder.mkdir(parents=True, exist_ok=True)
    before = len(list(folder.iterdir()))
    outcome = Outcome(name, seconds)
    began = told = time.monotonic()
    log = LEARNED / f"{name}.log"
    command = [sys.executable, "-m", "tests.fuzz.run", "--child", name]
    with (
        log.open("w") as kept,
        subprocess.Popen(
            [*command, "--minutes", str(seconds / 60)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.match(r"inputs (\d+)", line):
                outcome.inputs = int(found[1])
            else:
                kept.write(line)
            if found := _COVERAGE.search(line):
                outcome.coverage, outcome.memory = int(found[1]), int(found[2])
            outcome.seconds = time.monotonic() - began
            if time.monotonic() - told >= _TOLD_EVERY:
                told = time.monotonic()
                outcome.learned = len(list(folder.iterdir())) - before
                print(f"  {outcome.seconds:>5.0f} s  {outcome.line()}", flush=True)
    outcome.learned = len(list(folder.iterdir())) - before
    if process.returncode:
        outcome.failure = _failure(name, log)
    print(f"  {outcome.seconds:>5.0f} s  {outcome.line()}", flush=True)
    return outcome


def _failure(name: str, log: Path) -> str:
    text = log.read_text()
    trace = re.search(r"=== Uncaught Python exception: ===\n(.*?)\n\n==", text, re.DOTALL)
    written = re.search(r"Test unit written to (\S+)", text)
    if written is None:
        return f"\n{name} ended with an error:\n{text[-3000:]}"
    file = Path(written[1]).relative_to(ROOT)
    return (
        f"\n{name} failed on {file}:\n{trace[1] if trace else text[-3000:]}\n"
        f"Repeat it: .venv/bin/python -m tests.fuzz.run --target {name} --repeat {file}"
    )


def _repeat(name: str, files: Sequence[Path]) -> int:
    from tests.fuzz.targets import TARGETS

    for file in files:
        TARGETS[name].run(file.read_bytes())
        print(f"{file}: keeps the promises")
    return 0


def _fuzz(name: str, seconds: float) -> None:
    """Fuzz a target in this process, and never return. Prints the number of inputs."""
    atheris: Any = importlib.import_module("atheris")  # only `make fuzz` installs it
    with atheris.instrument_imports(include=_INSTRUMENTED):
        from tests.fuzz import wire
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    wire.seldom = True
    target.run(b"")
    gc.collect()
    gc.freeze()  # measuring memory collects garbage, and need not look at all this each time
    words = LEARNED / f"{name}.words"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
    count, next_told = 0, 0.0

    def run(data: bytes) -> None:
        nonlocal count, next_told
        count += 1
        if time.monotonic() > next_told:
            next_told = time.monotonic() + 1
            try:
                print(f"inputs {count}", flush=True)
            except BrokenPipeError:  # the parent process was killed
                os._exit(1)
        target.run(data)

    atheris.Setup(
        [
            sys.argv[0],
            str(LEARNED / name),  # libFuzzer adds to the first folder
            str(target.corpus),
            f"-max_total_time={seconds:.0f}",
            f"-max_len={target.longest}",
            f"-timeout={_LONGEST}",
            f"-report_slow_units={_LONGEST}",
            f"-rss_limit_mb={_MEMORY}",
            f"-dict={words}",
            f"-artifact_prefix={target.corpus}/",
            "-print_final_stats=1",
        ],
        run,
    )
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\x{byte:02x}" for byte in word
    )


if __name__ == "__main__":
    sys.exit(main())
