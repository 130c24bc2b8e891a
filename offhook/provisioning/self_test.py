"""Can the callback URLs be reached, and is it this installation that answers there?"""

from offhook.callback_url import SELF_TEST, callback_url
from offhook.errors import DeliveryError
from offhook.http import Answer, Http
from offhook.settings import Settings

TIMEOUT = 10.0  # seconds


async def in_the_way(settings: Settings) -> str | None:
    """What keeps callbacks from arriving, as far as it can be told from here; None: nothing.

    It calls a URL that is signed as a callback URL is, and of which no event comes. An extension
    with a `*` is in it, which a proxy may spoil.
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
        return f"public_url: {error}: does `offhook serve` run, and does its proxy lead there?"
    if _says(answer, "live"):
        return (
            "public_url: a receiver answers there, but with another secret: restart it with this "
            "configuration (or a proxy before it changes the paths)"
        )
    return f"public_url: what answers there ({answer.status}) is no receiver"


def _says(answer: Answer, status: str) -> bool:
    try:
        return answer.status == 200 and answer.json() == {"status": status}
    except ValueError:
        return False
