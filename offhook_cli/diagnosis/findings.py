"""What the checks found, in groups."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

Seen = TypeVar("Seen")


class Verdict(StrEnum):
    """What a check says."""

    PASS = "pass"  # noqa: S105 - no password
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis.

    Attributes:
        sentence: what was seen, and what to do about it unless it is as it should be.
        check: the name of the check that says so, for programs.
    """

    verdict: Verdict
    sentence: str
    check: str = ""


@dataclass(frozen=True)
class Findings:
    """The findings about one part of the installation."""

    part: str
    findings: list[Finding]


@dataclass(frozen=True)
class Diagnosis:
    """The findings about the whole installation."""

    parts: list[Findings]

    @property
    def healthy(self) -> bool:
        """Whether nothing failed."""
        return not self.count(Verdict.FAIL)

    def count(self, verdict: Verdict) -> int:
        """Number of findings with this verdict."""
        return sum(each.verdict is verdict for part in self.parts for each in part.findings)

    def with_sentences(self, change: Callable[[str], str]) -> "Diagnosis":
        """The diagnosis with every text changed."""
        return Diagnosis(
            [
                Findings(
                    change(part.part),
                    [replace(each, sentence=change(each.sentence)) for each in part.findings],
                )
                for part in self.parts
            ]
        )

    def as_dict(self) -> dict[str, Any]:
        """The diagnosis as JSON values."""
        counts = {each.value: self.count(each) for each in Verdict}
        return {"healthy": self.healthy, "counts": counts} | asdict(self)


def passed(sentence: str) -> Finding:
    """It is as it should be."""
    return Finding(Verdict.PASS, sentence)


def warned(sentence: str) -> Finding:
    """It works, and should be looked at."""
    return Finding(Verdict.WARN, sentence)


def failed(sentence: str) -> Finding:
    """It does not work, or loses events."""
    return Finding(Verdict.FAIL, sentence)


def judged(
    part: str, seen: Seen, checks: Iterable[Callable[[Seen], Iterable[Finding]]]
) -> Findings:
    """Make all checks of one part; a check has the name of its function."""

    def findings() -> Iterator[Finding]:
        for check in checks:
            name = check.__name__.replace("_", "-")
            try:
                yield from [replace(each, check=name) for each in check(seen)]
            except Exception as error:  # noqa: BLE001 - reported; the other checks must go on
                said = f"{type(error).__name__}: {error}"
                yield Finding(Verdict.FAIL, f"unexpected error ({said}): please report it", name)

    return Findings(part, [*findings()])


def megabytes(size: float) -> str:
    """Format a number of bytes."""
    if size >= 1e9:
        return f"{size / 1e9:.1f} GB"
    return f"{size / 1e6:.1f} MB" if size < 1e7 else f"{size / 1e6:.0f} MB"
