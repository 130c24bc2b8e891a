"""How often a password may be wrong."""

from ipaddress import ip_address, ip_network

from limits import RateLimitItemPerMinute
from redis.asyncio import Redis

from offhook.inbox import keys
from offhook_console.rate_limits import rate_limiter

_MINUTES = 15
_PER_NAME = RateLimitItemPerMinute(5, _MINUTES, namespace="name")  # from one address
_PER_ADDRESS = RateLimitItemPerMinute(20, _MINUTES, namespace="address")
_OF_NAME = RateLimitItemPerMinute(50, _MINUTES, namespace="all")  # from all addresses


class SignInLimit:
    """Counts attempts by name and address in Redis, for all processes of the console.

    Args:
        names: of the users. All other names count as one, so that the memory is bounded.
    """

    def __init__(self, redis: Redis, names: frozenset[str]) -> None:
        self._names = names
        self._limiter = rate_limiter(redis, keys.sign_in(""))

    async def attempt(self, name: str, address: str) -> bool:
        """Count an attempt before the password is checked. Return whether it may be made.

        Raises:
            RedisError: Redis does not answer, so attempts cannot be counted.
        """
        name, address = self._of(name), _network(address)
        return (
            await self._limiter.hit(_PER_ADDRESS, address)
            and await self._limiter.hit(_PER_NAME, name, address)
            and await self._limiter.hit(_OF_NAME, name)
        )

    async def left(self, name: str, address: str) -> int:
        """Return how many attempts with this name are left from this address."""
        stats = await self._limiter.get_window_stats(_PER_NAME, self._of(name), _network(address))
        return max(0, stats.remaining)

    async def succeeded(self, name: str, address: str) -> None:
        """Forget the attempts with this name from this address."""
        await self._limiter.clear(_PER_NAME, self._of(name), _network(address))

    def _of(self, name: str) -> str:
        return name if name in self._names else "?"


def _network(address: str) -> str:
    """The address, or of IPv6 the network that one customer has."""
    try:
        if ip_address(address).version == 6:
            return str(ip_network(f"{address}/64", strict=False))
    except ValueError:
        return "?"
    return address
