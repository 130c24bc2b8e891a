"""Checks of what receivers need: their address, their journal, the file of revoked URLs."""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from offhook.callback_url import revoked_urls
from offhook.errors import ConfigError
from offhook.settings import Settings
from offhook_cli.diagnosis.findings import Finding, failed, megabytes, passed, warned


@dataclass(frozen=True)
class SeenReceiver:
    """The receiver's part of the configuration.

    Attributes:
        unreachable: why a callback cannot arrive; None if it can.
    """

    settings: Settings
    unreachable: str | None


def public_url(seen: SeenReceiver) -> Iterator[Finding]:
    """Callbacks are encrypted."""
    url = urlsplit(seen.settings.public_url)
    if url.scheme == "https":
        yield passed("public_url is an https:// address")
    elif _is_local(url.hostname or ""):
        yield warned(
            "public_url leads to this machine: that is for trials; set it to the https:// address "
            "at which the PBX reaches the receiver"
        )
    else:
        yield warned(
            "public_url is not encrypted, so anyone on the way can read tokens and phone numbers: "
            "let a proxy with a certificate lead to the receiver, and use https://"
        )


def _is_local(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def reachable(seen: SeenReceiver) -> Iterator[Finding]:
    """A receiver with this secret answers at `public_url`."""
    if seen.unreachable is None:
        yield passed("callbacks can arrive: a receiver with this secret answers at public_url")
    else:
        yield failed(seen.unreachable)


def revoked(seen: SeenReceiver) -> Iterator[Finding]:
    """The file of revoked URLs can be read."""
    try:
        revoked_urls(seen.settings.revoked_file)
    except ConfigError as error:
        yield from map(failed, error.problems)


def journal(seen: SeenReceiver) -> Iterator[Finding]:
    """The journal's folder can be written, and its disk has room."""
    folder = seen.settings.journal_folder.absolute()
    try:
        exists = folder.exists()
    except OSError as error:
        yield warned(f"{folder} (journal) cannot be read: {error.strerror}; correct journal")
        return
    if not exists:
        yield passed(f"no receiver has run here: there is no folder {folder} (journal)")
        return
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        yield warned(
            f"this user cannot write to {folder} (journal): run `offhook doctor` as the user of "
            "the receiver; if it is that user, change the folder's owner"
        )
        return
    free, wanted = shutil.disk_usage(folder).free, seen.settings.journal_size
    if free < wanted:
        yield warned(
            f"{folder} has {megabytes(free)} of free disk space, less than journal_size "
            f"({megabytes(wanted)}): free some, or lower journal_size"
        )
    else:
        yield passed(f"{folder} (journal) can be written, with {megabytes(free)} of free space")


def waiting_events(seen: SeenReceiver) -> Iterator[Finding]:
    """No event waits in a journal, and no batch of events is damaged."""
    folder = seen.settings.journal_folder.absolute()
    waiting, damaged = (_size(folder, f"*.{suffix}") for suffix in ("journal", "damaged"))
    if waiting:
        yield warned(
            f"{megabytes(waiting)} of events wait in {folder} (journal): they are delivered when "
            "Redis takes events and `offhook serve` runs here"
        )
    if damaged:
        yield warned(
            f"{folder} has damaged batches of events: its files *.damaged were kept aside; "
            "is the disk sound?"
        )


def _size(folder: Path, pattern: str) -> int:
    size = 0
    with suppress(OSError):  # `journal` says why
        for path in folder.glob(pattern):
            with suppress(FileNotFoundError):  # the receiver has just emptied and deleted it
                size += path.stat().st_size
    return size


CHECKS = (public_url, reachable, revoked, journal, waiting_events)
