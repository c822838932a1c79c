"""The clients and the servers: which there are, how a server is started and how a client is run."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stack import gateway, tools
from stack.console import StackError
from stack.supervisor import POLL_SECONDS, Supervisor

from matrix.features import Seen

CLIENT_SECONDS = 300
SETTLED_WITHIN_SECONDS = 2.0
CLIENTS = tools.PEERS / "clients"
SERVERS = tools.PEERS / "servers"

# What is called "secret" is there, and not for this user.
POLICY = """
@id("everything") permit (principal in MCP::Group::"finance", action, resource);
@id("no-secret-tool") forbid (principal, action in MCP::Action::"call_tool", resource)
when { resource.name == "secret" };
@id("no-secret-prompt") forbid (principal, action == MCP::Action::"get_prompt", resource)
when { resource.name == "secret" };
@id("no-secret-resource") forbid (principal, action == MCP::Action::"read_resource", resource)
when { resource.uri like "peer://secret*" };
"""
USER = "alice"
RUN = "x-peer-run"
"""The header that names a run, so that its requests can be told from those of others."""


@dataclass
class Programs:
    """What runs the peers."""

    python: Path
    node: Path
    fastmcp: Path
    rmcp: Path

    @classmethod
    def fetched(cls) -> "Programs":
        tools.inspector()
        return cls(tools.python(), tools.node(), tools.fastmcp(), tools.rmcp())


@dataclass(frozen=True)
class Server:
    """A server, by the name it has at the gateway."""

    name: str
    title: str
    package: str

    def command(self, programs: Programs) -> list[str]:
        match self.name:
            case "ts-v1" | "ts-v2":
                return [str(programs.node), str(SERVERS / f"{self.name}.mjs")]
            case "python":
                return [str(programs.python), str(SERVERS / "python.py")]
            case "fastmcp":
                return [str(programs.fastmcp), str(SERVERS / "with_fastmcp.py")]
            case _:
                return [str(programs.rmcp), "server"]


@dataclass(frozen=True)
class Client:
    """A client, and the eras it can be told to speak."""

    name: str
    title: str
    package: str
    eras: tuple[str, ...] = ("legacy", "modern")

    def command(self, programs: Programs) -> list[str]:
        match self.name:
            case "ts-v1" | "ts-v2":
                return [str(programs.node), str(CLIENTS / f"client-{self.name.removeprefix('ts-')}.mjs")]
            case "inspector":
                return [str(programs.node), str(CLIENTS / "inspector.mjs")]
            case "python":
                return [str(programs.python), str(CLIENTS / "client.py")]
            case "fastmcp":
                return [str(programs.fastmcp), str(CLIENTS / "with_fastmcp.py")]
            case _:
                return [str(programs.rmcp), "client"]


ALL_SERVERS = (
    Server("ts-v1", "TypeScript SDK v1", "@modelcontextprotocol/sdk"),
    Server("ts-v2", "TypeScript SDK v2", "@modelcontextprotocol/server"),
    Server("python", "Python SDK", "mcp"),
    Server("fastmcp", "FastMCP", "fastmcp"),
    Server("rmcp", "Rust SDK", "rmcp"),
)
ALL_CLIENTS = (
    Client("ts-v1", "TypeScript SDK v1", "@modelcontextprotocol/sdk", eras=("legacy",)),
    Client("ts-v2", "TypeScript SDK v2", "@modelcontextprotocol/client"),
    Client("python", "Python SDK", "mcp"),
    Client("fastmcp", "FastMCP", "fastmcp"),
    Client("rmcp", "Rust SDK", "rmcp"),
    Client("inspector", "Inspector, command line", "@modelcontextprotocol/inspector"),
)


@dataclass
class Place:
    """The servers as they run, directly and behind the gateway."""

    programs: Programs
    home: Path
    ports: dict[str, int]
    gateway: gateway.Gateway
    token: str
    runs: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(
        self, client: Client, era: str, server: Server, wanted: Sequence[Sequence[str]], *, through_gateway: bool
    ) -> Seen:
        """Runs a client with these actions, `{run}` in them standing for the name of this run.

        A client that does not come to its end has shown nothing: that is an error of the test's.
        """
        with self.lock:
            self.runs += 1
            run = f"run-{self.runs}"
        url = self.gateway.url(server.name) if through_gateway else f"http://127.0.0.1:{self.ports[server.name]}/mcp"
        words = [word.replace("{run}", run) for action in wanted for word in action]
        seen = Seen(era, through_gateway)
        home = self.home / "inspector" / run
        home.mkdir(parents=True)
        environment = {
            "HOME": str(home),  # where the Inspector keeps its catalogue
            "MCP_TOKEN": self.token if through_gateway else "",
            "MCP_HEADERS": json.dumps({RUN: run}),
        }
        try:
            ended = subprocess.run(
                [*client.command(self.programs), url, "--era", era, *words],
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=CLIENT_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise StackError(f"{run} did not end within {CLIENT_SECONDS} s: {' '.join(error.cmd)}") from error
        if ended.returncode != 0:
            raise StackError(f"{run} ended with {ended.returncode}: {ended.stderr.strip()[-1000:]}")
        for line in map(json.loads, ended.stdout.splitlines()):
            seen.lines[line["action"], line.get("target")] = line
        seen.requests = self._requests(server, run, until_ended=era == "legacy")
        return seen

    def _requests(self, server: Server, run: str, *, until_ended: bool) -> list[dict[str, object]]:
        """What the server answered. A client may be gone before the server has written down the last of it."""
        deadline = time.monotonic() + SETTLED_WITHIN_SECONDS
        while True:
            lines = map(json.loads, (self.home / f"{server.name}.jsonl").read_text().splitlines())
            mine = [line for line in lines if line["run"] == run]
            ended = any(line["method"] == "DELETE" for line in mine)
            if ended or not until_ended or time.monotonic() > deadline:
                return mine
            time.sleep(POLL_SECONDS)


def start(supervisor: Supervisor, home: Path, plugin: Path, servers: Sequence[Server]) -> Place:
    """Starts the servers and Envoy; returns once all of them answer."""
    programs = Programs.fetched()
    ports = dict(zip((server.name for server in servers), gateway.free_ports(len(servers)), strict=True))
    children = {}
    for server in servers:
        log = home / f"{server.name}.jsonl"
        log.touch()
        environment = {"PORT": str(ports[server.name]), "REQUEST_LOG": str(log)}
        children[server.name] = supervisor.start(server.name, server.command(programs), environment, cwd=SERVERS)
    settings = gateway.Settings(plugin, ports, POLICY, forward_headers=(RUN,))
    envoy = gateway.start(supervisor, home, settings)
    for name, port in ports.items():
        supervisor.wait_until_answers(children[name], f"http://127.0.0.1:{port}/ready", status=200)
    envoy.wait(supervisor)
    return Place(programs, home, ports, envoy, token(programs))


def token(programs: Programs) -> str:
    command = [str(programs.python), str(Path(gateway.__file__).with_name("people.py")), USER]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise StackError(f"the token could not be signed:\n{answer.stderr}")
    return str(json.loads(answer.stdout)[USER])
