"""Build the files of a release twice, compare them, list what is in them, and sign their hashes.

`make release KEY=FILE` runs it on a commit with a tag; docs/releasing.md says what comes before and
after.
"""

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
SIGNERS = "release/allowed_signers"
NAMESPACE = "file"  # of the signature: `ssh-keygen -Y verify -n file`
SUMS = "SHA256SUMS"


class Refused(Exception):
    """This commit, or this key, makes no release."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="make release", description=__doc__)
    parser.add_argument("key", type=Path, help="the key that signs, as ssh-keygen makes it")
    parser.add_argument("--into", type=Path, default=ROOT / "dist", help="the folder of the files")
    arguments = parser.parse_args()
    try:
        for path in release(arguments.key, arguments.into):
            print(path)
    except Refused as refused:
        sys.exit(f"no release: {refused}")


def release(key: Path, into: Path, root: Path = ROOT) -> list[Path]:
    """Make the files of the release that the tag of the current commit names.

    Args:
        key: the private key, or the public half of one in an agent; `allowed_signers` has it.
        into: a folder, which is created; it may have no files of this release yet.
        root: the checkout.

    Returns:
        The files, the signature last.

    Raises:
        Refused: the message says what to do.
    """
    version = tagged(root)
    signer = signer_of(key, root)
    epoch = run("git", "log", "-1", "--format=%ct", folder=root).strip()
    environment = {
        "SOURCE_DATE_EPOCH": epoch,
        "SETUPTOOLS_SCM_PRETEND_VERSION": version,
    }
    if clash := sorted(path.name for path in into.glob(f"offhook-{version}*")):
        raise Refused(f"{into} has files of this release, delete them first: {', '.join(clash)}")
    with tempfile.TemporaryDirectory() as name:
        source = Path(name, "archive")
        source.mkdir()
        archive = Path(name, "archive.tar")
        run("git", "archive", f"--output={archive}", "HEAD", folder=root)
        unpack(archive, source)
        files = build(source, into, environment)
        again = Path(name, "again")
        unpack(files[-1], again)
        (source_of_sdist,) = again.iterdir()
        compare(files, build(source_of_sdist, Path(name, "second"), environment))
        files.append(
            bill_of_materials(source, into / f"offhook-{version}.cdx.json", version, epoch)
        )
    return [*files, *sign(files, into / SUMS, key, signer, root)]


def tagged(root: Path) -> str:
    """The version of the tag of the current commit.

    Raises:
        Refused: there is none, files were changed, or the changelog does not have its date.
    """
    if changed := run("git", "status", "--porcelain", folder=root):
        raise Refused(f"commit these first:\n{changed.rstrip()}")
    tags = run("git", "tag", "--points-at", "HEAD", "--list", "v*", folder=root).split()
    if len(tags) != 1:
        raise Refused(f"the commit has {len(tags) or 'no'} tags; it needs one, such as v0.1.0")
    version = tags[0].removeprefix("v")
    heading = rf"^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)$"
    if not re.search(heading, (root / "CHANGELOG.md").read_text(), re.MULTILINE):
        raise Refused(f"CHANGELOG.md has no section `## {version} (YEAR-MONTH-DAY)`")
    return version


def signer_of(key: Path, root: Path) -> str:
    """The name that `allowed_signers` gives to the key.

    Raises:
        Refused: it does not have the key.
    """
    if key.suffix == ".pub":  # of a private key in an agent
        public = key.read_text().split()[:2]
    else:
        public = run("ssh-keygen", "-y", "-f", str(key), folder=root).split()[:2]
    signers = root / SIGNERS
    for line in signers.read_text().splitlines() if signers.exists() else []:
        name, *rest = line.split()
        if public == rest[-2:] or public == rest[-3:-1]:  # with and without a comment
            return name
    raise Refused(f"add the key to {SIGNERS}: YOUR-ADDRESS {' '.join(public)}")


def build(source: Path, into: Path, environment: Mapping[str, str]) -> list[Path]:
    """Build the wheel and the sdist of a source folder."""
    into.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel", "-d"]
    run(*command, str(into.resolve()), folder=source, environment=environment)
    version = environment["SETUPTOOLS_SCM_PRETEND_VERSION"]
    return [into / f"offhook-{version}-py3-none-any.whl", into / f"offhook-{version}.tar.gz"]


def compare(first: list[Path], second: list[Path]) -> None:
    """Compare two builds, byte by byte.

    Raises:
        Refused: they differ.
    """
    for one, other in zip(first, second, strict=True):
        if one.name != other.name or one.read_bytes() != other.read_bytes():
            raise Refused(f"two builds differ: {one.name}")


def bill_of_materials(source: Path, into: Path, version: str, epoch: str) -> Path:
    """Write what an installation consists of: the locked packages with their hashes (CycloneDX)."""
    project = source / "pyproject.toml"  # which the tool reads without the build backend
    text = project.read_text().replace('dynamic = ["version"]', f'version = "{version}"', 1)
    named = source / "named.toml"
    named.write_text(text)
    command = [
        *(sys.executable, "-m", "cyclonedx_py", "requirements", "requirements/production.txt"),
        *("--pyproject", str(named), "--output-reproducible", "--output-file", str(into.resolve())),
        "--no-validate",  # it takes seconds; the tests do it
    ]
    run(*command, folder=source, environment={"SOURCE_DATE_EPOCH": epoch})
    return into


def sign(files: list[Path], sums: Path, key: Path, signer: str, root: Path) -> list[Path]:
    """Write the hashes of files, and their signature, and verify it as a user does."""
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    sums.write_text("".join(lines))
    signature = sums.with_name(f"{sums.name}.sig")
    signature.unlink(missing_ok=True)  # ssh-keygen asks before it overwrites
    run("ssh-keygen", "-Y", "sign", "-f", str(key), "-n", NAMESPACE, str(sums), folder=root)
    with sums.open("rb") as signed:
        verify = [
            *("ssh-keygen", "-Y", "verify", "-f", str(root / SIGNERS), "-I", signer),
            *("-n", NAMESPACE, "-s", str(signature)),
        ]
        subprocess.run(verify, stdin=signed, stdout=subprocess.DEVNULL, check=True)
    return [sums, signature]


def unpack(archive: Path, into: Path) -> None:
    with tarfile.open(archive) as packed:
        packed.extractall(into, filter="data")


def run(*command: str, folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """Run a command, and return its output.

    Raises:
        Refused: it fails; with its output.
    """
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Refused(f"{' '.join(command)}\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout


if __name__ == "__main__":
    main()
