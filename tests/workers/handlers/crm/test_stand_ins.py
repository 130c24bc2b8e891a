"""What the tests rely on: that the stand-ins are as strict as the vendors' descriptions."""

import httpx

from tests.workers.handlers.crm.side import Side


def test_the_stand_in_refuses_what_is_not_described(side: Side) -> None:
    """Otherwise the checks of every other test would prove nothing."""
    url = side.url + side.write.removeprefix("POST ")
    answer = httpx.post(url, json={"unheard": "of"}, headers=side.headers())
    assert answer.status_code == 500
    assert side.violations
    side.violations.clear()
