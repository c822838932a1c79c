"""A command-line MCP client on the official Python SDK. See ../README.md for the actions and output."""

import asyncio
import json
import os
import sys
import time
import warnings
from typing import Any

from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.exceptions import MCPDeprecationWarning

USAGE = "usage: client.py URL [--era legacy|auto|modern] ACTION [ARGUMENT...] ..."
ARGUMENTS = {
    "ping": 0, "tools": 0, "call": 2, "progress": 2, "prompts": 0, "prompt": 2, "resources": 0, "read": 1,
}  # fmt: skip
MODES = {"legacy": "legacy", "auto": "auto", "modern": "2026-07-28"}
TIMEOUT_SECONDS = 30


def main() -> None:
    warnings.simplefilter("ignore", MCPDeprecationWarning)  # a test may ask for what an era no longer has
    url, era, actions = parse(sys.argv[1:])
    asyncio.run(run(url, era, actions))


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


async def run(url: str, era: str, actions: list[list[str]]) -> None:
    last = {"http_status": None}

    async def remember(response: Any) -> None:
        if response.request.method == "POST":
            last["http_status"] = response.status_code

    headers = json.loads(os.environ.get("MCP_HEADERS", "{}"))
    if token := os.environ.get("MCP_TOKEN"):
        headers["authorization"] = f"Bearer {token}"
    http = create_mcp_http_client(headers=headers)
    http.event_hooks = {"response": [remember]}

    opened = False
    try:
        async with http:
            transport = streamable_http_client(url, http_client=http)
            async with Client(transport, mode=MODES[era], read_timeout_seconds=TIMEOUT_SECONDS, cache=None) as client:
                opened = True
                report(["connect"], {"protocol": client.protocol_version, "server": server_name(client)})
                for action in actions:
                    try:
                        report(action, await perform(client, action))
                    except Exception as error:  # whatever goes wrong is the answer to this action
                        report_error(action, error, last["http_status"])
    except Exception as error:
        if opened:
            raise
        report_error(["connect"], error, last["http_status"])


async def perform(client: Client, action: list[str]) -> Any:
    match action:
        case ["ping"]:
            return dump(await client.send_ping())
        case ["tools"]:
            return [tool.name for tool in (await client.list_tools()).tools]
        case ["call", name, arguments]:
            return dump(await client.call_tool(name, json.loads(arguments)))
        case ["progress", name, arguments]:
            began = time.monotonic()
            seen: list[dict[str, float]] = []

            async def note(progress: float, _total: float | None, _message: str | None) -> None:
                seen.append({"progress": progress, "after": time.monotonic() - began})

            result = await client.call_tool(name, json.loads(arguments), progress_callback=note)
            return dump(result) | {"progress": seen, "after": time.monotonic() - began}
        case ["prompts"]:
            return [prompt.name for prompt in (await client.list_prompts()).prompts]
        case ["prompt", name, arguments]:
            return dump(await client.get_prompt(name, json.loads(arguments)))
        case ["resources"]:
            return [str(resource.uri) for resource in (await client.list_resources()).resources]
        case ["read", uri]:
            return dump(await client.read_resource(uri))


def server_name(client: Client) -> str | None:
    return client.server_info.name if client.server_info else None


def dump(model: Any) -> Any:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


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


main()
