"""`ByExtension`: items by name, found quickly by the extensions that they concern."""

from collections import defaultdict
from collections.abc import Collection
from typing import Generic, Protocol, TypeVar


class _HasExtensions(Protocol):
    @property
    def extensions(self) -> tuple[str, ...]: ...


T = TypeVar("T", bound=_HasExtensions)


class ByExtension(Generic[T]):
    """Calls, or what is known of them, by name. Change it only by its methods.

    Attributes:
        all: the items, by name.
    """

    def __init__(self) -> None:
        self.all: dict[str, T] = {}
        self._names: defaultdict[str, dict[str, None]] = defaultdict(dict)

    def put(self, name: str, item: T) -> None:
        """Add an item, or replace the one with this name."""
        self.pop(name)
        self.all[name] = item
        for extension in item.extensions:
            self._names[extension][name] = None

    def pop(self, name: str) -> T | None:
        """Remove an item, and return it; None: there is none."""
        item = self.all.pop(name, None)
        for extension in item.extensions if item else ():
            names = self._names[extension]
            del names[name]
            if not names:
                del self._names[extension]
        return item

    def of(self, extensions: frozenset[str] | None) -> Collection[T]:
        """The items that concern one of these extensions, each once; None: all items."""
        if extensions is None:
            return self.all.values()
        names = {name: None for one in extensions for name in self._names.get(one, ())}
        return [self.all[name] for name in names]
