"""What the two Python clients share: the command line, the actions and the output (../README.md)."""

import asyncio
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from mcp import MCPError
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.exceptions import MCPDeprecationWarning

USAGE = "usage: CLIENT URL [--era legacy|auto|modern] ACTION [ARGUMENT...] ..."
ARGUMENTS = {
    "ping": 0, "tools": 0, "call": 2, "progress": 2, "cancel": 2, "prompts": 0, "prompt": 2, "resources": 0,
    "templates": 0, "read": 1,
}  # fmt: skip
MODES = {"legacy": "legacy", "auto": "auto", "modern": "2026-07-28"}
TIMEOUT_SECONDS = 30
USER = "Ada"
"""Who answers when a server asks."""


class Connected(Protocol):
    """A client of either SDK, once it is connected."""

    def facts(self) -> dict[str, Any]:
        """What it learnt by connecting."""

    async def ping(self) -> Any: ...
    async def tools(self) -> Any: ...
    async def call(self, name: str, arguments: dict[str, Any], progress: Any = None) -> Any: ...
    async def prompts(self) -> Any: ...
    async def prompt(self, name: str, arguments: dict[str, Any]) -> Any: ...
    async def resources(self) -> Any: ...
    async def templates(self) -> Any: ...
    async def read(self, uri: str) -> Any: ...


class Http:
    """Makes the HTTP clients of an SDK, and remembers the status of the last answer to a POST."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers = json.loads(os.environ.get("MCP_HEADERS", "{}"))
        if token := os.environ.get("MCP_TOKEN"):
            self.headers["authorization"] = f"Bearer {token}"

    def client(self, headers: dict[str, str] | None = None, timeout: Any = None, auth: Any = None, **_: Any) -> Any:
        made = create_mcp_http_client(headers=self.headers | (headers or {}), timeout=timeout, auth=auth)
        made.event_hooks = {"response": [self._remember]}
        return made

    async def _remember(self, response: Any) -> None:
        if response.request.method == "POST":
            self.status = response.status_code


Connect = Callable[[str, str, Http], AbstractAsyncContextManager[Connected]]
"""Connects to a URL in a mode of the SDK's."""


def main(connect: Connect) -> None:
    warnings.simplefilter("ignore", MCPDeprecationWarning)  # a test may ask for what an era no longer has
    url, era, actions = parse(sys.argv[1:])
    asyncio.run(run(connect, url, era, actions))


def parse(words: list[str]) -> tuple[str, str, list[list[str]]]:
    """Splits the command line into URL, era and actions, each with its arguments."""
    era = "auto"
    if "--era" in words:
        at = words.index("--era")
        era = words[at + 1] if at + 1 < len(words) else ""
        del words[at : at + 2]
    if not words or era not in MODES:
        sys.exit(USAGE)
    url, rest, actions = words[0], words[1:], []
    while rest:
        count = ARGUMENTS.get(rest[0])
        if count is None or len(rest) <= count:
            sys.exit(f"{USAGE}\nunknown action or missing argument: {' '.join(rest)}")
        actions.append(rest[: count + 1])
        rest = rest[count + 1 :]
    return url, era, actions


async def run(connect: Connect, url: str, era: str, actions: list[list[str]]) -> None:
    http, opened = Http(), False
    try:
        async with connect(url, MODES[era], http) as client:
            opened = True
            report(["connect"], client.facts())
            for action in actions:
                try:
                    report(action, await perform(client, action))
                except Exception as error:  # whatever goes wrong is the answer to this action
                    report_error(action, error, http.status)
    except Exception as error:
        if opened:
            raise
        report_error(["connect"], error, http.status)


async def perform(client: Connected, action: list[str]) -> Any:
    match action:
        case ["ping"]:
            return dump(await client.ping())
        case ["tools"]:
            return [tool.name for tool in await client.tools()]
        case ["call", name, arguments]:
            return dump(await client.call(name, json.loads(arguments)))
        case ["progress", name, arguments]:
            began = time.monotonic()
            seen: list[dict[str, float]] = []

            async def note(progress: float, _total: float | None, _message: str | None) -> None:
                seen.append({"progress": progress, "after": time.monotonic() - began})

            result = await client.call(name, json.loads(arguments), note)
            return dump(result) | {"progress": seen, "after": time.monotonic() - began}
        case ["cancel", name, arguments]:
            return await cancelled_at_its_first_progress(client, name, json.loads(arguments))
        case ["prompts"]:
            return [prompt.name for prompt in await client.prompts()]
        case ["prompt", name, arguments]:
            return dump(await client.prompt(name, json.loads(arguments)))
        case ["resources"]:
            return [str(resource.uri) for resource in await client.resources()]
        case ["templates"]:
            return [template.uri_template for template in await client.templates()]
        case ["read", uri]:
            return dump(await client.read(uri))


async def cancelled_at_its_first_progress(client: Connected, name: str, arguments: dict[str, Any]) -> Any:
    begun = asyncio.Event()

    async def note(*_: Any) -> None:
        begun.set()

    call = asyncio.create_task(client.call(name, arguments, note))
    first = asyncio.create_task(begun.wait())
    await asyncio.wait([call, first], return_when=asyncio.FIRST_COMPLETED)
    first.cancel()
    if call.done():
        return dump(call.result()) | {"cancelled": False}
    call.cancel()
    await asyncio.wait([call])
    return {"cancelled": call.cancelled()}


def dump(model: Any) -> Any:
    return model if isinstance(model, bool) else model.model_dump(mode="json", by_alias=True, exclude_none=True)


def report(action: list[str], result: Any) -> None:
    emit(action, ok=True, result=result)


def report_error(action: list[str], error: BaseException, http_status: int | None) -> None:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    code, data = (error.code, error.error.data) if isinstance(error, MCPError) else (None, None)
    message = str(error) or type(error).__name__
    emit(action, ok=False, error={"code": code, "message": message, "data": data, "http_status": http_status})


def emit(action: list[str], **fields: Any) -> None:
    target = {"target": action[1]} if len(action) > 1 else {}
    print(json.dumps({"action": action[0]} | target | fields), flush=True)
