"""A command-line MCP client on the official Python SDK. See ../README.md for the actions and output."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import ElicitResult

import command


@dataclass
class Connected:
    client: Client

    def facts(self) -> dict[str, Any]:
        server = self.client.server_info
        return {"protocol": self.client.protocol_version, "server": server.name if server else None}

    async def ping(self) -> Any:
        return await self.client.send_ping()

    async def tools(self) -> Any:
        return (await self.client.list_tools()).tools

    async def call(self, name: str, arguments: dict[str, Any], progress: Any = None) -> Any:
        return await self.client.call_tool(name, arguments, progress_callback=progress)

    async def prompts(self) -> Any:
        return (await self.client.list_prompts()).prompts

    async def prompt(self, name: str, arguments: dict[str, Any]) -> Any:
        return await self.client.get_prompt(name, arguments)

    async def resources(self) -> Any:
        return (await self.client.list_resources()).resources

    async def templates(self) -> Any:
        return (await self.client.list_resource_templates()).resource_templates

    async def read(self, uri: str) -> Any:
        return await self.client.read_resource(uri)


@asynccontextmanager
async def connect(url: str, mode: str, http: command.Http) -> AsyncIterator[Connected]:
    async with http.client() as client:
        transport = streamable_http_client(url, http_client=client)
        async with Client(
            transport,
            mode=mode,
            read_timeout_seconds=command.TIMEOUT_SECONDS,
            cache=None,
            elicitation_callback=answer,
        ) as connected:
            yield Connected(connected)


async def answer(_context: Any, _params: Any) -> ElicitResult:
    return ElicitResult(action="accept", content={"name": command.USER})


command.main(connect)
