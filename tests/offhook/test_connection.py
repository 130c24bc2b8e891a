"""URLs of servers, and of Sentinels that name one."""

from typing import Any

import pytest

from offhook.connection import check_url, connect, connect_rq, shown

URL = "sentinel://one:26380,two,[::1]:26381/inbox/2?password=s%40cret&sentinel_password=other"


def test_sentinels_are_asked_where_the_primary_is() -> None:
    for client in (connect(URL), connect_rq(URL)):
        pool: Any = client.connection_pool
        assert pool.service_name == "inbox"
        kwargs = pool.connection_kwargs
        assert (kwargs["db"], kwargs["password"]) == (2, "s@cret")
        asked = [sentinel.connection_pool for sentinel in pool.sentinel_manager.sentinels]
        found = [(each.connection_kwargs["host"], each.connection_kwargs["port"]) for each in asked]
        assert found == [("one", 26380), ("two", 26379), ("::1", 26381)]
        assert {each.connection_kwargs["password"] for each in asked} == {"other"}


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
def test_a_wrong_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        check_url(url)


def test_what_is_shown_has_no_password() -> None:
    assert shown("redis://user:secret@host:6379/0") == "redis://***@host:6379/0"
    assert shown("redis://host:6379/0?password=secret") == "redis://host:6379/0"
    assert "s%40cret" not in shown(URL)
    assert "other" not in shown(URL)
