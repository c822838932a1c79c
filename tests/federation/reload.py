"""Servers that join and leave, and keys that are replaced, by configuration, while calls and a stream go on.

An Envoy with two workers takes its listeners and clusters from files. Each change is a file that is moved
into its place: first clusters, then the listener with the plugin's new configuration.
"""

import http.client
import json
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asking import LEGACY, META, MODERN, Checks, Endpoint, settled
from matrix import peers
from stack import gateway
from stack.console import heading
from stack.supervisor import Supervisor

OLD_KEY = "only-for-tests-the-old-0123456789abcdef"
NEW_KEY = "only-for-tests-the-new-0123456789abcdef"
WITHIN_SECONDS = 240.0
ASKED = 12
"""New connections that see to it that each worker has answered, most likely."""
STREAM = "over-the-change"


@dataclass
class Changing:
    """An Envoy whose configuration changes."""

    home: Path
    plugin: Path
    ports: dict[str, int]
    token: str
    envoy: gateway.Gateway | None = None

    def settings(self, servers: list[str], keys: list[str]) -> gateway.Settings:
        more = {
            "federation": {"timeout_ms": 15_000, "ttl_seconds": 20},
            "sessions": {"keys": [{"value": key} for key in keys]},
        }
        of = {name: self.ports[name] for name in servers}
        return gateway.Settings(
            self.plugin, of, peers.POLICY, more=more, workers=2, name="envoy-changing", dynamic=True
        )

    def change(self, servers: list[str], keys: list[str], *kinds: str) -> None:
        assert self.envoy
        gateway.reconfigure(self.home, self.settings(servers, keys), self.envoy, *kinds)

    def endpoint(self, session: str | None = None) -> Endpoint:
        assert self.envoy
        return Endpoint(self.envoy.port, self.token, session)

    def all_say(self, what: Any) -> bool:
        """Whether a claim about a new connection holds for every one of several."""
        return settled(lambda: all(what(self.endpoint()) for _ in range(ASKED)), WITHIN_SECONDS)


@dataclass
class Calls:
    """Calls to servers that stay, on and on: modern, and of the legacy era in one session."""

    place: Changing
    servers: list[str]
    session: str
    calls: int = 0
    failures: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def caller(self, number: int) -> None:
        era = MODERN if number % 2 else LEGACY
        client = self.place.endpoint(None if era == MODERN else self.session)
        turn = number
        while not self.over.is_set():
            server = self.servers[turn % len(self.servers)]
            turn += 1
            try:
                heard: object = client.echo(server, str(turn), era)
            except (OSError, http.client.HTTPException) as error:
                heard = repr(error)
            with self.lock:
                self.calls += 1
                if heard != str(turn):
                    self.failures.append(f"{server}, {era}: {heard}")


def run(supervisor: Supervisor, home: Path, plugin: Path, ports: dict[str, int], token: str, checks: Checks) -> None:
    heading("Servers that join and leave, and keys that are replaced, under load")
    *staying, leaving, joining = list(ports)[:5]
    place = Changing(home / "changing", plugin, ports, token)
    place.home.mkdir()
    before = [*staying, leaving]
    place.envoy = gateway.start(supervisor, place.home, place.settings(before, [OLD_KEY]))
    place.envoy.wait(supervisor)
    checks.that("it begins with four servers", place.all_say(lambda client: shows(client, before)), before)
    old = begin(place.endpoint())
    checks.that("a session begins", bool(old))

    streaming = next(name for name in staying if name.startswith("ts-v2"))
    connection, response = open_stream(place.envoy.port, token, streaming)
    calls = Calls(place, staying, old or "")
    callers = [threading.Thread(target=calls.caller, args=(number,)) for number in range(3)]
    for caller in callers:
        caller.start()
    try:
        place.change([*before, joining], [OLD_KEY], "cds", "lds")
        joined = place.all_say(lambda client: shows(client, [*before, joining]))
        checks.that("a server joins", joined, place.endpoint().tools()[0])
        heard = place.endpoint().echo(joining, "here")
        checks.that("and answers", heard == "here", heard)
        after = [*staying, joining]
        # The listener first: nothing is sent to a cluster that is going.
        place.change(after, [NEW_KEY, OLD_KEY], "lds")
        left = place.all_say(lambda client: shows(client, after))
        checks.that("another leaves", left, place.endpoint().tools()[0])
        place.change(after, [NEW_KEY, OLD_KEY], "cds")
        gone = place.endpoint().ask("tools/call", {"name": f"{leaving}__echo", "arguments": {"text": "x"}})
        checks.that("and is unknown", gone.message.get("error", {}).get("code") == -32602, gone)
        known = [place.endpoint(old).ask("tools/list", era=LEGACY).status for _ in range(ASKED)]
        checks.that("a session of the old key goes on under the new one", set(known) == {200}, known)
        new = begin(place.endpoint())
    finally:
        calls.over.set()
        for caller in callers:
            caller.join(WITHIN_SECONDS)
    claim = f"of {calls.calls} calls to servers that stayed none failed"
    checks.that(claim, not calls.failures and calls.calls > 0, calls.failures[:5])

    place.change(after, [NEW_KEY], "lds")
    forgotten = place.all_say(lambda client: status(client, old) == 404)
    checks.that("without the old key its sessions are unknown", forgotten)
    known = [status(place.endpoint(), new) for _ in range(ASKED)]
    checks.that("and those of the new key are not", bool(new) and set(known) == {200}, known)

    # A call that is cut off is cancelled at its server: as long as it is not, the stream is whole.
    whole = was_cancelled(place.endpoint(), streaming)
    checks.that("a stream that was there before all changes goes on", whole == "not cancelled", whole)
    response.close()
    connection.close()
    ended = settled(lambda: was_cancelled(place.endpoint(), streaming) == "cancelled", WITHIN_SECONDS)
    checks.that("until its client ends it", ended)
    supervisor.stop("envoy-changing")


def shows(client: Endpoint, servers: list[str]) -> bool:
    """Whether a list is of these servers."""
    names, left_out, _ = client.tools()
    return not left_out and {name.split("__")[0] for name in names} == set(servers)


def begin(client: Endpoint) -> str | None:
    params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "federation", "version": "1"}}
    return client.ask("initialize", params, era=LEGACY).headers.get("mcp-session-id")


def status(client: Endpoint, session: str | None) -> int:
    client.session = session
    return client.ask("tools/list", era=LEGACY).status


def open_stream(port: int, token: str, server: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """A call that reports progress once and then waits; returns when the first event is there."""
    meta = META | {"progressToken": 1}
    name = f"{server}__wait"
    params = {"name": name, "arguments": {"key": STREAM}, "_meta": meta}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    headers = {
        "authorization": f"Bearer {token}",
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": MODERN,
        "mcp-method": "tools/call",
        "mcp-name": name,
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WITHIN_SECONDS)
    connection.request("POST", "/mcp", json.dumps(body), headers)
    response = connection.getresponse()
    while b"notifications/progress" not in response.readline():
        if response.isclosed():
            raise AssertionError(f"the stream ended with {response.status} before it said anything")
    return connection, response


def was_cancelled(client: Endpoint, server: str) -> str | None:
    arguments = {"key": STREAM}
    answer = client.ask("tools/call", {"name": f"{server}__was_cancelled", "arguments": arguments})
    content = answer.message.get("result", {}).get("content", [])
    return content[0].get("text") if content else None
