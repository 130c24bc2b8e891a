"""Callbacks over TLS through a real nginx with deploy/nginx.conf."""

import ssl
from pathlib import Path

import httpx
import trustme

from tests.installation import wait_until
from tests.receiver.behind_nginx import nginx
from tests.receiver.running import running_receiver, url

NAME = "offhook.example.com"


def test_callbacks_come_over_tls_and_no_log_has_their_url(redis_url: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert(NAME)
    certificate = tmp_path / "certificate.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(str(certificate))
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    folder = tmp_path / "proxy"
    folder.mkdir()
    with (
        running_receiver(redis_url, tmp_path) as first,
        running_receiver(redis_url, tmp_path) as second,
        nginx(folder, [first.port, second.port], 60, certificate=certificate) as front,
        httpx.Client(verify=trust, timeout=120) as client,
    ):

        def ask(path: str, call: str = "") -> int:
            address = f"https://127.0.0.1:{front.port}{path}"
            sni = {"sni_hostname": NAME}
            form = {"CallID": call} if call else None
            asked = client.request(
                "POST" if call else "GET",
                address,
                data=form,
                headers={"Host": f"{NAME}:{front.port}"},
                extensions=sni,
            )
            return asked.status_code

        wait_until(lambda: ask("/health/live") == 200, "the proxy reaches the receiver")
        assert ask(url(), "1") == 200
        assert [ask(path) for path in ("/metrics", "/health", "/")] == [404] * 3
        first.process.terminate()
        assert [ask(url(), str(n)) for n in range(2, 12)] == [200] * 10
        first.process.wait(20)
        assert [ask(url(), str(n)) for n in range(12, 22)] == [200] * 10
        second.process.kill()
        second.process.wait(20)
        assert ask(url(), "22") in (502, 503)
    token = url().rpartition("/")[2]
    logs = [path for path in folder.rglob("*") if path.is_file()]
    assert logs
    assert not [path for path in logs if token.encode() in path.read_bytes()]
