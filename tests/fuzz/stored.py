"""The stored forms: what is read back is what was written, and damage is one documented error.

The first byte of an input names the form: `e`, an event; `s`, a call's state; `j`, a journal. In a
journal, `{crc}` at the start of a line stands for the checksum of the rest.
"""

import re
import tempfile
import zlib
from functools import cache
from pathlib import Path

from offhook.calls import from_state, to_state
from offhook.event import CallEvent, from_stored, to_stored
from offhook.inbox import Batch
from receiver.journal import Journal, _line, _parse
from tests.fuzz.wire import loop

_UNSUMMED = re.compile(rb"^\{crc\} (.*)$", re.MULTILINE)

WORDS = (
    *(b'e{"v":1,', b'"id":"', b'"pbx":"main"', b'"extension":"0003*210"', b'"type":"dial-in"'),
    *(b'"call_id":"', b'"direction":null', b'"caller":{', b'"called":{}', b'"status":"ANSWER"'),
    *(b'"received":"2026-01-01T00:00:00Z"', b'"parameters":{}', b'"occurred":', b'"summary":{'),
    *(b's["main","1",[', b'["0003*210","in",null,null,[null,null,null,null,null]', b"{crc} "),
    *(b'j{crc} {"writer":"w","number":1,"partition":0,"marks":[],"events":[]}\n', b"\n"),
    *(b"9999-12-31T23:59:59Z", b"\\u0000", b"\\ud800", b"true", b"null", b"-1", b"1e400"),
    *(b"9223372036854775808", b"0.5", b"[", b"{", b"]", b"}"),
)


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


def stored(data: bytes) -> None:
    """Read the input as a stored form, and write what was read."""
    form, data = data[:1], data[1:]
    if form == b"j":
        _check_journal(_UNSUMMED.sub(_summed, data))
        return
    try:
        if form == b"s":
            state = from_state(data)
            assert from_state(to_state(state)) == state
        else:
            event = from_stored(data)
            assert from_stored(to_stored(event)) == event
            assert CallEvent.from_dict(event.as_dict()) == event
    except (ValueError, RecursionError):  # DecodeError, UnicodeDecodeError
        return


def _summed(line: re.Match[bytes]) -> bytes:
    return b"%08x %s" % (zlib.crc32(line[1]), line[1])


def _check_journal(data: bytes) -> None:
    """A journal with this content is emptied: its batches are sent, its other lines kept."""
    path = Path(_folder().name, "1.journal")
    path.write_bytes(data)
    *lines, _ = data.split(b"\n")
    expected = [batch for batch in map(_parse, lines) if batch is not None]
    assert [_parse(_line(batch)) for batch in expected] == expected
    assert all(_is_sound(line) for line in lines if _parse(line) is not None)
    assert loop().run(_drained(path)) == expected
    assert not path.exists()
    damaged = path.with_suffix(".damaged")
    kept = damaged.read_bytes() if damaged.exists() else b""
    damaged.unlink(missing_ok=True)
    assert kept == b"".join(line + b"\n" for line in lines if _parse(line) is None)


def _is_sound(line: bytes) -> bool:
    return line.startswith(b"%08x " % zlib.crc32(line[9:]))


async def _drained(path: Path) -> list[Batch]:
    sent: list[Batch] = []

    async def send(batch: Batch) -> None:
        sent.append(batch)

    journal = Journal(path, limit=1 << 20)
    while not await journal.drain(send):
        pass
    journal.close()
    return sent
