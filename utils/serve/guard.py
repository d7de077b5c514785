"""What every request has to pass: host, key, size, pace; as plain ASGI."""

import asyncio
import hmac
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from utils.serve.errors import Refused

OPEN = "/", "/health"  # without a key; so is /page/
LOCAL = "127.0.0.1", "localhost", "[::1]"  # this machine, as Host names it


@dataclass(frozen=True)
class Limits:
    """What a client may ask of a server."""

    api_key: str | None = None
    body: int = 4_000_000  # bytes
    pace: float = 30.0  # seconds in which a body has to come, and an answer's part to go
    local: bool = False  # it listens to this machine alone


def is_open(path: str) -> bool:
    """Whether a path needs no key: the page asks for one itself."""
    return path in OPEN or path.startswith("/page/")


class Guard:
    """Refuses requests before an app sees them: 421, 401, 413, 408."""

    def __init__(self, app: ASGIApp, limits: Limits, count: Callable[[str, int], None]) -> None:
        self.app, self.limits, self.count = app, limits, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["method"] == "HEAD":  # the answer to GET, whose body uvicorn leaves out
            scope = {**scope, "method": "GET"}
        try:
            self.check_host(scope)
            self.check_key(scope)
            messages = await self.body(scope, receive)
        except Refused as e:
            answer = JSONResponse(e.body, e.status, {"Connection": "close", **e.headers})
            await answer(scope, receive, send)
            self.count("refused", e.status)
            return

        async def read() -> Message:
            return messages.pop(0) if messages else await receive()

        async def write(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.count(getattr(scope.get("route"), "path", "none"), message["status"])
            await asyncio.wait_for(send(message), self.limits.pace)

        with suppress(asyncio.TimeoutError):  # it reads nothing: uvicorn closes the connection
            await self.app(scope, read, write)

    def check_host(self, scope: Scope) -> None:
        """Raise Refused for another Host than this machine, where no other is served.

        A page on the internet could else have its own name lead here, and ask (DNS rebinding).
        """
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        if self.limits.local and re.sub(r":\d+$", "", host) not in LOCAL:
            raise Refused(421, f"host {host[:100]!r} is not served; --host and --api-key open it")

    def check_key(self, scope: Scope) -> None:
        """Raise Refused without the right key, found out in constant time."""
        if self.limits.api_key is None or is_open(scope["path"]):
            return
        given = dict(scope["headers"]).get(b"authorization", b"")
        wanted = f"Bearer {self.limits.api_key}".encode()
        if not hmac.compare_digest(given, wanted):
            message = "the API key is missing or wrong; send it as: Authorization: Bearer KEY"
            raise Refused(401, message, code="invalid_api_key")

    async def body(self, scope: Scope, receive: Receive) -> list[Message]:
        """The whole body, as messages. Raises Refused for one that is too large, or too slow."""
        most = self.limits.body
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > most:
            raise Refused(413, f"a body of {int(length)} bytes is more than {most}")
        try:
            return await asyncio.wait_for(self.messages(receive), self.limits.pace)
        except asyncio.TimeoutError:
            raise Refused(408, f"the body did not come within {self.limits.pace:g} s") from None

    async def messages(self, receive: Receive) -> list[Message]:
        """Receive up to the body's end, or until the client has left."""
        messages, size = [], 0
        while True:
            message = await receive()
            messages.append(message)
            size += len(message.get("body", b""))
            if size > self.limits.body:
                raise Refused(413, f"the body has more than {self.limits.body} bytes")
            if not message.get("more_body"):
                return messages
