"""`tests/federation/run`: many real servers behind one endpoint, on two Envoys, with some of them failing.

The servers are those of tests/peers, on five SDKs, in both eras, several of each. Two Envoys with the
plugin stand in front of all of them, the first with two workers, and share the key of session ids. What
is checked: one list of all, asked of the servers once; calls and resources at every server in both eras;
sessions that any worker of either Envoy knows; official clients at the one endpoint, and what servers ask of them; gateways behind
gateways (chain.py); a federation of another make among the servers (mounted.py); that servers join and leave by configuration, and keys are replaced, while calls and a
stream go on (reload.py); and that while servers are killed, frozen and started again under load no call to a
healthy one fails and no list waits for a sick one.

    tests/federation/run                  twenty-five servers; a few minutes
    tests/federation/run --servers 8      fewer

Everything of the last run is under target/federation. Standard library only.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import chain
import mounted
import reload
from asking import LEGACY, MODERN, Checks, Endpoint, settled, whole_list
from matrix import peers
from stack import gateway, tools
from stack.console import ROOT, TARGET, StackError, fail, heading, say
from stack.supervisor import Supervisor

HOME = TARGET / "federation"
PLUGIN = TARGET / "toolgate.wasm"
KINDS = ("ts-v1", "ts-v2", "python", "fastmcp", "rmcp")
CLIENTS = (
    ("ts-v1", "legacy"),
    ("ts-v2", "modern"),
    ("python", "legacy"),
    ("python", "modern"),
    ("fastmcp", "auto"),
    ("rmcp", "legacy"),
    ("rmcp", "modern"),
)
SERVERS = 25
# Longer than a busy machine stands still: a server that is healthy is never taken for one that is not.
TIMEOUT_MS = 15_000
LOAD_SECONDS = 8.0
# A stream that is to outlast changes of the configuration, however long they take.
WAIT_MS = 3_600_000
WITHIN_SECONDS = 240.0
SESSION_KEY = "only-for-tests-0123456789abcdef-0123456789"
HIDDEN = "secret"


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
        environment["WAIT_MS"] = str(WAIT_MS)
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
        questions(place, checks)
        chain.run(supervisor, HOME, PLUGIN, place.ports, place.token, checks)
        mounted.run(supervisor, HOME, PLUGIN, place.ports, place.programs, place.token, checks)
        reload.run(supervisor, HOME, PLUGIN, place.ports, place.token, checks)
        trouble(place, checks)
    say("")
    print(f"{checks.passed} passed, {checks.failed} failed", flush=True)
    sys.exit(1 if checks.failed else 0)


def started(supervisor: Supervisor, count: int) -> Place:
    heading(f"Starting {count} servers and two Envoys")
    names = [f"{KINDS[index % len(KINDS)]}-{index + 1:02}" for index in range(count)]
    ports = dict(zip(names, gateway.free_ports(count), strict=True))
    programs = peers.Programs(tools.python(), tools.node(), tools.fastmcp(), tools.rmcp())
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
        settings = gateway.Settings(
            PLUGIN, ports, peers.POLICY, more=more, workers=workers, name=f"envoy-{name}", cluster=server_cluster()
        )
        envoy = gateway.start(supervisor, home, settings)
        envoy.wait(supervisor)
        place.envoys.append(envoy)
    place.token = peers.token(programs)
    return place


def server_cluster() -> Any:
    """The cluster of the example, with circuit breaking and outlier detection."""
    example = gateway.yaml((ROOT / "envoy" / "server-cluster.yaml").read_text())
    return gateway.only(example["static_resources"]["clusters"])


def listing(place: Place, checks: Checks) -> None:
    heading("One list of all servers")
    client = place.endpoint()
    names, left_out, cold = whole_list(client)
    checks.that("every server is in the list", not left_out and all(f"{s}__echo" in names for s in place.ports), left_out)
    prefixes = list(dict.fromkeys(name.split("__")[0] for name in names))
    checks.that("in a stable order", prefixes == sorted(place.ports), prefixes)
    checks.that("without what policy hides", not any(HIDDEN in name for name in names), names)
    checks.that("a warm list asks no server", settled(lambda: asks_nobody(place, client), WITHIN_SECONDS))
    warm_names, _, answer = whole_list(client)
    checks.that("and is the same", warm_names == names)
    checks.that("in the modern form", answer.message.get("result", {}).get("cacheScope") == "private", answer.message)
    other, left, _ = whole_list(place.endpoint(1))
    checks.that("the other Envoy lists the same", other == names, left)
    legacy, left, _ = whole_list(client, LEGACY)
    checks.that("a client of the legacy era is shown the same", legacy == names, left)
    resources = client.ask("resources/list").message.get("result", {}).get("resources", [])
    uris = [resource["uri"] for resource in resources]
    checks.that("resources of every server", len({uri.split("+")[0] for uri in uris}) == len(place.ports), uris)
    say(f"       cold {cold.seconds * 1000:.0f} ms, warm {answer.seconds * 1000:.0f} ms, {len(names)} tools")


def asks_nobody(place: Place, client: Endpoint) -> bool:
    """Whether a list that has just been made is made again without a request. What is remembered ends at some
    time, and a server writes down what it has answered when it comes to it: then it is tried again."""
    client.tools()
    before = place.asked()
    client.tools()
    return place.asked() == before


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
    for kind, era in CLIENTS:
        client = next(each for each in peers.ALL_CLIENTS if each.name == kind)
        words = ["tools"]
        for server in servers[:4]:
            words += ["call", f"{server}__add", '{"a": 2, "b": 3}']
        words += ["read", f"{servers[0]}+peer://about"]
        lines, problem = performed(place, client, url, era, words)
        bad = [line for line in lines if not line.get("ok")]
        holds = not problem and len(lines) >= 6 and not bad
        checks.that(f"{client.title}, {era}: lists, calls four servers, reads", holds, bad or problem)


def performed(
    place: Place, client: peers.Client, url: str, era: str, words: list[str]
) -> tuple[list[dict[str, Any]], str]:
    """What an official client says of its actions, and what went wrong with itself."""
    try:
        ended = subprocess.run(
            [*client.command(place.programs), url, "--era", era, *words],
            env=os.environ | {"MCP_TOKEN": place.token, "HOME": str(HOME)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
    except subprocess.TimeoutExpired:
        return [], "did not come to its end"
    lines = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    return lines, "" if ended.returncode == 0 else f"ended with {ended.returncode}: {ended.stderr[-500:]}"


def questions(place: Place, checks: Checks) -> None:
    heading("What servers ask of the user, by way of two workers")
    url = f"http://127.0.0.1:{place.envoys[0].port}/mcp"
    for kind, era in (("python", "legacy"), ("ts-v1", "legacy"), ("python", "modern"), ("ts-v2", "modern")):
        client = next(each for each in peers.ALL_CLIENTS if each.name == kind)
        # One of each SDK, but that a modern client can be asked only by servers whose streams can be resumed,
        # which those on TypeScript v1 here cannot.
        kinds = [name for name in KINDS if era == "legacy" or name != "ts-v1"]
        servers = [next(name for name in place.ports if name.startswith(kind)) for kind in kinds]
        words = [word for server in servers for word in ("call", f"{server}__ask", "{}")]
        heard: list[object] = []
        problems = []
        # Again and again: answers come to either worker.
        for _ in range(3):
            lines, problem = performed(place, client, url, era, words)
            problems += [problem] if problem else []
            for line in (line for line in lines if line["action"] == "call"):
                content = (line.get("result") or {}).get("content") or [{}]
                heard.append(content[0].get("text") or line.get("error"))
        holds = heard == ["hello Ada"] * (3 * len(servers)) and not problems
        checks.that(f"{client.title}, {era}: is asked by {len(servers)} servers, and answers", holds, problems or heard)


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
        seen: dict[str, str] = {}

        def found() -> bool:
            # Lists are remembered for a while: what is not asked again is not found out.
            nonlocal seen
            seen = place.endpoint().tools()[1]
            return set(seen) == sick

        # Two of them stand still, so that a list which waited for their answers would never come.
        checks.that("the sick are left out of lists and named, and nobody waits for them", settled(found, WITHIN_SECONDS), seen)
        refused = place.endpoint().ask("tools/call", {"name": f"{killed[0]}__echo", "arguments": {"text": "x"}})
        checks.that("a call to one that is gone is a clear error", "error" in refused.message, refused)
        threading.Event().wait(max(0.0, LOAD_SECONDS - (time.monotonic() - begun)))
        for name in frozen:
            place.signal(name, signal.SIGCONT)
        for name in killed:
            place.supervisor.children[name].process.wait(60)
            place.start(name)
        for name in killed:
            place.ready(name)
        back = settled(lambda: not place.endpoint().tools()[1], WITHIN_SECONDS)
        checks.that("they are back in the list once they are back", back, place.endpoint().tools()[1])

        def answer_again() -> bool:
            return all(place.endpoint().echo(name, name) == name for name in sick)

        checks.that("and answer calls, in new sessions where theirs were lost", settled(answer_again, WITHIN_SECONDS))
    finally:
        load.over.set()
        for caller in callers:
            caller.join(WITHIN_SECONDS)
    checks.that(f"of {load.calls} calls to healthy servers none failed", not load.failures and load.calls > 0, load.failures[:5])


if __name__ == "__main__":
    try:
        main()
    except StackError as error:
        fail(error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
