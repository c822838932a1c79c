"""The same as login.mjs with the official Python SDK: login.py URL PERSON TOOL JSON."""

import asyncio
import json
import sys
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit, urlunsplit

import httpx2 as httpx
from mcp.client.auth import OAuthClientProvider
from mcp.client.session import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata

REDIRECT = "http://127.0.0.1:9/callback"


class Memory:
    """What a client keeps between logins."""

    def __init__(self) -> None:
        self.tokens = None
        self.client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens) -> None:
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client) -> None:
        self.client = client


class Browser:
    """Follows redirects up to the client's own address; the provider of the tests logs everybody in."""

    def __init__(self, person: str) -> None:
        self.person = person
        self.logins: list[dict] = []
        self.arrived: dict = {}

    async def open(self, url: str) -> None:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        self.logins.append(
            {"scope": asked.get("scope"), "resource": asked.get("resource"), "pkce": asked.get("code_challenge_method")}
        )
        parts = urlsplit(url)
        query = urlencode({**asked, "login_hint": self.person})
        url = urlunsplit(parts._replace(query=query))
        async with httpx.AsyncClient() as client:
            for _ in range(20):
                if url.startswith(REDIRECT):
                    found = parse_qs(urlsplit(url).query)
                    self.arrived = {name: values[0] for name, values in found.items()}
                    return
                answer = await client.get(url)
                if "location" not in answer.headers:
                    raise RuntimeError(f"{url} answered {answer.status_code}: {answer.text}")
                url = urljoin(url, answer.headers["location"])
        raise RuntimeError("too many redirects")


async def main(url: str, person: str, tool: str, arguments: str) -> dict:
    memory, browser = Memory(), Browser(person)

    async def callback():
        arrived = browser.arrived
        return AuthorizationCodeResult(code=arrived["code"], state=arrived.get("state"), iss=arrived.get("iss"))

    provider = OAuthClientProvider(
        server_url=url,
        client_metadata=OAuthClientMetadata(
            client_name="login test",
            redirect_uris=[REDIRECT],
            grant_types=["authorization_code", "refresh_token"],
            response_types=["code"],
            token_endpoint_auth_method="none",
        ),
        storage=memory,
        redirect_handler=browser.open,
        callback_handler=callback,
    )
    seen: dict = {"logins": browser.logins}
    async with httpx.AsyncClient(auth=provider, follow_redirects=True) as http:
        async with streamable_http_client(url, http_client=http) as streams:
            async with ClientSession(streams[0], streams[1]) as session:
                await session.initialize()
                seen["tools"] = [each.name for each in (await session.list_tools()).tools]
                result = await session.call_tool(tool, json.loads(arguments))
                seen["result"] = [block.model_dump(mode="json", exclude_none=True) for block in result.content]
    seen["scope"] = memory.tokens.scope
    seen["registered"] = memory.client is not None
    return seen


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*sys.argv[1:5]))))
