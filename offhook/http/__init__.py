"""The HTTP client of handlers: pooled connections, and errors that say whether to retry."""

from offhook.http.client import Http, check, is_private
from offhook.http.http1 import Answer

__all__ = ["Answer", "Http", "check", "is_private"]
