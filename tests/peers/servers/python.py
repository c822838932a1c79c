"""The server on the official Python SDK, in both eras."""

import asyncio
from typing import Annotated

from mcp.server import MCPServer
from mcp.server.elicitation import AcceptedElicitation, ElicitationResult
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.resolve import Elicit, Resolve
from pydantic import BaseModel

import serving

server = MCPServer("peer-python", version="1.0.0")


class Name(BaseModel):
    name: str


async def ask_name() -> Elicit[Name]:
    return Elicit("What is your name?", Name)


@server.tool(structured_output=False)
async def echo(text: str) -> str:
    """Says what it is told."""
    return text


@server.tool(structured_output=False)
async def add(a: int, b: int) -> str:
    """Adds two numbers."""
    return str(a + b)


@server.tool(structured_output=False)
async def secret() -> str:
    """Is not for everybody."""
    return "a secret"


@server.tool(structured_output=False)
async def work(context: Context) -> str:
    """Reports progress while it works."""
    for step in range(1, serving.STEPS + 1):
        await asyncio.sleep(serving.STEP_SECONDS)
        await context.report_progress(step, serving.STEPS)
    return "worked"


@server.tool(structured_output=False)
async def ask(answer: Annotated[ElicitationResult[Name], Resolve(ask_name)]) -> str:
    """Asks the user for a name."""
    return f"hello {answer.data.name}" if isinstance(answer, AcceptedElicitation) else answer.action


@server.tool(structured_output=False)
async def wait(key: str, context: Context) -> str:
    """Waits until it is cancelled."""
    async with serving.noting_cancellation(key):
        await context.report_progress(1, serving.STEPS)
        await serving.wait()
    return "waited"


@server.tool(structured_output=False)
async def was_cancelled(key: str) -> str:
    """Tells whether a wait was cancelled."""
    return await serving.was_cancelled(key)


@server.prompt()
def greeting(name: str) -> str:
    """Asks for a greeting."""
    return f"Greet {name}."


@server.prompt("secret")
def secret_prompt() -> str:
    """Is not for everybody."""
    return "a secret"


@server.resource("peer://about", name="about", mime_type="text/plain")
def about() -> str:
    return "A peer."


@server.resource("peer://secret", name="secret", mime_type="text/plain")
def secret_resource() -> str:
    return "a secret"


@server.resource("peer://items/{id}", name="item", mime_type="text/plain")
def item(id: str) -> str:
    return f"Item {id}."


@server.resource("peer://secrets/{id}", name="secrets", mime_type="text/plain")
def secrets(id: str) -> str:
    return "a secret"


serving.serve(server.streamable_http_app())
