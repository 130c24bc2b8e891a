"""URLs of Redis servers and of Sentinels."""

import pytest

from offhook.redis_servers.redis_url import (
    ClusterUrl,
    check_url,
    read_cluster_url,
    without_password,
)


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
        "cluster://",
        "cluster://one:port/",
        "cluster://one:6379/1",
        "cluster://one:6379/inbox",
        "cluster://user:password@one:6379/",
        "cluster://one:6379/?sentinel_password=x",
        "cluster://one:6379/?ssl_ca_certs=ca.pem",
        "http://one:6379/0",
    ],
)
def test_a_malformed_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        check_url(url)


def test_nodes_of_a_cluster_have_its_user_and_certificates() -> None:
    url = "clusters://one,[::1]:7000/?username=me&password=s%40cret&ssl_ca_certs=%2Fca.pem"
    check_url(url)
    cluster = read_cluster_url(url)
    assert cluster is not None
    assert cluster.nodes == [("one", 6379), ("::1", 7000)]
    assert cluster.options == {
        "username": "me",
        "password": "s@cret",
        "ssl_ca_certs": "/ca.pem",
        "ssl": True,
    }
    one = cluster.of_node("10.0.0.1", 7001)
    assert one == "rediss://me:s%40cret@10.0.0.1:7001/0?ssl_ca_certs=%2Fca.pem"
    check_url(one)
    assert ClusterUrl([("one", 1)], {}).of_node("::1", 1) == "redis://[::1]:1/0"


def test_messages_contain_no_password() -> None:
    assert without_password("redis://user:secret@host:6379/0") == "redis://***@host:6379/0"
    assert without_password("redis://host:6379/0?password=secret") == "redis://host:6379/0"
    url = "sentinel://one:26380,two/inbox/2?password=s%40cret&sentinel_password=other"
    assert without_password(url) == "sentinel://one:26380,two/inbox/2"
    assert without_password("cluster://one,two/?password=s%40cret") == "cluster://one,two/"
