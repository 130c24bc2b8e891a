"""The HTTP client of handlers: one pool of connections, short responses, errors already sorted."""

from offhook.http.client import Answer, Http, check, is_private

__all__ = ["Answer", "Http", "check", "is_private"]
