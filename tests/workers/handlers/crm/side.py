"""`Side`: a CRM as the tests use it, the same for every CRM."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from tests.workers.handlers.crm.serving import Answered, Door
from workers.handlers.crm import Crm


@dataclass(frozen=True)
class Record:
    """A call, as the CRM shows it.

    Attributes:
        key: the call's key, from its mark or field.
        contacts: the ids of its contacts.
    """

    key: str
    title: str
    ended: bool
    contacts: frozenset[str] = frozenset()
    owner: str | None = None


class Side(Door):
    """A CRM whose data a test can read and change.

    Attributes:
        handler: the handler for this CRM.
        find, write: the start of request lines that search for a contact, or write a call.
        jane: a user's mail address; `jane_id`: her id in the CRM.
        owners: whether a call has an owner.
        severals: the values that it allows for `several`.
        first: the first event of an incoming call that it records.
        numbers_typed: forms in which people write +40211234567.
        too_many: its response to too many requests.
        daily: its response when the daily limit is used up; None: it has no limit.
        broken: its response to an invalid record.
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
        """Valid options for the handler."""

    @abstractmethod
    def headers(self) -> dict[str, str]:
        """Headers that authorize a request."""

    @abstractmethod
    def wrong_options(self) -> dict[str, Any]:
        """Options with wrong credentials."""

    @abstractmethod
    def add_contact(self, name: str, phone: str) -> str:
        """Add an old contact, and return its id."""

    @abstractmethod
    def delete_contact(self, contact: str) -> None:
        """Delete a contact."""

    @abstractmethod
    def index(self) -> None:
        """Let its search find the contacts that requests created."""

    @abstractmethod
    def contacts(self) -> dict[str, str]:
        """The names of all contacts, by id."""

    @abstractmethod
    def records(self) -> list[Record]:
        """All calls."""

    @abstractmethod
    def forget_records(self) -> None:
        """Delete all calls."""
