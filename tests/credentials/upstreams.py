"""The servers around the gateway that these tests bring themselves: an MCP server that knows which credentials
are good, a cluster that knows a service account, and a front of the vault that can be slow, talk nonsense or
too much."""

import http.client
import json
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from vault import OpenBao

HELD_SECONDS = 120.0
SERVICE_ACCOUNT_UID = "0b1c"
ANSWER_SECONDS = 60
HUGE = b'{"data":{"data":{"key":"' + b"x" * (10 << 20) + b'"}}}'


class Quiet(BaseHTTPRequestHandler):
    """Speaks HTTP/1.1 and logs nothing."""

    protocol_version = "HTTP/1.1"
    # Otherwise the body waits until the head is acknowledged, forty milliseconds later.
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def reply(self, status: int, body: bytes, content_type: str = "application/json", **fields: str) -> None:
        try:
            self.send_response(status)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(body)))
            for name, value in fields.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            self.close_connection = True


def serve(handler: type[BaseHTTPRequestHandler]) -> int:
    """Serves on loopback until the program ends; the port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_address[1])


@dataclass
class Seen:
    """A request that a server got."""

    at: float
    server: str
    headers: dict[str, str]


@dataclass
class McpServer:
    """One process for all servers: each has a path of its own, and a rule for what it accepts.

    The tool `show` answers with the header fields that the request came with, as servers do that are
    made for debugging.
    """

    log: Path
    accepts: dict[str, Callable[[dict[str, str]], bool]] = field(default_factory=dict)
    requests: list[Seen] = field(default_factory=list)
    port: int = 0

    def start(self) -> None:
        world = self

        class Handler(Quiet):
            def do_POST(self) -> None:
                world.answer(self)

        self.port = serve(Handler)

    def answer(self, request: Quiet) -> None:
        body = request.body()
        name = request.path.strip("/")
        headers = {key.lower(): value for key, value in request.headers.items()}
        self.requests.append(Seen(time.monotonic(), name, headers))
        with self.log.open("a") as log:
            log.write(f"{request.path} {json.dumps(headers)}\n{body.decode()}\n")
        message = json.loads(body)
        if not self.accepts[name](headers):
            request.reply(401, json.dumps({"error": "the credential is not accepted"}).encode())
            return
        if message.get("params", {}).get("name") == "show":
            content = json.dumps(headers)
            further = {"x_sent": headers.get("authorization") or headers.get("x-api-key") or ""}
        else:
            content, further = "done", {}
        result = {"content": [{"type": "text", "text": content}]}
        answer = {"jsonrpc": "2.0", "id": message.get("id"), "result": result}
        request.reply(200, json.dumps(answer).encode(), **further)

    def of(self, name: str) -> list[Seen]:
        return [seen for seen in list(self.requests) if seen.server == name]


@dataclass
class Kubernetes:
    """As much of a cluster as a vault asks when a service account logs in: whose token it is (TokenReview)."""

    token: str
    """The one that it knows, of the service account `toolgate` in the namespace `mcp`."""
    port: int = 0

    def start(self) -> None:
        known = self.token

        class Handler(Quiet):
            def do_POST(self) -> None:
                asked = json.loads(self.body())["spec"]
                status: dict[str, Any] = {"authenticated": asked["token"] == known}
                if status["authenticated"]:
                    user = {"username": "system:serviceaccount:mcp:toolgate", "uid": SERVICE_ACCOUNT_UID}
                    status |= {"user": user, "audiences": asked.get("audiences")}
                review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status}
                self.reply(201, json.dumps(review).encode())

        self.port = serve(Handler)


@dataclass
class Front:
    """Passes requests on to the vault, unless their path is one for which it was told otherwise."""

    vault: OpenBao
    log: Path
    modes: dict[str, str] = field(default_factory=dict)
    """What is done with paths that hold this: `hold`, `garbage`, `huge`, or `wait` until it is released."""
    release: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    def start(self) -> None:
        front = self

        class Handler(Quiet):
            def do_GET(self) -> None:
                front.answer(self)

            def do_POST(self) -> None:
                front.answer(self)

        self.port = serve(Handler)

    def answer(self, request: Quiet) -> None:
        body = request.body()
        mode = next((mode for part, mode in self.modes.items() if part in request.path), "pass")
        headers = {key: value for key, value in request.headers.items() if key.lower() != "connection"}
        with self.log.open("a") as log:
            log.write(f"{request.command} {request.path} {json.dumps(headers)}\n{body.decode()}\n")
        if mode == "hold":
            # Longer than the gateway waits; the connection ends when it gives up, or with the test.
            time.sleep(HELD_SECONDS)
            request.close_connection = True
        elif mode == "garbage":
            request.reply(200, b'{"data": {"da')
        elif mode == "huge":
            request.reply(200, HUGE)
        else:
            if mode == "wait":
                self.release.wait(HELD_SECONDS)
            trusted = ssl.create_default_context(cafile=self.vault.certificate)
            connection = http.client.HTTPSConnection("127.0.0.1", self.vault.port, timeout=ANSWER_SECONDS, context=trusted)
            try:
                connection.request(request.command, request.path, body, headers)
                answer = connection.getresponse()
                content = answer.read()
            except OSError:
                request.reply(502, b"{}")
                return
            finally:
                connection.close()
            with self.log.open("ab") as log:
                log.write(content + b"\n")
            request.reply(answer.status, content)
