"""What CRM handlers share: find the contact and the owner of a call, and keep one record of it."""

from offhook import Number
from offhook.ttl_cache import TtlCache
from workers.handlers.crm.base import BaseUrl, Crm, OneContact, RecordingUrl, SearchedCrm
from workers.handlers.crm.crm_api import Access, json_object
from workers.handlers.crm.entry import Contact, CrmEntry
from workers.handlers.crm.tokens import TokenFile

__all__ = [
    "Access",
    "BaseUrl",
    "Contact",
    "Crm",
    "CrmEntry",
    "Number",
    "OneContact",
    "RecordingUrl",
    "SearchedCrm",
    "TokenFile",
    "TtlCache",
    "json_object",
]
