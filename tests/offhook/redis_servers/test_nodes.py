"""The clients of a cluster's nodes."""

from typing import Any
from urllib.parse import urlsplit

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from offhook.redis_servers.nodes import Nodes


async def test_connection_that_is_closed_while_it_sends_is_an_error_of_the_connection(
    redis_url: str,
) -> None:
    client = Nodes([], {"socket_timeout": 5.0}).client(("127.0.0.1", urlsplit(redis_url).port or 0))
    connection: Any = client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
    await connection.connect()

    async def close() -> None:
        """As another task does that learns that the node is no longer in the cluster."""
        await connection.disconnect(nowait=True)

    connection.check_health = close
    with pytest.raises(RedisConnectionError, match="closed meanwhile"):
        await connection.send_command("PING")
    await client.aclose()
