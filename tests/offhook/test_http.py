"""`Http`: what handlers make requests with says no secret, whatever goes wrong."""

import asyncio
import traceback

import pytest

from offhook import PermanentError, TemporaryError
from offhook.http import Http


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("https://hooks.example.com:99999/s3cret", PermanentError),
        ("https:///s3cret", PermanentError),
        ("ftp://hooks.example.com/s3cret", PermanentError),
        ("http://127.0.0.1:1/s3cret", TemporaryError),
        ("http://user:s3cret@127.0.0.1:1/", TemporaryError),
    ],
)
def test_no_traceback_has_more_of_a_url_than_its_host(url: str, error: type[Exception]) -> None:
    async def post() -> None:
        async with Http() as http:
            await http.post(url, json={})

    with pytest.raises(error) as caught:
        asyncio.run(post())
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))
