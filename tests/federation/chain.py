"""Gateways behind gateways: two Envoys that are servers of one another.

`front` has one server of its own and `back`, as the server `b`; `back` has two servers and `front`, as the
server `a`. So names are `b__SERVER__TOOL` at the front, and everything could go round for ever.
"""

from pathlib import Path
from typing import Any

from asking import LEGACY, MODERN, Checks, Endpoint, whole_list
from matrix import peers
from stack import gateway
from stack.console import heading
from stack.supervisor import Supervisor

SESSION_KEY = "only-for-tests-of-chains-0123456789abcdef"


def run(supervisor: Supervisor, home: Path, plugin: Path, ports: dict[str, int], token: str, checks: Checks) -> None:
    heading("Gateways behind gateways")
    near, *far = (next(name for name in ports if name.startswith(kind)) for kind in ("ts-v1", "ts-v2", "python"))
    at = dict(zip(("front", "back"), gateway.free_ports(2), strict=True))
    of_front = {near: ports[near], "b": at["back"]}
    of_back = {name: ports[name] for name in far} | {"a": at["front"]}
    started = []
    for name, servers, other in (("front", of_front, "b"), ("back", of_back, "a")):
        (home / name).mkdir()
        more = configuration(name, servers, other, token)
        settings = gateway.Settings(plugin, servers, peers.POLICY, more=more, name=f"envoy-{name}", port=at[name])
        started.append(gateway.start(supervisor, home / name, settings))
    for envoy in started:
        envoy.wait(supervisor)
    front, back = (Endpoint(envoy.port, token) for envoy in started)

    names, left_out, answer = whole_list(front)
    wanted = [f"b__{name}__echo" for name in far] + [f"{near}__echo"]
    checks.that("a list goes through to the servers behind the next gateway", set(wanted) <= set(names), (names, answer))
    checks.that("and names nobody twice", not any("__a__" in name for name in names), names)
    checks.that("and nobody is left out of it", not left_out, left_out)
    names, left_out, _ = whole_list(back)
    checks.that("from the other end, likewise", f"a__{near}__echo" in names and not left_out, (names, left_out))
    for era in (MODERN, LEGACY):
        silent = [name for name in far if front.echo(f"b__{name}", name, era) != name]
        checks.that(f"calls of a {era} client reach the servers behind", not silent, silent)
    uri = f"b+{far[0]}+peer://about"
    result = front.ask("resources/read", {"uri": uri}).message.get("result", {})
    uris = [content.get("uri") for content in result.get("contents", [])]
    checks.that("a resource behind is read, and named, by the URI of the front", uris == [uri], result)
    round_trip = front.ask("tools/call", {"name": f"b__a__{near}__echo", "arguments": {"text": "x"}})
    text = str(round_trip.message.get("error", {}))
    checks.that("what comes back to where it began is refused", round_trip.status == 508 and "passed" in text, round_trip)
    supervisor.stop("envoy-front")
    supervisor.stop("envoy-back")


def configuration(name: str, servers: dict[str, int], other: str, token: str) -> dict[str, Any]:
    """What the plugin has beside its policy. Each gateway is a caller of the other."""
    entries: dict[str, Any] = {
        server: {"cluster": server, "authority": f"127.0.0.1:{port}"} for server, port in servers.items()
    }
    entries[other]["credential"] = {"name": "gateway", "header": "authorization", "format": "Bearer {}"}
    return {
        "servers": entries,
        "credentials": {"gateway": {"static": {"value": token}}},
        "federation": {"gateway": name, "ttl_seconds": 20, "timeout_ms": 15_000},
        "sessions": {"keys": [{"value": SESSION_KEY}]},
    }
