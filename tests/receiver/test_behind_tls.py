"""Callbacks over TLS through a real nginx with deploy/nginx.conf."""

from pathlib import Path

from tests.installation import wait_until
from tests.receiver.behind_nginx import nginx
from tests.receiver.over_tls import asking, files_of, issue_certificate
from tests.receiver.running import running_receiver, url


def test_callbacks_come_over_tls_and_no_log_has_their_url(redis_url: str, tmp_path: Path) -> None:
    certificate, trust = issue_certificate(tmp_path)
    folder = tmp_path / "proxy"
    folder.mkdir()
    with (
        running_receiver(redis_url, tmp_path) as first,
        running_receiver(redis_url, tmp_path) as second,
        nginx(folder, [first.port, second.port], 60, certificate=certificate) as front,
        asking(front.port, trust, 120) as ask,
    ):
        wait_until(lambda: ask("/health/live") == 200, "the proxy reaches the receiver")
        assert ask(url(), "1") == 200
        assert [ask(path) for path in ("/metrics", "/health", "/")] == [404] * 3
        first.process.terminate()
        assert [ask(url(), str(n)) for n in range(2, 12)] == [200] * 10
        first.process.wait(60)
        assert [ask(url(), str(n)) for n in range(12, 22)] == [200] * 10
        second.process.kill()
        second.process.wait(60)
        assert ask(url(), "22") in (502, 503)
    files = files_of(folder)
    assert files
    assert not any(files.values()), files
