"""Whose an extension is: a command of `offhook setup` works on those of one tenant."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from offhook.errors import ConfigError
from offhook.extensions import ExtensionSettings, Name
from offhook.settings import Settings, load_settings


@dataclass(frozen=True)
class Owner:
    """A tenant, or the operator, as the owner of extensions.

    Attributes:
        settings: the operator's.
        tenant: empty for the operator.
    """

    settings: Settings
    tenant: str

    @classmethod
    def of(cls, tenant: str) -> "Owner":
        """The owner of this name, by the configuration as it is now."""
        return cls(load_settings(), tenant)

    def has(self, pbx: str, extension: str) -> bool:
        """Return whether an extension is this owner's."""
        return self.settings.tenant_of(pbx, extension) == self.tenant

    def among(self, pbx: str, extensions: Iterable[str]) -> Iterator[str]:
        """Yield those of these extensions that are this owner's."""
        return (each for each in extensions if self.has(pbx, each))

    def stored(self, stored: dict[Name, ExtensionSettings]) -> dict[Name, ExtensionSettings]:
        """Those of these stored extensions that are this owner's."""
        return {name: each for name, each in stored.items() if self.has(*name)}

    def check(self, pbx: str, extensions: Iterable[str]) -> None:
        """Check that extensions are this owner's.

        Raises:
            ConfigError: one is another's.
        """
        for extension in extensions:
            owner = self.settings.tenant_of(pbx, extension)
            if owner and owner != self.tenant:
                raise ConfigError(f"{pbx}/{extension} belongs to {owner}: use --tenant {owner}")
            if owner != self.tenant:
                raise ConfigError(
                    f"{pbx}/{extension} is not in tenants.{self.tenant}.extensions: add it there"
                )
