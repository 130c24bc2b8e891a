"""The stand-ins are as strict as the vendors' descriptions, or other tests prove nothing."""

import httpx

from tests.workers.handlers.crm.side import Side


def test_a_stand_in_refuses_an_undescribed_request(side: Side) -> None:
    url = side.url + side.write.removeprefix("POST ")
    answer = httpx.post(url, json={"unheard": "of"}, headers=side.headers())
    assert answer.status_code == 500
    assert side.violations
    side.violations.clear()
