"""What the tests of proxies with TLS share: a certificate, a client, and a look at their files."""

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import trustme

from tests.receiver.running import url

NAME = "offhook.example.com"


def issue_certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Write a certificate for `NAME` with its key. Return the file, and who trusts it."""
    authority = trustme.CA()
    certificate = folder / "certificate.pem"
    issued = authority.issue_cert(NAME)
    issued.private_key_and_cert_chain_pem.write_to_path(str(certificate))
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    return certificate, trust


@contextmanager
def asking(port: int, trust: ssl.SSLContext, seconds: float) -> Iterator[Callable[..., int]]:
    """Yield a function that asks for a path, with a CallID if there is one, and returns the status.

    Args:
        port: of the proxy.
        seconds: until a request times out.
    """
    with httpx.Client(verify=trust, timeout=seconds) as client:

        def ask(path: str, call: str = "") -> int:
            asked = client.request(
                "POST" if call else "GET",
                f"https://127.0.0.1:{port}{path}",
                data={"CallID": call} if call else None,
                headers={"Host": f"{NAME}:{port}"},
                extensions={"sni_hostname": NAME},
            )
            return asked.status_code

        yield ask


def files_of(folder: Path) -> dict[Path, bool]:
    """The proxy's files, and whether each has the token of the callback URL."""
    token = url().rpartition("/")[2].encode()
    return {path: token in path.read_bytes() for path in folder.rglob("*") if path.is_file()}
