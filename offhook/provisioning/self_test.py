"""The self-test: whether callbacks that are sent to `public_url` reach this installation."""

import re

from offhook.callback_url import SELF_TEST, callback_url
from offhook.errors import DeliveryError
from offhook.http import Answer, Http
from offhook.settings import Settings

TIMEOUT = 10.0  # seconds
_HINT = re.compile(r"(?<=\)): .*")  # what to do about a handler's target


async def reachability_problem(settings: Settings) -> str | None:
    """Why callbacks cannot arrive, as seen from here; None if they can.

    Requests a URL that is signed like a callback URL and makes no event. It contains an extension
    with a `*`, because a proxy may garble one.
    """
    secret = settings.secret.get_secret_value()
    url = callback_url(settings.public_url, secret, SELF_TEST, "0000*000", SELF_TEST)
    try:
        async with Http() as http:
            if _says(await http.get(url, timeout=TIMEOUT), SELF_TEST):
                return None
            health = f"{settings.public_url.rstrip('/')}/health/live"
            answer = await http.get(health, timeout=TIMEOUT)
    except DeliveryError as error:
        said = _HINT.sub("", str(error))
        return f"public_url: {said}: is `offhook serve` running, and does its proxy lead there?"
    if _says(answer, "live"):
        return (
            "public_url: a receiver answers there, but with another secret: restart it with this "
            "configuration (or a proxy before it changes the paths)"
        )
    return f"public_url: the server there (status {answer.status}) is not a receiver of Offhook"


def _says(answer: Answer, status: str) -> bool:
    try:
        return answer.status == 200 and answer.json() == {"status": status}
    except ValueError:
        return False
