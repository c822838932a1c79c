"""`scripts/bench --federation`: what an endpoint of 2, 25 and 100 servers of 20 tools each costs in Envoy.

Three Envoys with one worker each stand in front of the same servers, which answer at once out of one
process: the first has 2 of them, the others 25 and 100. What is measured:

  * a call through the endpoint of all, and to the server's own path: CPU of Envoy for each, in slices that
    alternate, since the machine may do other things too;
  * a list of all tools that the worker remembers, and one that it does not: CPU, how long it takes, and how
    many requests it costs; the latter also with servers that take 100 ms, which is how parallel it is;
  * how much memory Envoy has taken for the lists.

    scripts/bench --federation            a few minutes; target/toolgate.wasm has to be there
    scripts/bench --federation --quick    under a minute

Standard library only.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import shutil
import socket
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from stack import gateway
from stack.console import TARGET, StackError, fail
from stack.supervisor import Supervisor

HOME = TARGET / "bench" / "federation"
PLUGIN = TARGET / "toolgate.wasm"
SIZES = (2, 25, 100)
TOOLS = 20
VERSION = "2026-07-28"
POLICY = '@id("all") permit (principal, action, resource);'
REMEMBERED_MS = 3_600_000
SLOW_SECONDS = 0.1
WIDTH = 8
"""Requests under way at the same time."""
META = {
    "io.modelcontextprotocol/protocolVersion": VERSION,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
}


# --- the servers -----------------------------------------------------------------------------------


def tool(number: int) -> dict[str, Any]:
    """A tool with a description and a schema of a usual size."""
    return {
        "name": f"tool-{number}",
        "title": "A tool of a bench",
        "description": "Does what its name says, for whoever asks, and nothing besides. " * 3,
        "inputSchema": {
            "type": "object",
            "properties": {
                "invoice": {"type": "string", "description": "number of an invoice"},
                "amount": {"type": "integer", "minimum": 1},
                "reason": {"type": "string"},
            },
            "required": ["invoice", "amount"],
        },
    }


@dataclass
class Serving:
    """How all servers answer."""

    ttl_ms: int = 0
    seconds: float = 0.0
    asked: int = 0

    def result(self, method: str) -> dict[str, Any]:
        cached = {"resultType": "complete", "ttlMs": self.ttl_ms, "cacheScope": "public"}
        match method:
            case "tools/list":
                return cached | {"tools": [tool(number) for number in range(TOOLS)]}
            case "server/discover":
                return cached | {"supportedVersions": [VERSION], "capabilities": {"tools": {}}}
            case _:
                return {"resultType": "complete", "content": [{"type": "text", "text": "refunded 40.00 EUR"}]}


class Server(asyncio.Protocol):
    """One connection: HTTP/1.1 with a content-length, as Envoy sends it."""

    def __init__(self, serving: Serving) -> None:
        self.serving = serving
        self.received = b""
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (body := self.message()) is not None:
            self.serving.asked += 1
            asked = json.loads(body)
            answer = {"jsonrpc": "2.0", "id": asked["id"], "result": self.serving.result(asked["method"])}
            text = json.dumps(answer).encode()
            head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n"
            if self.serving.seconds:
                asyncio.get_running_loop().call_later(self.serving.seconds, self.transport.write, head.encode() + text)
            else:
                self.transport.write(head.encode() + text)

    def message(self) -> bytes | None:
        head, found, rest = self.received.partition(b"\r\n\r\n")
        if not found:
            return None
        lines = head.lower().split(b"\r\n")
        length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:"))
        if len(rest) < length:
            return None
        self.received = rest[length:]
        return rest[:length]


def serve(sockets: list[socket.socket], control: Connection) -> None:
    """Runs all servers until the other end of `control` is gone; takes (ttl_ms, seconds), answers `asked`."""
    serving = Serving()

    def told() -> None:
        try:
            serving.ttl_ms, serving.seconds = control.recv()
        except EOFError:
            os._exit(0)
        control.send(serving.asked)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        for each in sockets:
            await loop.create_server(lambda: Server(serving), sock=each)
        loop.add_reader(control.fileno(), told)
        await loop.create_future()

    asyncio.run(run())


# --- asking ----------------------------------------------------------------------------------------


@dataclass
class Client:
    """Connections with one request, sent again and again."""

    port: int
    request: bytes
    streams: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        for _ in range(WIDTH):
            stream = socket.create_connection(("127.0.0.1", self.port))
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.streams.append(stream)

    def ask(self) -> bytes:
        """Asks once; the body of the answer."""
        self.streams[0].sendall(self.request)
        return self.answer(self.streams[0])

    def ask_all(self) -> None:
        """Asks on all connections at the same time."""
        for stream in self.streams:
            stream.sendall(self.request)
        for stream in self.streams:
            self.answer(stream)

    @staticmethod
    def answer(stream: socket.socket) -> bytes:
        received = b""
        while True:
            piece = stream.recv(1 << 20)
            if not piece:
                raise StackError("Envoy closed the connection")
            received += piece
            head, found, body = received.partition(b"\r\n\r\n")
            if not found:
                continue
            if not head.startswith(b"HTTP/1.1 200 "):
                raise StackError(f"not as expected: {received[:1000].decode(errors='replace')}")
            length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if not length:
                while not body.endswith(b"\r\n0\r\n\r\n"):
                    body += stream.recv(1 << 20)
                return unchunked(body)
            while len(body) < int(length[0].split(b":")[1]):
                body += stream.recv(1 << 20)
            return body


def unchunked(body: bytes) -> bytes:
    whole = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        if int(size, 16) == 0:
            return whole
        whole += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]


def request(path: str, method: str, params: dict[str, Any]) -> bytes:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params | {"_meta": META}}
    text = json.dumps(body)
    head = [
        f"POST {path} HTTP/1.1",
        "host: 127.0.0.1",
        "accept: application/json, text/event-stream",
        "content-type: application/json",
        f"mcp-protocol-version: {VERSION}",
        f"mcp-method: {method}",
        *([f"mcp-name: {params['name']}"] if "name" in params else []),
        f"content-length: {len(text)}",
    ]
    return ("\r\n".join(head) + "\r\n\r\n" + text).encode()


def call(path: str, name: str) -> bytes:
    return request(path, "tools/call", {"name": name, "arguments": {"invoice": "I-1001", "amount": 40}})


# --- measuring -------------------------------------------------------------------------------------


@dataclass
class Measured:
    """Of one Envoy, microseconds each."""

    direct: list[float] = field(default_factory=list)
    federated: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    warm_taken: list[float] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)
    cold_taken: list[float] = field(default_factory=list)
    cold_asked: int = 0
    slow_taken: list[float] = field(default_factory=list)
    memory_kib: int = 0


@dataclass
class Place:
    """An Envoy and clients of it."""

    size: int
    envoy: gateway.Gateway
    direct: Client
    federated: Client
    list: Client
    measured: Measured = field(default_factory=Measured)

    def cpu(self) -> float:
        """Microseconds of CPU that all threads of Envoy have had."""
        total = 0
        for task in Path(f"/proc/{self.envoy.child.process.pid}/task").iterdir():
            try:
                total += int((task / "schedstat").read_text().split()[0])
            except (OSError, IndexError):
                continue  # the thread has just ended
        return total / 1000

    def resident_kib(self) -> int:
        status = Path(f"/proc/{self.envoy.child.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1])

    def slice(self, client: Client, seconds: float) -> float:
        """CPU of one request in microseconds, over a slice of time."""
        count, cpu, began = 0, self.cpu(), time.perf_counter()
        while time.perf_counter() - began < seconds:
            client.ask_all()
            count += WIDTH
        return (self.cpu() - cpu) / count


def place(supervisor: Supervisor, ports: list[int], size: int) -> Place:
    names = {f"s-{number:03}": port for number, port in enumerate(ports[:size])}
    home = HOME / str(size)
    home.mkdir(parents=True)
    more = {"federation": {"timeout_ms": 10_000}}
    settings = gateway.Settings(PLUGIN, names, POLICY, identity={"anonymous": True}, more=more, name=f"envoy-{size}")
    envoy = gateway.start(supervisor, home, settings)
    envoy.wait(supervisor)
    last = list(names)[-1]
    clients = (
        Client(envoy.port, call(f"/mcp/{last}", "tool-7")),
        Client(envoy.port, call("/mcp", f"{last}__tool-7")),
        Client(envoy.port, request("/mcp", "tools/list", {})),
    )
    return Place(size, envoy, *clients)


def checked(body: bytes, what: Callable[[dict[str, Any]], bool]) -> None:
    """A number about the wrong thing is worse than none."""
    result = json.loads(body).get("result", {})
    if not what(result):
        raise StackError(f"not as expected: {body[:1000].decode(errors='replace')}")


def measure(places: list[Place], tell: Callable[[int, float], int], rounds: int, seconds: float) -> None:
    for each in places:
        checked(each.direct.ask(), lambda result: "content" in result)
        checked(each.federated.ask(), lambda result: "content" in result)
    tell(0, 0.0)
    for each in places:
        before = each.resident_kib()
        checked(each.list.ask(), lambda result: len(result["tools"]) == each.size * TOOLS and "_meta" in result)
        asked = tell(0, 0.0)
        each.list.ask()
        each.measured.cold_asked = tell(0, 0.0) - asked
        each.measured.memory_kib = -before
    for turn in range(max(3, rounds // 4)):
        for each in places[turn % 3 :] + places[: turn % 3]:
            cpu, began = each.cpu(), time.perf_counter()
            each.list.ask()
            each.measured.cold_taken.append((time.perf_counter() - began) * 1e6)
            each.measured.cold.append(each.cpu() - cpu)
    tell(0, SLOW_SECONDS)
    for each in places * 3:
        began = time.perf_counter()
        each.list.ask()
        each.measured.slow_taken.append((time.perf_counter() - began) * 1e6)
    tell(REMEMBERED_MS, 0.0)
    for each in places:
        each.list.ask()
        each.slice(each.federated, seconds)
        each.slice(each.direct, seconds)
    asked = tell(REMEMBERED_MS, 0.0)
    for each in places:
        each.list.ask()
    if tell(REMEMBERED_MS, 0.0) != asked:
        raise StackError("a list that should have been remembered was asked for")
    for turn in range(rounds):
        for each in places[turn % 3 :] + places[: turn % 3]:
            got = each.measured
            got.direct.append(each.slice(each.direct, seconds))
            got.federated.append(each.slice(each.federated, seconds))
            got.warm.append(each.slice(each.list, seconds))
            began = time.perf_counter()
            each.list.ask()
            got.warm_taken.append((time.perf_counter() - began) * 1e6)
    for each in places:
        each.measured.memory_kib += each.resident_kib()


def report(places: list[Place]) -> None:
    middle = statistics.median
    print(
        f"Medians; CPU of Envoy (one worker) for each request, {WIDTH} under way; time of one alone. Ratios hold on other machines, microseconds do not.\n\n"
        f"{'servers':>7}  {'call direct':>11} {'federated':>11} {'ratio':>6}   {'list warm':>11} {'taken':>9}"
        f"   {'list cold':>11} {'taken':>9} {'requests':>8} {'slow servers':>12}   {'memory':>9}"
    )
    for each in places:
        got = each.measured
        ratio = middle(one / other for one, other in zip(got.federated, got.direct, strict=True))
        print(
            f"{each.size:>7}  {middle(got.direct):>8.0f} µs {middle(got.federated):>8.0f} µs {ratio:>6.2f}   "
            f"{middle(got.warm) / 1000:>8.2f} ms {middle(got.warm_taken) / 1000:>6.1f} ms   "
            f"{middle(got.cold) / 1000:>8.2f} ms {middle(got.cold_taken) / 1000:>6.1f} ms {got.cold_asked:>8} "
            f"{middle(got.slow_taken) / 1000:>9.1f} ms   {got.memory_kib / 1024:>5.1f} MiB"
        )
    first, *_, last = places
    growth = middle(
        one / other for one, other in zip(last.measured.federated, first.measured.federated, strict=True)
    )
    print(f"\nA federated call with {last.size} servers costs {growth:.2f} times what it costs with {first.size}.")


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench --federation", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer and shorter slices: under a minute")
    given = parser.parse_args()
    if not PLUGIN.exists():
        raise StackError("target/toolgate.wasm is not there: scripts/build makes it")
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(parents=True)
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(max(SIZES))]
    ports = [each.getsockname()[1] for each in sockets]
    control, theirs = multiprocessing.Pipe()
    servers = multiprocessing.get_context("fork").Process(target=serve, args=(sockets, theirs), daemon=True)
    servers.start()
    theirs.close()

    def tell(ttl_ms: int, seconds: float) -> int:
        control.send((ttl_ms, seconds))
        return int(control.recv())

    with Supervisor(HOME / "logs") as supervisor:
        places = [place(supervisor, ports, size) for size in SIZES]
        measure(places, tell, *((8, 0.15) if given.quick else (40, 0.3)))
    servers.terminate()
    report(places)


if __name__ == "__main__":
    try:
        main()
    except StackError as error:
        fail(error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
