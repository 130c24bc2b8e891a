"""A certificate authority for one run of the sandbox, so that it can use TLS."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificate:
    """PEM files: the authority for clients, certificate and key for the server."""

    ca_file: Path
    certificate_file: Path
    key_file: Path


def make_certificate(directory: str | Path, *names: str) -> Certificate:
    """Create a certificate and its authority in an existing directory.

    Args:
        names: host names and addresses; by default `localhost` and `127.0.0.1`.

    Raises:
        RuntimeError: the package `trustme` is not installed.
    """
    try:
        import trustme
    except ImportError as error:
        raise RuntimeError("TLS needs the package trustme: pip install trustme") from error
    authority = trustme.CA()
    issued = authority.issue_cert(*(names or ("localhost", "127.0.0.1")))
    folder = Path(directory)
    made = Certificate(folder / "ca.pem", folder / "certificate.pem", folder / "key.pem")
    made.key_file.touch(mode=0o600)
    authority.cert_pem.write_to_path(made.ca_file)
    issued.private_key_pem.write_to_path(made.key_file)
    made.certificate_file.write_bytes(b"".join(p.bytes() for p in issued.cert_chain_pems))
    return made
