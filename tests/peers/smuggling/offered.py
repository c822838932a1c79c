"""What the Python servers here offer, whichever library serves it: three tools, and what they were called with."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

ran: list[tuple[str, dict[str, str]]] = []


def offer_on(server: Any) -> None:
    """Adds the tools and the paths that the run asks to an `MCPServer` or a `FastMCP`."""
    for tool in (echo, secret, pay):
        server.tool()(tool)
    server.custom_route("/ready", ["GET"])(ready)
    server.custom_route("/ran", ["GET"])(take_ran)


def echo(message: Any = None) -> str:
    return remember("echo", {} if message is None else {"message": message})


def secret() -> str:
    return remember("secret", {})


def pay(amount: Any) -> str:
    return remember("pay", {"amount": amount})


def remember(name: str, arguments: dict[str, Any]) -> str:
    # As text, since JSON has no form for what some of them are.
    ran.append((name, {key: str(value) for key, value in arguments.items()}))
    return f"ran {name}"


async def ready(_request: Request) -> Response:
    return PlainTextResponse("ready")


async def take_ran(_request: Request) -> Response:
    taken = list(ran)
    ran.clear()
    return JSONResponse(taken)
