"""Random inputs without a fuzzer: quick, and the same for the same seed."""

from collections.abc import Iterator, Sequence
from random import Random

from tests.fuzz.targets import Target


def inputs(target: Target, count: int, seed: int) -> Iterator[bytes]:
    """Yield changed copies of the target's corpus, without repeats, which are slow."""
    random = Random(seed)
    corpus = [path.read_bytes() for path in sorted(target.corpus.iterdir())]
    for _ in range(count):
        data = random.choice(corpus)
        for _ in range(random.randint(1, 5)):
            data = _changed(data, corpus, target.words, random)
        yield data.replace(b"<repeat>", b"")[: target.longest]


def _changed(data: bytes, corpus: Sequence[bytes], words: Sequence[bytes], random: Random) -> bytes:
    start, end = sorted(random.randint(0, len(data)) for _ in range(2))
    other = random.choice(corpus)
    place = random.randint(0, len(other))
    return random.choice(
        (
            data[:start] + data[end:],
            data[:start] + random.choice(words) + data[start:],
            data[:start] + random.choice(words) + data[end:],
            data[:start] + random.randbytes(1) + data[start + 1 :],
            data[:end] + data[start:],
            data[:start] + other[place:],
        )
    )
