#!/usr/bin/env python3
"""Smuggling: requests that real servers run when they are sent directly, and that the gateway refuses.

    scripts/build && scripts/fetch && tests/smuggling/run.py

Every attempt goes to every server, and then to the same server through Envoy with the plugin. Servers say
which tools they ran. The table in docs/smuggling.md is made by the run; the last line is
`N passed, N failed`.
"""

import http.client
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from stack import gateway, tools
from stack.console import TARGET, StackError, fail, relative
from stack.preparing import PLUGIN
from stack.supervisor import Supervisor

from attempts import ATTEMPTS, Attempt, Call

HOME = TARGET / "smuggling"
TABLE = ROOT / "docs" / "smuggling.md"
PEERS = ROOT / "tests" / "peers" / "smuggling"
SERVERS = ("TypeScript v1", "TypeScript v2", "Python", "FastMCP")
POLICY = """
@id("everybody") permit (principal, action in [MCP::Action::"connect", MCP::Action::"call_tool"], resource);
@id("nobody-secret") forbid (principal, action in MCP::Action::"call_tool", resource) when { resource.name == "secret" };
"""


@dataclass
class Place:
    """A server, and the same server through the gateway."""

    label: str
    port: int
    gateway_port: int
    path: str

    def directly(self, attempt: Attempt) -> list[Call]:
        """What the server runs when the attempt is sent to it."""
        send(self.port, "/mcp", attempt)
        return self.ran()

    def through_the_gateway(self, attempt: Attempt) -> tuple[int, str, list[Call]]:
        """Status and reason that the gateway answers with, and what the server ran all the same."""
        status, body = send(self.gateway_port, self.path, attempt)
        return status, reason(body), self.ran()

    def ran(self) -> list[Call]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", "/ran")
        return [(name, arguments) for name, arguments in json.loads(connection.getresponse().read())]


def send(port: int, path: str, attempt: Attempt) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", path, body=attempt.body, headers=attempt.fields())
    answer = connection.getresponse()
    return answer.status, answer.read()


def reason(body: bytes) -> str:
    """Why the gateway refused: the reason of the error, or of one of the answers to a batch."""
    for answer in answers(body):
        if found := (answer.get("error", {}).get("data") or {}).get("reason"):
            return str(found)
    return ""


def answers(body: bytes) -> list[dict[str, Any]]:
    """The messages of a body: one, several, or those of an event stream."""
    lines = [line.removeprefix(b"data: ") for line in body.splitlines() if line.startswith(b"data: ")]
    try:
        found = [json.loads(part) for part in lines or [body]]
    except ValueError:
        return []
    return [answer for each in found for answer in (each if isinstance(each, list) else [each])]


def start(supervisor: Supervisor) -> list[Place]:
    ports = gateway.free_ports(len(SERVERS))
    commands = [
        [str(tools.node()), str(PEERS / "v1.mjs")],
        [str(tools.node()), str(PEERS / "v2.mjs")],
        [str(tools.python()), str(PEERS / "server.py")],
        [str(tools.fastmcp()), str(PEERS / "with_fastmcp.py")],
    ]
    names = [f"server{number}" for number in range(len(ports))]
    children = [
        supervisor.start(name, command, {"PORT": str(port)}, cwd=ROOT)
        for name, command, port in zip(names, commands, ports, strict=True)
    ]
    settings = gateway.Settings(
        PLUGIN,
        dict(zip(names, ports, strict=True)),
        POLICY,
        identity={"anonymous": True},
    )
    envoy = gateway.start(supervisor, HOME, settings)
    for child, port in zip(children, ports, strict=True):
        supervisor.wait_until_answers(child, f"http://127.0.0.1:{port}/ready", status=200)
    envoy.wait(supervisor)
    return [
        Place(label, port, envoy.port, f"/mcp/{name}") for label, port, name in zip(SERVERS, ports, names, strict=True)
    ]


@dataclass
class Row:
    """What became of one attempt."""

    attempt: Attempt
    ran_directly: list[str]
    refusals: set[str]
    problems: list[str]

    def line(self) -> str:
        by = ", ".join(self.ran_directly) or f"none of these: {self.attempt.nobody}"
        return f"| {self.attempt.name} | {by} | {', '.join(sorted(self.refusals))} |"


def play(places: list[Place], attempt: Attempt) -> Row:
    row = Row(attempt, [], set(), [])
    for place in places:
        if attempt.runs in place.directly(attempt):
            row.ran_directly.append(place.label)
        status, why, ran = place.through_the_gateway(attempt)
        row.refusals.add(f"{status} `{why}`" if why else f"{status} of the server")
        if forbidden := [call for call in ran if call == attempt.runs or call[0] != "echo"]:
            row.problems.append(f"{place.label} ran {forbidden} through the gateway")
        # A server that takes no batches refuses what is left of one.
        if not why and status < 400:
            row.problems.append(f"the gateway did not refuse it in front of {place.label} ({status})")
    if attempt.nobody and row.ran_directly:
        row.problems.append(f"{row.ran_directly} do run it: take `nobody` out")
    if not attempt.nobody and not row.ran_directly:
        row.problems.append("no server runs it, and no reason is given")
    return row


def written(rows: list[Row]) -> str:
    lines = [
        "# Smuggling",
        "",
        "Requests that mean one thing to a gateway that reads carelessly and another to the server behind it. Made by",
        "`scripts/test smuggling`: each is sent to real servers, which say what they ran, and then through Envoy with",
        "the plugin, where it must be refused and nothing of it may run. Everybody may call `echo` and `pay`, and nobody",
        "`secret`. The requests: [tests/smuggling/attempts.py](../tests/smuggling/attempts.py).",
        "",
        "| attempt | run directly by | the gateway's answer |",
        "|---|---|---|",
        *(row.line() for row in rows),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    passed = failed = 0
    try:
        if not PLUGIN.is_file():
            raise StackError(f"there is no {relative(PLUGIN)}; run scripts/build")
        with Supervisor(HOME) as supervisor:
            places = start(supervisor)
            rows = [play(places, attempt) for attempt in ATTEMPTS]
        for row in rows:
            print(f"{'FAILED' if row.problems else 'ok'}  {row.attempt.name}", flush=True)
            for problem in row.problems:
                print(f"        {problem}", flush=True)
        failed = sum(1 for row in rows if row.problems)
        passed = len(rows) - failed
        TABLE.write_text(written(rows))
    except StackError as error:
        fail(error)
        failed += 1
    print(f"\n{passed} passed, {failed} failed", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
