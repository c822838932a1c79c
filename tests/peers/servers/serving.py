"""What the two Python servers share: HTTP beneath the SDK, the request log, and who was cancelled.

What such a server offers is told in ../README.md. Environment, as of the TypeScript servers:
PORT, where it listens, and REQUEST_LOG, a file that gets one JSON line for each answered HTTP request.
"""

import asyncio
import json
import os
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn

STEPS = 4
STEP_SECONDS = 0.12
"""How long `work` works before each of its notifications."""
WAIT_SECONDS, WAS_CANCELLED_SECONDS = 20, 2
"""The longest that `wait` waits, and `was_cancelled` for it."""

_cancelled: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)


@asynccontextmanager
async def noting_cancellation(key: str) -> AsyncIterator[None]:
    """Notes when what goes on within is cancelled. Both SDKs do that to the task of a cancelled call."""
    try:
        yield
    except asyncio.CancelledError:
        _cancelled[key].set()
        raise


async def wait() -> None:
    await asyncio.sleep(WAIT_SECONDS)


async def was_cancelled(key: str) -> str:
    """Whether the call with this key was cancelled, or is before long."""
    try:
        await asyncio.wait_for(_cancelled[key].wait(), WAS_CANCELLED_SECONDS)
    except TimeoutError:
        return "not cancelled"
    return "cancelled"


class Recorded:
    """An ASGI application that writes down each answered request."""

    def __init__(self, app: Any, log: Path) -> None:
        self.app = app
        self.log = log

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if scope["path"] == "/ready":  # for whoever started it
            await send({"type": "http.response.start", "status": 200, "headers": []})
            return await send({"type": "http.response.body", "body": b"ready"})
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        line = {
            "run": headers.get("x-peer-run"),
            "method": scope["method"],
            "status": 0,
            "version": headers.get("mcp-protocol-version"),
            "session": "mcp-session-id" in headers,
        }

        async def noting(message: Any) -> None:
            if message["type"] == "http.response.start":
                line["status"] = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            with self.log.open("a") as log:
                log.write(json.dumps(line) + "\n")


def serve(app: Any) -> None:
    recorded = Recorded(app, Path(os.environ["REQUEST_LOG"]))
    uvicorn.run(recorded, host="127.0.0.1", port=int(os.environ["PORT"]), lifespan="on", log_level="warning")
