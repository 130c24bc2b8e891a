"""Hosts of an installation: network namespaces on one bridge, each of which a test can cut off."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_NETWORK = "10.213.7"
_BRIDGE = "offhook-br"
HERE = f"{_NETWORK}.1"  # the machine on which all this runs


class Host:
    """One host.

    Attributes:
        address: its IP address.
        prefix: of a command, to run it there.
    """

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.address = f"{_NETWORK}.{number}"
        self.prefix = ["ip", "netns", "exec", name]
        self._link = f"oh-{number}"
        self._started: list[subprocess.Popen[bytes]] = []
        _ip("netns", "add", name)
        _ip("link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", self._link, "master", _BRIDGE, "up")
        for command in (
            ("link", "set", "lo", "up"),
            ("address", "add", f"{self.address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
        ):
            _ip("-n", name, *command)

    def start(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        """Start a program there."""
        with log.open("ab") as output:
            self._started.append(
                subprocess.Popen(
                    [*self.prefix, *command],
                    env=dict(environment),
                    cwd=log.parent,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            )

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to all that runs there."""
        found = subprocess.run(
            ["ip", "netns", "pids", self.name], capture_output=True, text=True, check=True
        )
        for pid in map(int, found.stdout.split()):
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, number)

    def wait(self) -> None:
        """Wait until what was started has ended."""
        for each in self._started:
            each.wait()
        self._started.clear()

    def cut_off(self) -> None:
        """Lose every packet from and to it."""
        _ip("link", "set", self._link, "down")

    def connect(self) -> None:
        _ip("link", "set", self._link, "up")

    def remove(self) -> None:
        self.kill()
        self.wait()
        _ip("link", "del", self._link)
        _ip("netns", "del", self.name)


def check_rights() -> None:
    """Exit, and say why, if this process cannot make network namespaces."""
    reason = "this is another user" if os.geteuid() else ""
    for change in ("add", "del") if not reason else ():
        made = subprocess.run(
            ["ip", "netns", change, "offhook-try"], capture_output=True, text=True, check=False
        )
        reason = reason or made.stderr.strip()
    if reason:
        sys.exit(f"network namespaces need root and `ip netns`: {reason}")


@contextmanager
def hosts(*names: str) -> Iterator[list[Host]]:
    """Make hosts, and remove them at the end."""
    made: list[Host] = []
    subprocess.run(["ip", "link", "del", _BRIDGE], capture_output=True, check=False)  # if left over
    for name in names:
        subprocess.run(["ip", "netns", "del", f"offhook-{name}"], capture_output=True, check=False)
    _ip("link", "add", _BRIDGE, "type", "bridge")
    try:
        _ip("address", "add", f"{HERE}/24", "dev", _BRIDGE)
        _ip("link", "set", _BRIDGE, "up")
        for number, name in enumerate(names, 11):
            made.append(Host(f"offhook-{name}", number))
        yield made
    finally:
        for host in made:
            host.remove()
        _ip("link", "del", _BRIDGE)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
