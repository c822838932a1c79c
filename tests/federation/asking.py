"""A client that asks an endpoint one thing after the other, and the counting of what holds."""

import http.client
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stack.console import say

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
WHOLE_WITHIN_SECONDS = 240.0
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "federation", "version": "1"},
}


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    message: dict[str, Any]
    seconds: float


@dataclass
class Endpoint:
    """A client of one Envoy's endpoint, on a connection of its own."""

    port: int
    token: str
    session: str | None = None
    path: str = "/mcp"
    last_id: int = 0
    connection: http.client.HTTPConnection | None = None

    def ask(self, method: str, params: dict[str, Any] | None = None, *, era: str = MODERN, timeout: float = 300) -> Answer:
        self.last_id += 1
        params = dict(params or {})
        headers = {
            "authorization": f"Bearer {self.token}",
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
        }
        if era == MODERN:
            params["_meta"] = META | params.get("_meta", {})
            headers |= {"mcp-protocol-version": MODERN, "mcp-method": method}
            if name := params.get("name") or params.get("uri"):
                headers["mcp-name"] = name
        elif method != "initialize":
            headers["mcp-protocol-version"] = LEGACY
            if self.session:
                headers["mcp-session-id"] = self.session
        body = {"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params}
        began = time.monotonic()
        if self.connection is None:
            self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            self.connection.request("POST", self.path, json.dumps(body), headers)
            response = self.connection.getresponse()
            text = response.read().decode()
        except OSError:
            self.connection.close()
            self.connection = None
            raise
        message = last_message(text, self.last_id)
        seconds = time.monotonic() - began
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, message, seconds)

    def tools(self, era: str = MODERN) -> tuple[list[str], dict[str, str], Answer]:
        """The names of the tools, the servers that are left out, and the answer."""
        answer = self.ask("tools/list", era=era)
        result = answer.message.get("result", {})
        left_out = result.get("_meta", {}).get("dev.toolgate/leftOut", [])
        names = [tool["name"] for tool in result.get("tools", [])]
        return names, {note["server"]: note["reason"] for note in left_out}, answer

    def echo(self, server: str, text: str, era: str = MODERN) -> str | None:
        """What the tool `echo` of a server says; None if it is not heard."""
        answer = self.ask("tools/call", {"name": f"{server}__echo", "arguments": {"text": text}}, era=era)
        content = answer.message.get("result", {}).get("content", [])
        return content[0].get("text") if answer.status == 200 and content else None


def last_message(text: str, wanted: int) -> dict[str, Any]:
    """The answer in a body that is JSON or an event stream."""
    texts = [text]
    if not text.lstrip().startswith("{"):
        texts = [line.removeprefix("data:") for line in text.splitlines() if line.startswith("data:")]
    for each in reversed(texts):
        try:
            message = json.loads(each)
        except ValueError:
            continue
        if isinstance(message, dict) and "method" not in message and message.get("id") in (wanted, None):
            return message
    return {}


def whole_list(client: Endpoint, era: str = MODERN) -> tuple[list[str], dict[str, str], Answer]:
    """A list of which no server is left out. The first question to a server that has just started may take it
    longer than the limit."""
    listed = client.tools(era)
    until = time.monotonic() + WHOLE_WITHIN_SECONDS
    while listed[1] and time.monotonic() < until:
        threading.Event().wait(0.2)
        listed = client.tools(era)
    return listed


@dataclass
class Checks:
    """Counts what holds and says what does not."""

    passed: int = 0
    failed: int = 0

    def that(self, claim: str, holds: bool, otherwise: object = "") -> None:
        self.passed += holds
        self.failed += not holds
        say(f"{'ok    ' if holds else 'FAILED'} {claim}" + ("" if holds else f": {otherwise}"))


def settled(what: Callable[[], bool], within: float) -> bool:
    """Whether something becomes true in time."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        if what():
            return True
        threading.Event().wait(0.2)
    return what()
