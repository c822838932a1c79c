"""A command-line MCP client on FastMCP. See ../README.md for the actions and output."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport

import command


@dataclass
class Connected:
    client: Client[Any]

    def facts(self) -> dict[str, Any]:
        server = self.client.server_info
        return {"protocol": self.client.protocol_version, "server": server.name if server else None}

    async def ping(self) -> Any:
        return await self.client.ping()

    async def tools(self) -> Any:
        return await self.client.list_tools()

    async def call(self, name: str, arguments: dict[str, Any], progress: Any = None) -> Any:
        return await self.client.call_tool_mcp(name, arguments, progress_handler=progress)

    async def prompts(self) -> Any:
        return await self.client.list_prompts()

    async def prompt(self, name: str, arguments: dict[str, Any]) -> Any:
        return await self.client.get_prompt(name, arguments)

    async def resources(self) -> Any:
        return await self.client.list_resources()

    async def templates(self) -> Any:
        return await self.client.list_resource_templates()

    async def read(self, uri: str) -> Any:
        return await self.client.read_resource_mcp(uri)


@asynccontextmanager
async def connect(url: str, mode: str, http: command.Http) -> AsyncIterator[Connected]:
    transport = StreamableHttpTransport(url, httpx_client_factory=http.client)
    client = Client(
        transport, mode=mode, timeout=command.TIMEOUT_SECONDS, cache=False, elicitation_handler=answer
    )
    async with client:
        yield Connected(client)


async def answer(_message: str, _type: Any, _params: Any, _context: Any) -> dict[str, str]:
    return {"name": command.USER}


command.main(connect)
