"""The HTTP client of handlers: pooled connections, and errors that say whether to retry."""

from offhook.http.client import Answer, Http, check, is_private

__all__ = ["Answer", "Http", "check", "is_private"]
