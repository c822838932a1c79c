"""Clients that close their connection in the midst of a call, at real servers: what their call comes to.

In 2026-07-28 the closed stream is the cancellation; up to 2025-11-25 it is none, the server works on, and
the client asks for the rest with `Last-Event-ID`. The gateway stands between and must not turn one into the
other. Everything here is spoken by hand, since no SDK breaks off without saying something first.
"""

import http.client
import json
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stack import gateway, tools
from stack.preparing import PLUGIN
from stack.supervisor import POLL_SECONDS, Supervisor

from claims import Claims

SERVERS = tools.PEERS / "servers"
POLICY = '@id("everybody") permit (principal, action, resource);'
WITHIN_SECONDS = 60.0
ERAS = {"2025-11-25": ("ts-v1", "ts-v2", "python"), "2026-07-28": ("ts-v2", "python")}
"""The servers that speak each revision."""
LONG_CALL = {"name": "trigger-long-running-operation", "arguments": {"duration": 2, "steps": 8}}


@dataclass
class Peer:
    """A server, spoken to by hand, directly or through the gateway."""

    url: str
    version: str
    session: dict[str, str] = field(default_factory=dict)

    def open(self) -> None:
        if self.version == "2026-07-28":
            return
        info = {"name": "by-hand", "version": "1"}
        client = {"protocolVersion": self.version, "capabilities": {}, "clientInfo": info}
        with closing(self.connection()) as connection:
            response = self.send(connection, {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": client})
            response.read()
            self.session = {"mcp-session-id": response.headers["mcp-session-id"]}
        with closing(self.connection()) as connection:
            self.send(connection, {"jsonrpc": "2.0", "method": "notifications/initialized"}).read()

    def call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Calls a tool and stays until it is answered."""
        with closing(self.connection()) as connection:
            for event in events(self.send(connection, self.tool_call(1, name, arguments))):
                if event.message.get("id") == 1:
                    return event.message
        return {}

    def leave_call(self, name: str, arguments: dict[str, Any]) -> "Event":
        """Calls a tool and closes the connection at its first progress, which is returned."""
        with closing(self.connection()) as connection:
            for event in events(self.send(connection, self.tool_call(7, name, arguments))):
                if event.message.get("method") == "notifications/progress":
                    return event
        return Event()

    def resume(self, last: str) -> Iterator["Event"]:
        """What the server has to say after the event `last`, until it says no more for a while."""
        with suppress(TimeoutError), closing(self.connection(timeout=1.0)) as connection:
            connection.request("GET", self.path, headers=self.fields() | {"last-event-id": last})
            yield from events(connection.getresponse())

    def tool_call(self, number: int, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        meta: dict[str, Any] = {"progressToken": f"p{number}"}
        if self.version == "2026-07-28":
            meta["io.modelcontextprotocol/protocolVersion"] = self.version
            meta["io.modelcontextprotocol/clientCapabilities"] = {}
            meta["io.modelcontextprotocol/clientInfo"] = {"name": "by-hand", "version": "1"}
        params = {"name": name, "arguments": arguments, "_meta": meta}
        return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}

    def send(self, connection: http.client.HTTPConnection, message: dict[str, Any]) -> http.client.HTTPResponse:
        headers = self.fields() | {"content-type": "application/json"}
        if self.version == "2026-07-28":
            headers |= {"mcp-method": message["method"], "mcp-name": message["params"]["name"]}
        connection.request("POST", self.path, json.dumps(message).encode(), headers)
        return connection.getresponse()

    def fields(self) -> dict[str, str]:
        version = {} if self.version != "2026-07-28" and not self.session else {"mcp-protocol-version": self.version}
        return {"accept": "application/json, text/event-stream"} | version | self.session

    def connection(self, timeout: float = WITHIN_SECONDS) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(urllib.parse.urlsplit(self.url).netloc, timeout=timeout)

    @property
    def path(self) -> str:
        return urllib.parse.urlsplit(self.url).path


@dataclass
class Event:
    """One event of a stream."""

    id: str | None = None
    message: dict[str, Any] = field(default_factory=dict)


def events(response: http.client.HTTPResponse) -> Iterator[Event]:
    """The messages of an answer as they come; ends with it, or when nothing comes for the connection's timeout."""
    if "text/event-stream" not in (response.headers["content-type"] or ""):
        text = response.read()
        if text.startswith(b"{"):
            yield Event(message=json.loads(text))
        return
    name: str | None = None
    while line := next_line(response):
        field_name, _, value = line.decode().rstrip("\r\n").partition(":")
        if field_name == "id":
            name = value.strip()
        elif field_name == "data" and value.strip():
            yield Event(name, json.loads(value))


def next_line(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.readline()
    except TimeoutError:
        return b""


def play(supervisor: Supervisor, claims: Claims, home: Path) -> None:
    """Starts the servers and a gateway of their own, and leaves calls at each."""
    names = ("ts-v1", "ts-v2", "python", "everything")
    home.mkdir(parents=True, exist_ok=True)
    ports = dict(zip(names, gateway.free_ports(len(names)), strict=True))
    children = {}
    for name, port in ports.items():
        environment = {"PORT": str(port), "REQUEST_LOG": str(home / f"{name}.jsonl")}
        children[name] = supervisor.start(f"leave-{name}", command(name), environment, cwd=tools.PEERS)
    settings = gateway.Settings(PLUGIN, ports, POLICY, identity={"anonymous": True}, name="leave-envoy")
    envoy = gateway.start(supervisor, home, settings)
    for name, port in ports.items():
        path, status = ("mcp", None) if name == "everything" else ("ready", 200)
        supervisor.wait_until_answers(children[name], f"http://127.0.0.1:{port}/{path}", status=status)
    envoy.wait(supervisor)
    for version, servers in ERAS.items():
        for server in servers:
            direct = Peer(f"http://127.0.0.1:{ports[server]}/mcp", version)
            leaving_a_call(claims, server, direct, Peer(envoy.url(server), version))
    resuming_a_call(claims, Peer(envoy.url("everything"), "2025-11-25"))


def command(server: str) -> list[str]:
    match server:
        case "everything":
            return [str(tools.node()), "everything/server.mjs"]
        case "python":
            return [str(tools.python()), str(SERVERS / "python.py")]
        case _:
            return [str(tools.node()), str(SERVERS / f"{server}.mjs")]


def leaving_a_call(claims: Claims, server: str, direct: Peer, through: Peer) -> None:
    """What the server takes it for when the client goes, directly and through the gateway."""
    claims.begin(f"A client of {through.version} that leaves a call at {server}")
    taken = "cancelled" if through.version == "2026-07-28" else "not cancelled"
    for way, peer in (("directly", direct), ("through the gateway", through)):
        peer.open()
        key = {"key": f"{peer.version} {way}"}
        left = peer.leave_call("wait", key)
        claims.equal(f"{way}: it saw the call's progress", left.message.get("method"), "notifications/progress")
        answer = peer.call("was_cancelled", key)
        claims.equal(f"{way}: the server's call is {taken}", text(answer), taken)


def resuming_a_call(claims: Claims, peer: Peer) -> None:
    """The server of everything keeps its events; so the rest of a call can be had."""
    claims.begin(f"A client of {peer.version} that leaves a call and asks for the rest, through the gateway")
    peer.open()
    left = peer.leave_call(**LONG_CALL)
    claims.hold("it saw progress, in an event with an id", left.id and left.message.get("params"), left)
    steps = LONG_CALL["arguments"]["steps"]
    seen: list[Event] = []
    deadline = time.monotonic() + WITHIN_SECONDS
    while not answered(seen) and time.monotonic() < deadline:
        seen = list(peer.resume(left.id or ""))
        time.sleep(POLL_SECONDS)
    claims.hold("the server's call came to its end, and its answer to the client", answered(seen), seen)
    progress = [event.message["params"]["progress"] for event in seen if "progress" in event.message.get("params", {})]
    first = left.message.get("params", {}).get("progress", 0)
    claims.equal("with all that came between", progress, list(range(first + 1, steps + 1)))


def answered(seen: list[Event]) -> bool:
    return any("completed" in text(event.message) for event in seen if event.message.get("id") == 7)


def text(answer: dict[str, Any]) -> str:
    """The text of a tool's result."""
    return " ".join(part.get("text", "") for part in answer.get("result", {}).get("content", []))
