"""A server that is itself a federation of another make: FastMCP, with two of the servers mounted in it.

It has names of its own for what they have: `one_echo`, and `peer://one/about`. So names are
`mounted__one_echo` at the endpoint, and what policy says of a tool is said of that name.
"""

from pathlib import Path

from asking import LEGACY, MODERN, Checks, Endpoint, whole_list
from matrix import peers
from stack import gateway
from stack.console import heading
from stack.supervisor import Supervisor

HIDDEN = "one_secret"
POLICY = peers.POLICY + f"""
@id("no-mounted-secret") forbid (principal, action in MCP::Action::"call_tool", resource)
when {{ resource.name == "{HIDDEN}" }};
"""


def run(
    supervisor: Supervisor,
    home: Path,
    plugin: Path,
    ports: dict[str, int],
    programs: peers.Programs,
    token: str,
    checks: Checks,
) -> None:
    heading("A server that is itself a federation of another make")
    near, *far = (next(name for name in ports if name.startswith(kind)) for kind in ("ts-v2", "rmcp", "python"))
    urls = [f"http://127.0.0.1:{ports[name]}/mcp" for name in far]
    (port,) = gateway.free_ports(1)
    environment = {"PORT": str(port), "REQUEST_LOG": str(home / "mounted.jsonl")}
    environment["MOUNTED"] = f"one={urls[0]} two={urls[1]}"
    command = [str(programs.fastmcp), str(peers.SERVERS / "mounting.py")]
    server = supervisor.start("mounted", command, environment, cwd=peers.SERVERS)
    supervisor.wait_until_answers(server, f"http://127.0.0.1:{port}/ready", within=180, status=200)
    (home / "mounted").mkdir()
    more = {"federation": {"timeout_ms": 30_000, "ttl_seconds": 300}}
    servers = {near: ports[near], "mounted": port}
    settings = gateway.Settings(plugin, servers, POLICY, more=more, name="envoy-mounted")
    envoy = gateway.start(supervisor, home / "mounted", settings)
    envoy.wait(supervisor)

    client = Endpoint(envoy.port, token)
    names, left_out, answer = whole_list(client)
    wanted = {f"{near}__echo", "mounted__one_echo", "mounted__two_echo"}
    checks.that("its list goes into the one list", wanted <= set(names) and not left_out, left_out or answer)
    checks.that("without what policy hides of it", f"mounted__{HIDDEN}" not in names, names)
    for era in (MODERN, LEGACY):
        heard = [said(client, f"mounted__{name}_echo", era) for name in ("one", "two")]
        checks.that(f"calls of a {era} client reach the servers in it", heard == ["here", "here"], heard)
    unknown = client.ask("tools/call", {"name": f"mounted__{HIDDEN}"})
    checks.that("what policy hides of it is unknown", unknown.message.get("error", {}).get("code") == -32602, unknown)
    uri = "mounted+peer://one/about"
    result = client.ask("resources/read", {"uri": uri}).message.get("result", {})
    uris = [content.get("uri") for content in result.get("contents", [])]
    checks.that("a resource in it is read, and named, by the URI of the endpoint", uris == [uri], result)
    supervisor.stop("envoy-mounted")
    supervisor.stop("mounted")


def said(client: Endpoint, tool: str, era: str) -> object:
    answer = client.ask("tools/call", {"name": tool, "arguments": {"text": "here"}}, era=era)
    content = answer.message.get("result", {}).get("content", [])
    return content[0].get("text") if content else answer.message
