"""The fuzz targets: each takes any bytes, and raises if they break a promise."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz import answer, callback, receive, stored
from tests.fuzz.wire import MARKS

CORPUS = Path(__file__).parent / "corpus"


@dataclass(frozen=True)
class Target:
    """A function under test, with words that its inputs often contain."""

    name: str
    run: Callable[[bytes], None]
    words: tuple[bytes, ...]
    longest: int = 4096

    @property
    def corpus(self) -> Path:
        return CORPUS / self.name


TARGETS = {
    target.name: target
    for target in (
        Target("receive", receive.receive, (*receive.WORDS, *MARKS)),
        Target("answer", answer.answer, (*answer.WORDS, *MARKS)),
        Target("callback", callback.callback, callback.WORDS),
        Target("stored", stored.stored, stored.WORDS),
    )
}
