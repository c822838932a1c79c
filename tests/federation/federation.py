"""`tests/federation/run`: many real servers behind one endpoint, on two Envoys, with some of them failing.

The servers are those of tests/peers, on four SDKs, in both eras, several of each. Two Envoys with the
plugin stand in front of all of them, the first with two workers, and share the key of session ids. What
is checked: one list of all, asked of the servers once; calls and resources at every server in both eras;
sessions that any worker of either Envoy knows; official clients at the one endpoint; and that while
servers are killed, frozen and started again under load no call to a healthy one fails and no list waits
for a sick one.

    tests/federation/run                  twenty-five servers; a few minutes
    tests/federation/run --servers 8      fewer

Everything of the last run is under target/federation. Standard library only.
"""

import argparse
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matrix import peers
from stack import gateway, tools
from stack.console import ROOT, TARGET, StackError, fail, heading, say
from stack.supervisor import Supervisor

HOME = TARGET / "federation"
PLUGIN = TARGET / "toolgate.wasm"
KINDS = ("ts-v1", "ts-v2", "python", "fastmcp")
SERVERS = 25
TIMEOUT_MS = 1500
LOAD_SECONDS = 8.0
RECOVERY_SECONDS = 60.0
SESSION_KEY = "only-for-tests-0123456789abcdef-0123456789"
MODERN = "2026-07-28"
LEGACY = "2025-11-25"
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "federation", "version": "1"},
}
HIDDEN = "secret"


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

    def ask(self, method: str, params: dict[str, Any] | None = None, *, era: str = MODERN, timeout: float = 30) -> Answer:
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


@dataclass
class Checks:
    """Counts what holds and says what does not."""

    passed: int = 0
    failed: int = 0

    def that(self, claim: str, holds: bool, otherwise: object = "") -> None:
        self.passed += holds
        self.failed += not holds
        say(f"{'ok    ' if holds else 'FAILED'} {claim}" + ("" if holds else f": {otherwise}"))


@dataclass
class Place:
    """Servers and Envoys as they run."""

    supervisor: Supervisor
    programs: peers.Programs
    ports: dict[str, int]
    envoys: list[gateway.Gateway] = field(default_factory=list)
    token: str = ""

    def endpoint(self, envoy: int = 0) -> Endpoint:
        return Endpoint(self.envoys[envoy].port, self.token)

    def start(self, name: str) -> None:
        kind = name.rsplit("-", 1)[0]
        server = next(each for each in peers.ALL_SERVERS if each.name == kind)
        environment = {"PORT": str(self.ports[name]), "REQUEST_LOG": str(HOME / f"{name}.jsonl")}
        self.supervisor.start(name, server.command(self.programs), environment, cwd=peers.SERVERS)

    def ready(self, name: str) -> None:
        url = f"http://127.0.0.1:{self.ports[name]}/ready"
        self.supervisor.wait_until_answers(self.supervisor.children[name], url, within=180, status=200)

    def signal(self, name: str, number: signal.Signals) -> None:
        os.killpg(self.supervisor.children[name].process.pid, number)

    def asked(self) -> int:
        """How many requests the servers have answered that do not say how long their lists are good for.

        The others say that theirs are not to be kept: the SDKs do so by default."""
        silent = [name for name in self.ports if name.startswith("ts-v1")]
        return sum(len((HOME / f"{name}.jsonl").read_text().splitlines()) for name in silent)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests/federation/run", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--servers", type=int, default=SERVERS)
    given = parser.parse_args()
    if not PLUGIN.exists():
        raise StackError("target/toolgate.wasm is not there: scripts/build makes it")
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(parents=True)
    checks = Checks()
    with Supervisor(HOME / "logs") as supervisor:
        place = started(supervisor, given.servers)
        listing(place, checks)
        calling(place, checks)
        sessions(place, checks)
        official_clients(place, checks)
        trouble(place, checks)
    say("")
    print(f"{checks.passed} passed, {checks.failed} failed", flush=True)
    sys.exit(1 if checks.failed else 0)


def started(supervisor: Supervisor, count: int) -> Place:
    heading(f"Starting {count} servers and two Envoys")
    names = [f"{KINDS[index % len(KINDS)]}-{index + 1:02}" for index in range(count)]
    ports = dict(zip(names, gateway.free_ports(count), strict=True))
    programs = peers.Programs(tools.python(), tools.node(), tools.fastmcp(), Path())
    place = Place(supervisor, programs, ports)
    for first in range(0, count, 5):
        # A few at a time: all at once would keep a small machine from answering at all.
        for name in names[first : first + 5]:
            (HOME / f"{name}.jsonl").touch()
            place.start(name)
        for name in names[first : first + 5]:
            place.ready(name)
    more = {"federation": {"timeout_ms": TIMEOUT_MS, "ttl_seconds": 20}, "sessions": {"keys": [{"value": SESSION_KEY}]}}
    for name, workers in (("one", 2), ("two", 1)):
        home = HOME / name
        home.mkdir()
        settings = gateway.Settings(PLUGIN, ports, peers.POLICY, more=more, workers=workers, name=f"envoy-{name}")
        envoy = gateway.start(supervisor, home, settings)
        envoy.wait(supervisor)
        place.envoys.append(envoy)
    place.token = peers.token(programs)
    return place


def settled(what: Callable[[], bool], within: float) -> bool:
    """Whether something becomes true in time."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        if what():
            return True
        threading.Event().wait(0.2)
    return what()


def listing(place: Place, checks: Checks) -> None:
    heading("One list of all servers")
    client = place.endpoint()
    names, left_out, cold = client.tools()
    if left_out:
        # The first question to a server that has just started may take it longer than the limit.
        settled(lambda: not client.tools()[1], RECOVERY_SECONDS)
        names, left_out, cold = client.tools()
    checks.that("every server is in the list", not left_out and all(f"{s}__echo" in names for s in place.ports), left_out)
    prefixes = list(dict.fromkeys(name.split("__")[0] for name in names))
    checks.that("in a stable order", prefixes == sorted(place.ports), prefixes)
    checks.that("without what policy hides", not any(HIDDEN in name for name in names), names)
    workers = 2
    while workers and settled(lambda: warm(place), 1):
        workers -= 1
    # By now each worker has answered at least once.
    for _ in range(8):
        place.endpoint().tools()
    before = place.asked()
    warm_names, _, answer = client.tools()
    checks.that("a warm list asks no server", place.asked() == before, f"{place.asked() - before} requests")
    checks.that("and is the same", warm_names == names)
    checks.that("in the modern form", answer.message.get("result", {}).get("cacheScope") == "private", answer.message)
    other, left, _ = place.endpoint(1).tools()
    if left:
        settled(lambda: not place.endpoint(1).tools()[1], RECOVERY_SECONDS)
        other, left, _ = place.endpoint(1).tools()
    checks.that("the other Envoy lists the same", other == names, left)
    legacy, left, _ = client.tools(era=LEGACY)
    checks.that("a client of the legacy era is shown the same", legacy == names, left)
    resources = client.ask("resources/list").message.get("result", {}).get("resources", [])
    uris = [resource["uri"] for resource in resources]
    checks.that("resources of every server", len({uri.split("+")[0] for uri in uris}) == len(place.ports), uris)
    say(f"       cold {cold.seconds * 1000:.0f} ms, warm {answer.seconds * 1000:.0f} ms, {len(names)} tools")


def warm(place: Place) -> bool:
    return not place.endpoint().tools()[1]


def calling(place: Place, checks: Checks) -> None:
    heading("Calls at every server, in both eras")
    for era in (MODERN, LEGACY):
        silent = [name for name in place.ports if place.endpoint().echo(name, f"to {name}", era) != f"to {name}"]
        checks.that(f"every server answers a call of a {era} client", not silent, silent)
    client = place.endpoint()
    wrong = []
    for name in place.ports:
        uri = f"{name}+peer://about"
        result = client.ask("resources/read", {"uri": uri}).message.get("result", {})
        if [content.get("uri") for content in result.get("contents", [])] != [uri]:
            wrong.append((name, result))
    checks.that("a resource is read, and named, by the URI it is listed under", not wrong, wrong[:2])
    unknown = client.ask("tools/call", {"name": f"{next(iter(place.ports))}__{HIDDEN}"})
    checks.that("what policy hides is unknown", unknown.message.get("error", {}).get("code") == -32602, unknown)


def sessions(place: Place, checks: Checks) -> None:
    heading("Sessions that both Envoys know")
    client = place.endpoint()
    params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "federation", "version": "1"}}
    begun = client.ask("initialize", params, era=LEGACY)
    session = begun.headers.get("mcp-session-id")
    checks.that("initialize begins one", begun.status == 200 and bool(session), begun)
    for envoy in (0, 1):
        other = place.endpoint(envoy)
        other.session = session
        silent = [name for name in place.ports if other.echo(name, name, LEGACY) != name]
        checks.that(f"Envoy {envoy + 1} knows it, and calls reach every server", not silent, silent)
    other = place.endpoint(1)
    for how, bad in (("forged", "x" * 60), ("truncated", (session or "")[:-8])):
        other.session = bad
        checks.that(f"a {how} id is unknown", other.ask("tools/list", era=LEGACY).status == 404)


def official_clients(place: Place, checks: Checks) -> None:
    heading("Official clients at the one endpoint")
    url = f"http://127.0.0.1:{place.envoys[0].port}/mcp"
    servers = list(place.ports)
    for kind, era in (("ts-v1", "legacy"), ("ts-v2", "modern"), ("python", "legacy"), ("python", "modern"), ("fastmcp", "auto")):
        client = next(each for each in peers.ALL_CLIENTS if each.name == kind)
        words = ["tools"]
        for server in servers[:4]:
            words += ["call", f"{server}__add", '{"a": 2, "b": 3}']
        words += ["read", f"{servers[0]}+peer://about"]
        command = [*client.command(place.programs), url, "--era", era, *words]
        ended = subprocess.run(
            command,
            env=os.environ | {"MCP_TOKEN": place.token, "HOME": str(HOME)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
        lines = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
        bad = [line for line in lines if not line.get("ok")]
        holds = ended.returncode == 0 and len(lines) >= 6 and not bad
        checks.that(f"{client.title}, {era}: lists, calls four servers, reads", holds, bad or ended.stderr[-500:])


@dataclass
class Load:
    """Calls to healthy servers, on and on."""

    place: Place
    healthy: list[str]
    calls: int = 0
    failures: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def caller(self, number: int) -> None:
        client = self.place.endpoint(number % len(self.place.envoys))
        era = MODERN if number % 2 else LEGACY
        turn = number
        while not self.over.is_set():
            server = self.healthy[turn % len(self.healthy)]
            turn += 1
            try:
                heard = client.echo(server, str(turn), era)
            except OSError as error:
                heard = repr(error)
            with self.lock:
                self.calls += 1
                if heard != str(turn):
                    self.failures.append(f"{server}: {heard}")


def trouble(place: Place, checks: Checks) -> None:
    heading("Servers that are killed, frozen and started again under load")
    names = list(place.ports)
    killed, frozen = names[0:3], names[3:5]
    sick = set(killed + frozen)
    load = Load(place, [name for name in names if name not in sick])
    callers = [threading.Thread(target=load.caller, args=(number,)) for number in range(4)]
    for caller in callers:
        caller.start()
    try:
        for name in killed:
            place.signal(name, signal.SIGKILL)
        for name in frozen:
            place.signal(name, signal.SIGSTOP)
        begun = time.monotonic()
        # Lists are remembered for a while: what is not asked again is not found out.
        found = settled(lambda: sick <= set(place.endpoint().tools()[1]), 90)
        _, left_out, answer = place.endpoint().tools()
        checks.that("the sick are left out of lists and named", found and set(left_out) == sick, left_out)
        checks.that("and nobody waits for them", answer.seconds < TIMEOUT_MS / 1000 * 2 + 3, f"{answer.seconds:.1f} s")
        refused = place.endpoint().ask("tools/call", {"name": f"{killed[0]}__echo", "arguments": {"text": "x"}})
        checks.that("a call to one that is gone is a clear error", "error" in refused.message, refused)
        threading.Event().wait(max(0.0, LOAD_SECONDS - (time.monotonic() - begun)))
        for name in frozen:
            place.signal(name, signal.SIGCONT)
        for name in killed:
            place.supervisor.children[name].process.wait(5)
            place.start(name)
        for name in killed:
            place.ready(name)
        back = settled(lambda: not place.endpoint().tools()[1], RECOVERY_SECONDS)
        checks.that("they are back in the list once they are back", back, place.endpoint().tools()[1])

        def answer_again() -> bool:
            return all(place.endpoint().echo(name, name) == name for name in sick)

        checks.that("and answer calls, in new sessions where theirs were lost", settled(answer_again, RECOVERY_SECONDS))
    finally:
        load.over.set()
        for caller in callers:
            caller.join(60)
    checks.that(f"of {load.calls} calls to healthy servers none failed", not load.failures and load.calls > 0, load.failures[:5])


if __name__ == "__main__":
    try:
        main()
    except StackError as error:
        fail(error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
