#!/usr/bin/env python3
"""What credentials add to a call, in a real Envoy with a real vault and authorization server.

    scripts/bench --credentials

Times are the gateway's own, from its records: until the decision, and of that waiting for calls. Beside them
stands what the vault takes for the same requests, asked by the same way without the gateway. Medians and 95th percentiles; on a
machine that does other things too, compare rows rather than read microseconds.
"""

import http.client
import json
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Iterable
from typing import Any

from stack.console import TARGET, StackError, fail
from stack.supervisor import Supervisor

from world import World, until

HOME = TARGET / "bench-credentials"
CALLS = 200
AT_ONCE = 200


def main() -> None:
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(parents=True)
    try:
        with Supervisor(HOME) as supervisor:
            world = World(supervisor, HOME)
            world.start()
            measure(world)
    except StackError as error:
        fail(error)
        sys.exit(1)


def measure(world: World) -> None:
    people = [f"person-{number}" for number in range(CALLS)]
    world.sign_in(*people)
    for person in people:
        world.store(f"users/{person}", f"{person} at front")
        world.store(f"own/{person}", f"{person} at own")
    print(f"| {CALLS} calls each | calls of the gateway's own | until the decision, median | 95 % | of that waiting, median |")
    print("|---|--:|--:|--:|--:|")
    world.call("lasting")
    world.records()
    row("warm: in the worker's memory", 0, records(world, [("lasting", "alice")] * CALLS))
    world.call("front", "alice")
    world.records()
    row("cold: a secret of the vault, logged in already", 1, records(world, (("front", person) for person in people)))
    row("cold: the caller's own login, and a secret", 2, records(world, (("own", person) for person in people)))
    row("cold: an access token, by the caller's (one call)", 1, records(world, [("exchanged", "alice")]))
    direct = sorted(seconds_of_read(world, person) for person in people)
    print(f"\nThe vault itself answers such a read in {statistics.median(direct) * 1e6:.0f} µs (median), asked by the same way.")
    at_once(world)


def records(world: World, calls: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    for server, person in calls:
        answer = world.call(server, person)
        if not answer.ok:
            raise StackError(f"{server} answered {person} with {answer.status}: {answer.text}")
    return world.records()


def row(what: str, own: int, seen: list[dict[str, Any]]) -> None:
    waited = [record.get("calls_us", 0) for record in seen]
    if any((wait > 0) != (own > 0) for wait in waited):
        raise StackError(f"{what}: not what was to be measured: {seen[0]}")
    decided = sorted(record["decided_us"] for record in seen)
    late = decided[max(0, int(len(decided) * 0.95) - 1)]
    print(f"| {what} | {own} | {statistics.median(decided):.0f} µs | {late} µs | {statistics.median(waited):.0f} µs |")


def seconds_of_read(world: World, person: str) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", world.front.port, timeout=10)
    began = time.monotonic()
    connection.request("GET", f"/v1/secret/data/users/{person}", headers={"X-Vault-Token": world.openbao.root_token})
    json.loads(connection.getresponse().read())
    connection.close()
    return time.monotonic() - began


def at_once(world: World) -> None:
    """Many first calls at the same time: how often the vault is asked."""
    world.sign_in("crowd")
    world.store("users/crowd", "crowd at front")
    world.front.modes["/users/crowd"] = "wait"
    threads = [threading.Thread(target=world.call, args=("front", "crowd")) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    # Held until all of them wait in Envoy, so that none comes when the answer is there.
    stat = "http.mcp.downstream_rq_active"
    until(lambda: f"{stat}: {AT_ONCE}" in world.admin(f"/stats?filter={stat}"))
    world.front.release.set()
    for thread in threads:
        thread.join()
    reads = world.front.log.read_text().count("GET /v1/secret/data/users/crowd ")
    ok = sum(record["decision"] == "allow" for record in world.records())
    print(f"{AT_ONCE} first calls at once, one worker: {ok} answered, the vault was asked {reads} times.")


if __name__ == "__main__":
    main()
