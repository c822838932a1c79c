"""The server on FastMCP, in both eras."""

import asyncio

from fastmcp import Context, FastMCP
from mcp_types import ElicitRequest, ElicitRequestFormParams, ElicitResult, InputRequiredResult
from pydantic import BaseModel

import serving

server = FastMCP("peer-fastmcp", version="1.0.0")


class Name(BaseModel):
    name: str


@server.tool(output_schema=None)
async def echo(text: str) -> str:
    """Says what it is told."""
    return text


@server.tool(output_schema=None)
async def add(a: int, b: int) -> str:
    """Adds two numbers."""
    return str(a + b)


@server.tool(output_schema=None)
async def secret() -> str:
    """Is not for everybody."""
    return "a secret"


@server.tool(output_schema=None)
async def work(context: Context) -> str:
    """Reports progress while it works."""
    for step in range(1, serving.STEPS + 1):
        await asyncio.sleep(serving.STEP_SECONDS)
        await context.report_progress(step, serving.STEPS)
    return "worked"


@server.tool(output_schema=None)
async def ask(context: Context) -> str | InputRequiredResult:
    """FastMCP has one way of asking for each era."""
    if context.request_context.protocol_version < "2026":
        result = await context.elicit("What is your name?", Name)
        return f"hello {result.data.name}" if result.action == "accept" else result.action
    answer = (context.input_responses or {}).get("who")
    if isinstance(answer, ElicitResult):
        return f"hello {answer.content['name']}" if answer.action == "accept" else answer.action
    params = ElicitRequestFormParams(message="What is your name?", requested_schema=Name.model_json_schema())
    return InputRequiredResult(input_requests={"who": ElicitRequest(params=params)})


@server.tool(output_schema=None)
async def wait(key: str, context: Context) -> str:
    """Waits until it is cancelled."""
    async with serving.noting_cancellation(key):
        await context.report_progress(1, serving.STEPS)
        await serving.wait()
    return "waited"


@server.tool(output_schema=None)
async def was_cancelled(key: str) -> str:
    """Tells whether a wait was cancelled."""
    return await serving.was_cancelled(key)


@server.prompt
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


serving.serve(server.http_app(path="/mcp"))
