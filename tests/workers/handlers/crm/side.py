"""What the tests of every CRM ask of it, in words that all CRMs share."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from tests.workers.handlers.crm.serving import Answered, Door
from workers.handlers.crm import Crm


@dataclass(frozen=True)
class Record:
    """A call, as a person sees it in the CRM.

    Attributes:
        key: what names the call.
        contacts: the ids of those whose call it is.
    """

    key: str
    title: str
    ended: bool
    contacts: frozenset[str] = frozenset()
    owner: str | None = None


class Side(Door):
    """A CRM that can be looked into.

    Attributes:
        handler: the handler for this CRM.
        find, write: how the lines of its requests begin that look for a contact, or write a call.
        jane: a user's mail address; `jane_id`: the id that the CRM knows her by.
        owners: does a call have an owner there?
        severals: what `several` may be with it.
        first: the first event of an incoming call that it keeps a record of.
        numbers_typed: forms of +40211234567 in which people hold numbers in it.
        too_many: what it answers to one request too many in a short while.
        daily: what it answers when the day's requests are used up; None: it does not count them.
        broken: what it answers to a record that is wrong.
    """

    handler: ClassVar[type[Crm]]
    find: ClassVar[str]
    write: ClassVar[str]
    jane: ClassVar[str] = "jane@example.com"
    jane_id: ClassVar[str] = ""
    owners: ClassVar[bool] = True
    severals: ClassVar[tuple[str, ...]] = ("newest", "all", "none")
    first: ClassVar[str] = "call-started"
    numbers_typed: ClassVar[tuple[str, ...]] = (
        "+40211234567",
        "40211234567",
        "0040211234567",
        "0211234567",
        "+40 21 123 4567",
        "021 123 4567",
        "021-123-4567",
        "(021) 123 4567",
    )
    too_many: ClassVar[Answered]
    daily: ClassVar[Answered | None] = None
    broken: ClassVar[Answered]

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """Options with which the handler speaks to it."""

    @abstractmethod
    def headers(self) -> dict[str, str]:
        """What lets a request in."""

    @abstractmethod
    def wrong_options(self) -> dict[str, Any]:
        """Options with which it does not let the handler in."""

    @abstractmethod
    def add_contact(self, name: str, phone: str) -> str:
        """A contact that somebody has typed in long ago: its id."""

    @abstractmethod
    def delete_contact(self, contact: str) -> None:
        """Somebody deletes a contact."""

    @abstractmethod
    def index(self) -> None:
        """Have its search find the contacts that were created by requests."""

    @abstractmethod
    def contacts(self) -> dict[str, str]:
        """The names of all contacts, by id."""

    @abstractmethod
    def records(self) -> list[Record]:
        """All calls in it."""

    @abstractmethod
    def forget_records(self) -> None:
        """Somebody deletes all calls."""
