"""The same server with FastMCP.

Environment: PORT
"""

import os
from typing import Any

import uvicorn
from fastmcp import FastMCP
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

server = FastMCP("fastmcp")
ran: list[tuple[str, dict[str, str]]] = []


@server.tool
def echo(message: Any = None) -> str:
    return remember("echo", {} if message is None else {"message": message})


@server.tool
def secret() -> str:
    return remember("secret", {})


@server.tool
def pay(amount: Any) -> str:
    return remember("pay", {"amount": amount})


def remember(name: str, arguments: dict[str, Any]) -> str:
    # As text, since JSON has no form for what some of them are.
    ran.append((name, {key: str(value) for key, value in arguments.items()}))
    return f"ran {name}"


@server.custom_route("/ready", ["GET"])
async def ready(_request: Request) -> Response:
    return PlainTextResponse("ready")


@server.custom_route("/ran", ["GET"])
async def take_ran(_request: Request) -> Response:
    taken = list(ran)
    ran.clear()
    return JSONResponse(taken)


app = server.http_app(path="/mcp", json_response=True, stateless_http=True)
uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")
