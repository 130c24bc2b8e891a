"""Faults: what goes wrong with a command, decided by the seed or by a plan."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from redis.exceptions import OutOfMemoryError

from tests.simulation.loop import Process

CRASHES = ("crash before", "crash after")
KINDS = (*CRASHES, "lost", "unanswered", "half", "late")


@dataclass(frozen=True)
class Fault:
    """What happens to one command.

    Attributes:
        kind: one of `KINDS`, or nothing. *lost*: it is not executed; *unanswered*: it is, and the
            answer is lost; *half*: of a pipeline; *late*: it is executed after its client gave up.
        delay: seconds until it is executed.
        back: seconds from then until the answer arrives.
    """

    kind: str
    delay: float
    back: float


@dataclass
class Faults:
    """Decides about commands, and counts.

    Args:
        disturbed: called with each fault.

    Attributes:
        rate: probability of a fault at a command.
        chosen: number of a command, counted over all -> kind of its fault.
        down: the server does not answer.
        full: it refuses writes outside of scripts.
        distance: seconds that each way takes more.
    """

    random: Random
    kill: Callable[[Process], None]
    disturbed: Callable[[], None]
    trace: Callable[[str], None] | None
    rate: float = 0.0
    chosen: dict[int, str] = field(default_factory=dict)
    down: bool = False
    full: bool = False
    distance: float = 0.0
    commands: int = 0
    counts: dict[str, int] = field(default_factory=dict)

    def command(self, process: Process, commands: Sequence[Any]) -> Fault:
        """Decide what happens to these commands, sent together."""
        random = self.random
        self.commands += 1
        kind = self.chosen.get(self.commands, "")
        if not kind and self.rate and random.random() < self.rate:
            kind = random.choice(KINDS)
        delay = random.uniform(0.0001, 0.002)
        back = random.uniform(0.0001, 0.002 if random.random() < 0.9 else 0.03)
        if kind == "late":
            delay = random.choice((0.01, 0.3, 3.0))
            back = delay / 2
        elif self.rate and random.random() < 0.01:
            delay = random.uniform(0.01, 1.0)
            self.disturbed()
        if kind:
            self.count(kind)
        if self.trace is not None:
            self.trace(
                f"{process} #{self.commands} {_short(commands)}{' !! ' + kind if kind else ''}"
            )
        return Fault(kind, delay + self.distance, back + self.distance)

    def work(self) -> str:
        """Decide what happens to something else that a process does: a fault's kind, or nothing."""
        self.commands += 1
        kind = self.chosen.get(self.commands, "")
        if not kind and self.rate and self.random.random() < self.rate:
            kind = self.random.choice(("crash before", "crash after", "lost", "unanswered"))
        if kind:
            self.count(kind)
        return kind

    def refusal(self, command: Sequence[Any]) -> Exception | None:
        """What a server without memory answers to a write."""
        if self.full and command[0] in _WRITES:
            return OutOfMemoryError("OOM command not allowed when used memory > 'maxmemory'.")
        return None

    def count(self, kind: str) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if kind not in HARMLESS:
            self.disturbed()


HARMLESS = {"failures", "slow", "flood"}  # to all but one handler or tenant
_WRITES = {"ZADD", "HSET", "SADD", "SET", "XADD", "HINCRBY", "RPUSH", "ZINCRBY"}


def _short(commands: Sequence[Any]) -> str:
    return " | ".join(_one(command) for command in commands[:6])


def _one(command: Sequence[Any]) -> str:
    words = [
        each.decode(errors="replace") if isinstance(each, bytes) else str(each) for each in command
    ]
    if words[0] == "EVALSHA":
        at = 3 + int(words[2])
        words = [SCRIPTS.get(words[1], words[1]), words[3], *words[at:]]
    elif words[:2] == ["SCRIPT", "LOAD"]:
        words = words[:2]
    return " ".join(words)[:700]


SCRIPTS: dict[str, str] = {}  # names by SHA
