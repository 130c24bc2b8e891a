"""How often a password may be wrong."""

from ipaddress import ip_address, ip_network

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

_MINUTES = 15
_PER_NAME = RateLimitItemPerMinute(5, _MINUTES, namespace="name")  # from one address
_PER_ADDRESS = RateLimitItemPerMinute(20, _MINUTES, namespace="address")
_OF_NAME = RateLimitItemPerMinute(50, _MINUTES, namespace="all")  # from all addresses


class SignInLimit:
    """Counts attempts by name and address, in the memory of this process.

    Args:
        names: of the users. All other names count as one, so that the memory is bounded.
    """

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def attempt(self, name: str, address: str) -> bool:
        """Count an attempt before the password is checked. Return whether it may be made."""
        name, address = self._of(name), _network(address)
        return (
            self._limiter.hit(_PER_ADDRESS, address)
            and self._limiter.hit(_PER_NAME, name, address)
            and self._limiter.hit(_OF_NAME, name)
        )

    def left(self, name: str, address: str) -> int:
        """Return how many attempts with this name are left from this address."""
        stats = self._limiter.get_window_stats(_PER_NAME, self._of(name), _network(address))
        return max(0, stats.remaining)

    def succeeded(self, name: str, address: str) -> None:
        """Forget the attempts with this name from this address."""
        self._limiter.clear(_PER_NAME, self._of(name), _network(address))

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
