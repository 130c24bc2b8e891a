"""Callbacks as a PBX sends them: loads `payloads/FOLDER/NAME.http`, the bytes of an HTTP request.

A folder holds one call, its callbacks numbered in their order; `odd/` holds one oddity a file. The
path names PBX, extension and event type as every callback URL does, with TOKEN for the token. The
files were made from the PBX's documents: nobody has published a recording of a VoipNow callback.
Those in `telphin-*/` have the shape of callbacks that users of Telphin recorded.
"""

from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).parent / "payloads"


@dataclass(frozen=True)
class Payload:
    """One callback, taken apart but not decoded. Header names are in lower case."""

    name: str
    method: str
    path: str
    query: bytes
    headers: dict[str, str]
    body: bytes

    @property
    def names(self) -> tuple[str, str, str]:
        """The PBX, the extension and the event type that the path names."""
        pbx, extension, event_type = self.path.split("/")[2:5]
        return pbx, extension, event_type

    @property
    def parameters(self) -> bytes:
        """Where the PBX put its parameters: the query of a GET, the body of a POST."""
        return self.query if self.method == "GET" else self.body


def load(name: str) -> Payload:
    """The callback of that name, such as `missed/2-hangup-211`."""
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
    """The names of all callbacks, or of one call's in their order."""
    files = sorted(_FOLDER.glob(f"{folder}/*.http"))
    return [file.relative_to(_FOLDER).with_suffix("").as_posix() for file in files]
