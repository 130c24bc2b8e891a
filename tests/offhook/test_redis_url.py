"""URLs of Redis servers and of Sentinels."""

import pytest

from offhook.redis_url import check_url, without_password


@pytest.mark.parametrize(
    "url",
    [
        "sentinel://",
        "sentinel://one:26379",
        "sentinel://one:26379/",
        "sentinel://one:port/inbox/0",
        "sentinel://one:26379/inbox/zero",
        "sentinel://user:password@one:26379/inbox/0",
        "sentinel://one:26379/inbox/0?passwort=x",
        "http://one:6379/0",
    ],
)
def test_a_malformed_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        check_url(url)


def test_messages_contain_no_password() -> None:
    assert without_password("redis://user:secret@host:6379/0") == "redis://***@host:6379/0"
    assert without_password("redis://host:6379/0?password=secret") == "redis://host:6379/0"
    url = "sentinel://one:26380,two/inbox/2?password=s%40cret&sentinel_password=other"
    assert without_password(url) == "sentinel://one:26380,two/inbox/2"
