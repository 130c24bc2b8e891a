"""What the handlers for CRMs share: who called, whose call it was, and one record of it."""

from offhook import Number
from offhook.ttl_cache import Memory
from workers.handlers.crm.base import Access, Crm, RecordingUrl, SearchedCrm, Zone
from workers.handlers.crm.entry import Contact, Entry
from workers.handlers.crm.tokens import TokenFile

__all__ = [
    "Access",
    "Contact",
    "Crm",
    "Entry",
    "Memory",
    "Number",
    "RecordingUrl",
    "SearchedCrm",
    "TokenFile",
    "Zone",
]
