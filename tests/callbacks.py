"""Callbacks as a PBX sends them, from `payloads/FOLDER/NAME.http`: the bytes of an HTTP request.

A folder has the callbacks of one call, numbered in order; each file in `odd/` has one peculiarity.
The path names PBX, extension and event type like every callback URL, with TOKEN for the token.

`odd/recorded-*` are two callbacks that a user of a VoipNow PBX recorded in 2015: names, order, case
and empty values are as recorded; numbers and API ids are made up, and the requests around them are
not known. We know of no other public recording, so the other files follow the PBX's documentation.
Those in `telphin-*/` have the format of callbacks that users of Telphin recorded.
"""

from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).parent / "payloads"


@dataclass(frozen=True)
class Payload:
    """A callback, split but not decoded. Header names are in lower case."""

    name: str
    method: str
    path: str
    query: bytes
    headers: dict[str, str]
    body: bytes

    @property
    def names(self) -> tuple[str, str, str]:
        """Return the PBX, the extension and the event type that the path names."""
        pbx, extension, event_type = self.path.split("/")[2:5]
        return pbx, extension, event_type

    @property
    def parameters(self) -> bytes:
        """Return the encoded parameters: the query of a GET, the body of a POST."""
        return self.query if self.method == "GET" else self.body


def load(name: str) -> Payload:
    """Load a callback by its name, such as `missed/2-hangup-211`."""
    head, _, body = (_FOLDER / f"{name}.http").read_bytes().partition(b"\r\n\r\n")
    request, *lines = head.split(b"\r\n")
    method, target, _ = request.split(b" ")
    path, _, query = target.partition(b"?")
    headers = dict(line.decode("ascii").split(": ", 1) for line in lines)
    return Payload(
        name=name,
        method=method.decode("ascii"),
        path=path.decode("ascii"),
        query=query,
        headers={key.lower(): value for key, value in headers.items()},
        body=body,
    )


def names(folder: str = "*") -> list[str]:
    """Return the names of all callbacks, or of one call's callbacks in order."""
    files = sorted(_FOLDER.glob(f"{folder}/*.http"))
    return [file.relative_to(_FOLDER).with_suffix("").as_posix() for file in files]
