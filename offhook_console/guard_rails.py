"""What holds for every request: security headers, a maximum size, and a language."""

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from offhook_console.languages import language_of, speaking
from offhook_console.problem_details import problem

_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; font-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_MOST = 65536  # bytes of a request's body


class GuardRails:
    """ASGI middleware around the whole console."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        kept = scope["path"].startswith("/static/")

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                # A browser keeps no page with a number in it.
                headers.setdefault(
                    "Cache-Control", "public, max-age=31536000, immutable" if kept else "no-store"
                )
            await send(message)

        if scope["method"] in ("GET", "HEAD"):
            with speaking(language_of(HTTPConnection(scope))):
                await self._app(scope, receive, guarded)
            return
        body = await _body(receive)
        if body is None:
            refusal = problem(413, f"The request has more than {_MOST:,} bytes.")
            await refusal(scope, receive, guarded)
            return

        async def replay() -> Message:
            nonlocal body
            if body is None:
                return await receive()
            message, body = {"type": "http.request", "body": body, "more_body": False}, None
            return message

        with speaking(language_of(HTTPConnection(scope))):
            await self._app(scope, replay, guarded)


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None if it is too large, or the client is gone."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        part: bytes = message.get("body", b"")
        body += part
        if len(body) > _MOST:
            return None
        if not message.get("more_body"):
            return bytes(body)
