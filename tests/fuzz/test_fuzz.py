"""Each fuzz target over its corpus and some random inputs. `make fuzz` goes on from here."""

import asyncio

import pytest

from receiver import callback
from tests.fuzz.mutate import inputs
from tests.fuzz.receive import receive, responses
from tests.fuzz.targets import TARGETS, Target
from tests.fuzz.wire import Loop, Transport, play

each_target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


@each_target
def test_corpus_keeps_the_promises(target: Target) -> None:
    files = sorted(target.corpus.iterdir())
    assert len(files) > 5
    for file in files:
        run(target, file.read_bytes(), str(file))


@each_target
def test_random_inputs_keep_the_promises(target: Target) -> None:
    for data in inputs(target, count=300, seed=1):
        run(target, data, "a random input")


def run(target: Target, data: bytes, name: str) -> None:
    try:
        target.run(data)
    except Exception as error:
        error.add_note(f"{name}: {data!r}")
        raise


def test_an_input_reaches_the_inbox_only_with_a_token() -> None:
    request = b"GET %s?CallID=1 HTTP/1.1\r\n\r\n"
    assert responses(request % b"{dial-in}") == {200: 1}
    assert responses(request % b"{old}") == {200: 1}
    assert responses(request % b"{unknown}") == {400: 1}
    assert responses(request % b"/callback/main/0003*210/hangup/{token}") == {404: 1}


def test_an_event_without_a_token_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callback, "is_valid", lambda *_: True)
    with pytest.raises(AssertionError, match="without its token"):
        receive(b"GET /callback/main/0003*210/hangup/guessed?CallID=1 HTTP/1.1\r\n\r\n")


class Hoarding(asyncio.Protocol):
    def __init__(self) -> None:
        self.received: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        self.received.append(data.upper())


def test_memory_that_grows_with_the_input_is_noticed() -> None:
    loop, protocol = Loop(), Hoarding()
    with pytest.raises(AssertionError, match="more in memory"):
        loop.run(play(loop, protocol, Transport(loop, protocol), b"x<repeat>"))
    loop.close()
