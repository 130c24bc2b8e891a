"""A certificate authority for one run, so that the sandbox can speak TLS."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificate:
    """PEM files: what a client must trust, and what a server shows and keeps to itself."""

    ca_file: Path
    certificate_file: Path
    key_file: Path


def make_certificate(directory: str | Path, *names: str) -> Certificate:
    """Make a certificate, and the authority that signed it, in a directory that exists.

    Args:
        names: host names and addresses that it is good for; `localhost` and `127.0.0.1` if none.

    Raises:
        RuntimeError: the package `trustme` is not installed.
    """
    try:
        import trustme
    except ImportError as error:
        raise RuntimeError("TLS needs the package trustme: pip install trustme") from error
    authority = trustme.CA()
    issued = authority.issue_cert(*(names or ("localhost", "127.0.0.1")))
    place = Path(directory)
    made = Certificate(place / "ca.pem", place / "certificate.pem", place / "key.pem")
    made.key_file.touch(mode=0o600)
    authority.cert_pem.write_to_path(made.ca_file)
    issued.private_key_pem.write_to_path(made.key_file)
    made.certificate_file.write_bytes(b"".join(p.bytes() for p in issued.cert_chain_pems))
    return made
