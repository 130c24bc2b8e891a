"""The other systems of the demo: a CRM that takes signed webhooks, and a channel for alerts."""

from types import TracebackType

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError


class OtherSystems:
    """An HTTP server that checks and counts what handlers send. An async context.

    Args:
        secret: what the webhooks are signed with.
    """

    def __init__(self, secret: str) -> None:
        self._verifier = Webhook(secret)
        self._busy = True
        self.webhooks: set[str] = set()  # by webhook-id: a redelivery has the same
        self.forged = 0
        self.alerts: list[str] = []
        self.url = ""

    async def __aenter__(self) -> "OtherSystems":
        app = web.Application()
        app.router.add_post("/crm", self._crm)
        app.router.add_post("/alerts", self._alert)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._runner.cleanup()

    async def _crm(self, request: web.Request) -> web.Response:
        if self._busy:  # once, to show what happens then
            self._busy = False
            return web.Response(status=503, headers={"Retry-After": "2"})
        try:
            self._verifier.verify(await request.read(), dict(request.headers))
        except (WebhookVerificationError, ValueError):
            self.forged += 1
            return web.Response(status=401)
        self.webhooks.add(request.headers["webhook-id"])
        return web.Response(status=204)

    async def _alert(self, request: web.Request) -> web.Response:
        self.alerts.append((await request.json())["message"])
        return web.Response(status=204)
