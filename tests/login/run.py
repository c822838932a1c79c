#!/usr/bin/env python3
"""Login as a person has it: three official clients, each given the URL of a server and nothing else.

    scripts/build && scripts/fetch envoy python node && target/tools/python/bin/python tests/login/run.py

Envoy with the plugin (tests/login/envoy.yaml), two MCP servers, and `oidc-provider` as the identity
provider. The clients discover it, register, log in with PKCE, call, and log in once more for a call that
needs another scope. Every check is a claim that is printed as it holds or fails; the last line is
`N passed, N failed`. What was run last is under target/login.
"""

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests" / "clients")]

import ways
from claims import Claims
from stack import gateway, tools
from stack.console import TARGET, StackError, relative
from stack.preparing import PLUGIN
from stack.supervisor import Supervisor, require_free_ports

HOME = TARGET / "login"
PEERS = tools.PEERS
IDP = PEERS / "idp"
BROWSER = PEERS / "browser"
INSPECTOR_PORT = 6274
GATEWAY = "http://127.0.0.1:10000"
PROVIDER = "http://127.0.0.1:3010"
BILLING = f"{GATEWAY}/mcp/billing"
EVERYTHING = f"{GATEWAY}/mcp/everything"
CLIENT_SECONDS = 120
REFUND = ("refund", '{"invoice":"INV-1","amount":40}')
PORTS = {10000: "the gateway", 9901: "Envoy's admin interface", 3001: "everything", 3002: "billing", 3010: "the provider", INSPECTOR_PORT: "the inspector"} | ways.PORTS


class World:
    """The processes, and what the clients print."""

    def __init__(self, supervisor: Supervisor, python: Path, node: Path, envoy: list[str]) -> None:
        self.supervisor, self.python, self.node, self.envoy = supervisor, python, node, envoy
        self.log = HOME / "billing-requests.jsonl"
        self.access = HOME / "access.jsonl"
        self.access_of_ways = HOME / "access-ways.jsonl"

    def start(self) -> None:
        key = secrets.token_hex(24)
        node, wait = str(self.node), self.supervisor.wait_until_answers
        provider = self.supervisor.start("provider", [node, "server.mjs"], {"PORT": "3010"}, cwd=IDP)
        everything = self.supervisor.start(
            "everything", [node, "everything/server.mjs"], {"PORT": "3001"}, cwd=PEERS
        )
        variables = {"PORT": "3002", "BILLING_KEY": key, "REQUEST_LOG": str(self.log)}
        billing = self.supervisor.start("billing", [node, "billing/server.mjs"], variables, cwd=PEERS)
        wait(provider, f"{PROVIDER}/jwks", status=200)
        wait(everything, "http://127.0.0.1:3001/mcp")
        wait(billing, "http://127.0.0.1:3002/ready")
        further = ["--concurrency", "2", "--disable-hot-restart", "--log-level", "warning"]
        further += ["--file-flush-interval-msec", "50", "--config-path"]
        variables = {"TOOLGATE_BILLING_KEY": key, "TOOLGATE_SESSION_KEY": secrets.token_urlsafe(32)}
        config = ROOT / "tests" / "login" / "envoy.yaml"
        envoy = self.supervisor.start("envoy", [*self.envoy, *further, str(config)], variables, cwd=ROOT, stdout=self.access)
        wait(envoy, "http://127.0.0.1:9901/ready", within=120, status=200)
        quirks = {"PORT": "3011", "QUIRKS": "1", "DEFAULT_RESOURCE": f"http://127.0.0.1:{ways.PROXIED}"}
        wait(self.supervisor.start("quirky", [node, "server.mjs"], quirks, cwd=IDP), f"{ways.QUIRKY}/jwks", status=200)
        opaque = {"PORT": "3012", "TOKEN_FORMAT": "opaque", "INTROSPECTION_SECRET": ways.INTROSPECTION_SECRET}
        wait(self.supervisor.start("opaque", [node, "server.mjs"], opaque, cwd=IDP), f"{ways.OPAQUE}/jwks", status=200)
        ways.make_certificates(HOME)
        written = HOME / "ways.json"
        written.write_text(json.dumps(ways.configuration(gateway.yaml(config.read_text()), HOME), indent=2))
        command = [*self.envoy, "--base-id", "7", *further, str(written)]
        second = self.supervisor.start("envoy-ways", command, variables, cwd=ROOT, stdout=self.access_of_ways)
        wait(second, f"http://127.0.0.1:{ways.ADMIN}/ready", within=120, status=200)

    def login(self, client: str, url: str, person: str, tool: str, arguments: str) -> dict[str, Any]:
        """What a client did that was given the URL and nothing else."""
        if client == "python":
            command = [str(self.python), str(PEERS / "clients" / "login.py")]
        else:
            command = [str(self.node), str(PEERS / "clients" / "login.mjs"), client]
        command += [url, person, tool, arguments]
        environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=CLIENT_SECONDS, check=False, cwd=PEERS, env=environment
        )
        with (HOME / "clients.log").open("a") as log:
            log.write(f"{client} {person} {url}: {done.stdout}{done.stderr}\n")
        lines = done.stdout.strip().splitlines()
        return json.loads(lines[-1]) if lines else {"error": done.stderr[-1500:]}

    def tell_provider(self, path: str, body: str = "") -> str:
        request = urllib.request.Request(PROVIDER + path, data=body.encode(), method="POST")
        return open_locally(request)[1]


def open_locally(request: urllib.request.Request | str) -> tuple[int, str, Any]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=ways.ANSWER_SECONDS) as answer:
            return answer.status, answer.read().decode(), answer.headers
    except urllib.error.HTTPError as answer:
        return answer.code, answer.read().decode(), answer.headers


def main() -> None:
    claims = Claims()
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(parents=True)
    with claims.whole_run():
        if not PLUGIN.is_file():
            raise StackError(f"there is no {relative(PLUGIN)}; run scripts/build")
        require_free_ports(PORTS)
        python, node, envoy = tools.python(), tools.node(), tools.envoy()
        tools.install_packages(IDP)
        with Supervisor(HOME) as supervisor:
            world = World(supervisor, python, node, list(envoy) if not isinstance(envoy, Path) else [str(envoy)])
            world.start()
            the_documents(claims)
            for client in ("v1", "v2", "python"):
                alice_steps_up(world, claims, client)
                bob_may_not(world, claims, client)
            for algorithm in ("RS256", "ES256", "EdDSA"):
                another_algorithm(world, claims, algorithm)
            keys_rotate(world, claims)
            for client in ("v1", "v2", "python"):
                by_way_of_the_gateway(world, claims, client)
            opaque_tokens(world, claims)
            ways.bound_to_a_key(claims, GATEWAY)
            ways.bound_to_a_certificate(claims, HOME, GATEWAY)
            ways.authenticated_by_envoy(claims, HOME)
            the_inspector(world, claims)
            nothing_leaked(world, claims)
            world.supervisor.stop("envoy-ways")
            ways.records_of_the_ways(claims, world.access_of_ways)


def the_documents(claims: Claims) -> None:
    claims.begin("what a client finds that knows the URL")
    status, _, headers = open_locally(urllib.request.Request(BILLING, data=b"{}", method="POST"))
    challenge = headers["www-authenticate"] or ""
    claims.equal("a call without a token gets 401", status, 401)
    document = f"{GATEWAY}/.well-known/oauth-protected-resource/mcp/billing"
    claims.hold("the challenge names the endpoint's document", f'resource_metadata="{document}"' in challenge, challenge)
    status, body, headers = open_locally(document)
    claims.equal("the document is there without a token", status, 200)
    claims.equal("every page may read it", headers["access-control-allow-origin"], "*")
    claims.equal("it names this resource exactly", json.loads(body)["resource"], BILLING)
    claims.equal("it names the provider", json.loads(body)["authorization_servers"], [PROVIDER])


def alice_steps_up(world: World, claims: Claims, client: str) -> None:
    claims.begin(f"alice at billing, with the client {client}")
    seen = world.login(client, BILLING, "alice", *REFUND)
    logins = seen.get("logins", [])
    claims.hold("the client discovered the provider and registered there", seen.get("registered"), seen)
    claims.equal("it logged in twice: for the server, and for the refund", len(logins), 2)
    claims.hold("both times with PKCE", all(login["pkce"] == "S256" for login in logins), logins)
    claims.hold("and for this resource", all(login["resource"] == BILLING for login in logins), logins)
    scopes = [set((login["scope"] or "").split()) for login in logins] + [set(), set()]
    claims.hold("first with the scope of the server alone", "mcp:tools" in scopes[0] and "billing:refund" not in scopes[0], logins)
    claims.hold("then with both", {"mcp:tools", "billing:refund"} <= scopes[1], logins)
    claims.hold("the tools were listed", "refund" in seen.get("tools", []), seen)
    claims.hold("the refund was made", seen.get("result"), seen)


def bob_may_not(world: World, claims: Claims, client: str) -> None:
    claims.begin(f"bob, who is not in finance, with the client {client}")
    seen = world.login(client, BILLING, "bob", *REFUND)
    claims.hold("billing is not there for him, though he can log in", "result" not in seen, seen)
    seen = world.login(client, EVERYTHING, "bob", "echo", '{"message":"hello"}')
    claims.hold("everything is", "hello" in json.dumps(seen.get("result", "")), seen)


def another_algorithm(world: World, claims: Claims, algorithm: str) -> None:
    claims.begin(f"tokens signed with {algorithm}")
    world.tell_provider("/test/algorithm", algorithm)
    seen = world.login("v2", EVERYTHING, "bob", "echo", '{"message":"signed"}')
    claims.hold("are accepted", "signed" in json.dumps(seen.get("result", "")), seen)


def keys_rotate(world: World, claims: Claims) -> None:
    claims.begin("the provider rotates its keys in the middle of the run")
    kid = world.tell_provider("/test/rotate")
    seen = world.login("v2", EVERYTHING, "bob", "echo", '{"message":"rotated"}')
    claims.hold(f"a token of the new key {kid} is accepted at once", "rotated" in json.dumps(seen.get("result", "")), seen)


def by_way_of_the_gateway(world: World, claims: Claims, client: str) -> None:
    claims.begin(f"a provider that refuses `resource` and registers nobody, with the client {client}")
    url = f"http://127.0.0.1:{ways.PROXIED}/mcp/billing"
    seen = world.login(client, url, "alice", *REFUND)
    logins = seen.get("logins", [])
    claims.hold("the client registered all the same", seen.get("registered"), seen)
    claims.equal("it sent `resource`, as it must", [login["resource"] for login in logins], [url, url])
    claims.hold("and after both logins the refund was made", seen.get("result"), seen)


def opaque_tokens(world: World, claims: Claims) -> None:
    claims.begin("opaque tokens, which the provider is asked about")
    url = f"http://127.0.0.1:{ways.INTROSPECTED}/mcp/billing"
    seen = world.login("v2", url, "alice", *REFUND)
    claims.hold("work, and after a second login for what needs a scope", seen.get("result"), seen)
    token = seen.get("token", "")
    claims.hold("and are no JWTs", token and "." not in token, seen)
    status, _, body = ways.ask(url, ways.INITIALIZE, {"authorization": f"Bearer {token}"})
    claims.hold("the token works by itself", status == 200 and "serverInfo" in body, (status, body))
    form = f"token={token}&client_id={seen.get('client')}"
    claims.equal("the provider takes it back", ways.ask(f"{ways.OPAQUE}/token/revocation", form)[0], 200)
    refused = ways.until(lambda: ways.ask(url, ways.INITIALIZE, {"authorization": f"Bearer {token}"})[0], 401)
    claims.hold("and it is refused as soon as what was remembered is old", refused)


def the_inspector(world: World, claims: Claims) -> None:
    claims.begin("MCP Inspector in a browser, as a person uses it")
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    if (chromium := next(filter(None, found), None)) is None:
        print("   skipped: there is no Chromium on PATH; on Debian: apt install chromium", flush=True)
        return
    tools.install_packages(BROWSER)
    launcher = tools.inspector()
    servers = HOME / "inspector-servers.json"
    servers.write_text(json.dumps({"mcpServers": {"billing": {"type": "streamable-http", "url": BILLING}}}))
    variables = {"CLIENT_PORT": str(INSPECTOR_PORT), "HOST": "127.0.0.1", "MCP_AUTO_OPEN_ENABLED": "false"}
    variables |= {"MCP_INSPECTOR_SECRET_STORE": "memory", "HOME": str(HOME / "inspector")}
    (HOME / "inspector").mkdir()
    inspector = world.supervisor.start("inspector", [str(launcher), "--web", "--config", str(servers)], variables, cwd=HOME)
    world.supervisor.wait_until_answers(inspector, f"http://127.0.0.1:{INSPECTOR_PORT}")
    address = re.search(rf"http://127\.0\.0\.1:{INSPECTOR_PORT}\?\S+", inspector.log.read_text())
    if not address:
        claims.hold("the inspector says where it is", False, inspector.last_words())
        return
    picture = HOME / "inspector.png"
    command = [str(world.node), "inspector.mjs", chromium, address[0], "billing", "refund", str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, cwd=BROWSER)
    lines = done.stdout.strip().splitlines()
    seen = json.loads(lines[-1]) if lines else {"error": done.stderr[-1500:]}
    callback = f"http://127.0.0.1:{INSPECTOR_PORT}/oauth/callback"
    claims.hold("one click leads to the provider and back with a code", callback in seen.get("pages", []), seen)
    claims.hold("and connects", seen.get("connected"), seen)
    claims.hold("the tools are there", seen.get("listed"), seen)
    claims.hold(f"the picture is {relative(picture)}", picture.is_file() and picture.stat().st_size > 10_000)


def nothing_leaked(world: World, claims: Claims) -> None:
    claims.begin("the run as a whole")
    requests = [json.loads(line) for line in world.log.read_text().splitlines()]
    claims.hold("billing was called", len(requests) > 0)
    claims.hold("and never saw a token of a caller", not any(request["authorization"] for request in requests))
    world.supervisor.stop("envoy")
    records = [json.loads(line) for line in world.access.read_text().splitlines() if line.startswith("{")]
    claims.hold("every request has a record with a decision", records and all(r["decision"] for r in records), records[:3])
    stepped = [r for r in records if r["reason"] == "insufficient_scope"]
    claims.equal("each client was refused once for a scope", len(stepped), 3)
    logs = "".join(path.read_text(errors="replace") for path in HOME.glob("envoy.log"))
    claims.hold("no log of the gateway holds a token", "eyJ" not in logs + world.access.read_text())


if __name__ == "__main__":
    main()
