#!/usr/bin/env python3
"""The life of credentials in a real Envoy, end to end: nothing fails that need not, and nothing leaks.

    scripts/build && scripts/fetch envoy openbao valkey python node && tests/credentials/run

An OpenBao is reached by TLS, and through a front that can be slow or talk nonsense; it makes users in a
Valkey. An authorization server is `oidc-provider`. Secrets change, leases end, tokens are revoked, the vault
is sealed and killed, while clients call. Everything that leaves the gateway meanwhile, but for the requests that
carry them, is searched for every secret there was. Then the walk of docs/credentials.md is done as it
stands there. Nothing here assumes that anything is quick: what must come is waited for, and what must
happen in time is compared with other times. The last line is `N passed, N failed`; what was run last is
under target/credentials.
"""

import base64
import json
import shutil
import time
from datetime import datetime
from typing import Any

from claims import Claims
from stack.console import TARGET, StackError, relative
from stack.preparing import PLUGIN
from stack.running import VAULT_TOKEN
from stack.supervisor import Supervisor

import search
import walk
from world import LEASE_SECONDS, LINK, TTL_SECONDS, Load, World, basic, until

HOME = TARGET / "credentials"
SURELY_CURRENT_SECONDS = 6.0
CARRIED = ("AppRole secret_id", "token that somebody keeps alive", "service account's token", "alice's token")
UNAVAILABLE = (503, "credential_unavailable")


def main() -> None:
    claims = Claims()
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(parents=True)
    with claims.whole_run():
        if not PLUGIN.is_file():
            raise StackError(f"there is no {relative(PLUGIN)}; run scripts/build")
        with Supervisor(HOME) as supervisor:
            world = World(supervisor, HOME)
            world.start()
            for scene in (
                each_server_gets_its_own,
                what_a_server_shows_is_masked,
                nothing_for_this_caller,
                a_secret_is_rotated_under_load,
                a_secret_is_rotated_and_the_old_one_is_refused_at_once,
                logins_and_leases_are_renewed_while_they_are_used,
                a_lease_is_revoked_and_one_ends,
                the_gateways_tokens_are_revoked,
                a_vault_that_is_slow_or_talks_nonsense,
                the_vault_is_sealed_and_unsealed,
                the_vault_is_killed_and_comes_back,
                another_vault_takes_its_place,
            ):
                scene(world, claims)
                world.keep_admin()
            nothing_leaked(world, claims)
        with Supervisor(HOME / "walk") as supervisor:
            walk.follow(supervisor, claims, HOME / "walk")


# --- where they come from --------------------------------------------------------------------------


def each_server_gets_its_own(world: World, claims: Claims) -> None:
    claims.begin("Each server gets its own credential, from where that one comes")
    for server, source, person in (
        ("direct", "vault", "alice"),
        ("lasting", "vault", "alice"),
        ("front", "vault", "alice"),
        ("own", "vault", "alice"),
        ("own", "vault", "bob"),
        ("issued", "vault", "alice"),
        ("pod", "vault", "alice"),
        ("first", "vault", "alice"),
        ("tenant", "vault", "alice"),
        ("lent", "vault", "alice"),
        ("client", "client_credentials", "alice"),
        ("exchanged", "token_exchange", "alice"),
        ("bearer", "jwt_bearer", "alice"),
    ):
        answer = world.call(server, person)
        claims.hold(f"{server}, called by {person}, answers", answer.ok, answer)
        [record] = world.records()
        claims.equal("the record says where the credential came from", record.get("credential_source"), source)
        claims.hold("and how long that took", record.get("calls_us", 0) > 0, record)
        kv = server in ("direct", "lasting", "front", "own", "tenant", "issued", "pod")
        claims.equal("and which version it is", record.get("credential_version"), 1 if kv else None)
        claims.equal("and which lease", "credential_lease" in record, server == "lent")
        again = world.call(server, person)
        claims.hold("a second call answers", again.ok, again)
        [record] = world.records()
        # Where it lasts long, no machine is so slow that the second call has to ask again.
        if server not in ("direct", "front", "own"):
            claims.equal("without a call to anybody", (record["credential_source"], record.get("calls_us")), ("cache", None))
    seen = [request.headers.get("authorization", "") for server in ("exchanged", "bearer") for request in world.mcp.of(server)]
    subjects = {payload(token)["sub"] for token in seen}
    claims.equal("the exchanged tokens are alice's", subjects, {"alice"})
    own = world.mcp.of("client")[0].headers["authorization"]
    claims.equal("the gateway's own are the gateway's", payload(own)["sub"], "toolgate")


def what_a_server_shows_is_masked(world: World, claims: Claims) -> None:
    claims.begin("A server shows what it was sent")
    for server in ("direct", "front", "lent", "exchanged"):
        answer = world.call(server, tool="show")
        claims.hold(f"the client of {server} sees asterisks", answer.ok and "*" * 16 in answer.text, answer)
        claims.hold("in the header field as well", "*" * 16 in answer.headers.get("x-sent", ""), answer.headers)
        [record] = world.records()
        claims.equal("the record says so", record.get("credential_echoed"), True)
    answer = world.call("direct")
    [record] = world.records()
    claims.equal("and says nothing where there was none", (answer.ok, record.get("credential_echoed")), (True, None))


def nothing_for_this_caller(world: World, claims: Claims) -> None:
    claims.begin("There is nothing for a caller")
    for server, person in (("front", "frank"), ("own", "carol"), ("exchanged", "carol"), ("bearer", "carol")):
        before = len(world.mcp.requests)
        answer = world.call(server, person)
        claims.equal(f"{person} is told so at {server}", answer.reason(), "credential_not_linked")
        claims.hold("and where to link an account", LINK in answer.text, answer)
        claims.equal("the server is not asked", len(world.mcp.requests), before)
    world.records()


# --- what happens to them --------------------------------------------------------------------------


def a_secret_is_rotated_under_load(world: World, claims: Claims) -> None:
    claims.begin("A secret is rotated while calls run")
    old = world.known[next(name for name in world.known if name.endswith("of direct"))]
    with Load(world, "direct", "front") as load:
        claims.hold("the old one is in use", until(lambda: len(load.answers) > 10), load.failed)
        new = world.store("mcp/direct", "direct")
        stored = time.monotonic()
        used = until(lambda: [s for s in world.mcp.of("direct") if s.headers.get("x-api-key") == new])
        claims.hold("the new one is used", used)
        # Two more lives of a value: the old one does not come back.
        enough = stored + 3 * TTL_SECONDS
        until(lambda: world.mcp.of("direct")[-1].at > enough)
    claims.equal(f"none of {len(load.answers)} calls failed", load.failed[:3], [])
    last = max(s.at for s in world.mcp.of("direct") if s.headers.get("x-api-key") == old)
    late, allowed = last - stored, TTL_SECONDS + 2 * load.longest()
    claims.hold(f"the old one was used for {late:.1f} s more, its time and a call's at most", late <= allowed, allowed)
    records = world.records()
    versions = {r.get("credential_version") for r in records if r.get("server") == "direct"}
    claims.equal("the records name both versions", versions, {1, 2})


def a_secret_is_rotated_and_the_old_one_is_refused_at_once(world: World, claims: Claims) -> None:
    claims.begin("A secret is rotated, and its server refuses the old one at once")
    claims.hold("the old one is in use", world.call("lasting").ok)
    used = time.monotonic()
    # What was fetched a moment ago would be no other if it were fetched again.
    until(lambda: time.monotonic() > used + SURELY_CURRENT_SECONDS)
    world.records()
    with Load(world, "lasting") as load:
        claims.hold("calls run", until(lambda: len(load.answers) > 10), load.failed)
        new = world.store("mcp/lasting", "lasting")
        world.mcp.accepts["lasting"] = lambda headers: headers.get("x-api-key") == new
        claims.hold("the new one is used", until(lambda: len([s for s in world.mcp.of("lasting") if s.headers.get("x-api-key") == new]) > 10))
    used = time.monotonic()
    claims.equal(f"none of {len(load.answers)} calls failed", load.failed[:3], [])
    again = [r for r in world.records() if r.get("credential_retried")]
    claims.hold(f"{len(again)} of them were made once more, and the records say so", again)
    claims.equal("with the new version", {r.get("credential_version") for r in again}, {2})
    answer = world.call("lasting", tool="show")
    claims.hold("what the server shows is masked as before", answer.ok and "*" * 16 in answer.text, answer)
    until(lambda: time.monotonic() > used + SURELY_CURRENT_SECONDS)
    accepts, world.mcp.accepts["lasting"] = world.mcp.accepts["lasting"], lambda _: False
    before = len(world.mcp.of("lasting"))
    answer = world.call("lasting")
    claims.equal("what is refused though it is the newest is an error", (answer.status, answer.reason()), (502, "server_unauthorized"))
    claims.equal("and nobody is asked twice with the same", len(world.mcp.of("lasting")), before + 1)
    world.mcp.accepts["lasting"] = accepts
    claims.hold("once it is accepted again, calls are served", world.call("lasting").ok)
    world.records()


def logins_and_leases_are_renewed_while_they_are_used(world: World, claims: Claims) -> None:
    claims.begin("What is in use is renewed")
    world.call("lent")
    world.records()
    with Load(world, "lent", "direct") as load:
        claims.hold(
            "the gateway renews its token at the vault",
            until(lambda: [t for t in world.approle_tokens().values() if t.get("last_renewal_time")]),
        )
        seen: list[dict[str, Any]] = []
        claims.hold(
            f"one lease of {LEASE_SECONDS} s serves for longer than that",
            until(lambda: longest_lease(so_far(world, seen)) > LEASE_SECONDS),
            longest_lease(seen),
        )
    claims.equal(f"none of {len(load.answers)} calls failed", load.failed[:3], [])
    world.records()


def longest_lease(records: list[dict[str, Any]]) -> float:
    """For how many seconds the lease that served longest did."""
    times: dict[str, list[float]] = {}
    for record in records:
        if "credential_lease" in record:
            times.setdefault(record["credential_lease"], []).append(record["at"])
    return max((served[-1] - served[0] for served in times.values()), default=0.0)


def a_lease_is_revoked_and_one_ends(world: World, claims: Claims) -> None:
    claims.begin("A lease is revoked, another ends")
    before, user = lease_of(world, "lent")
    with Load(world, "lent") as load:
        world.vault.put("sys/leases/revoke-prefix/database/creds/app")
        claims.hold("the database knows its user no more", until(lambda: not world.database.opens(*user)))

        def another() -> bool:
            return any(r.get("credential_lease") not in (None, before) for r in so_far(world, seen))

        seen: list[dict[str, Any]] = []
        claims.hold("another takes the place of the one that was revoked", until(another), seen[-1:])
    claims.equal(f"none of {len(load.answers)} calls failed", load.failed[:3], [])
    world.records()
    before, user = lease_of(world, "brief")
    claims.hold("the vault ends one when nobody uses it", until(lambda: not world.vault.keys("sys/leases/lookup/database/creds/brief")))
    claims.hold("the database knows its user no more", until(lambda: not world.database.opens(*user)))
    # On a slow machine it is over before the server gets to see it; the one before is what must not be seen.
    answered = until(lambda: world.call("brief").ok)
    records = world.records()
    claims.hold("the next call gets another", answered, records[-1:])
    used = [record.get("credential_lease") for record in records]
    claims.hold("with a lease of its own", used[-1] and before not in used, used)
    claims.hold("and a user of its own", user not in [basic(seen.headers) for seen in world.mcp.of("brief")[-len(records) :]])


def lease_of(world: World, server: str) -> tuple[str, tuple[str, str]]:
    """A lease that a server was called with, and the user that was lent."""
    until(lambda: world.call(server).ok)
    return world.records()[-1]["credential_lease"], basic(world.mcp.of(server)[-1].headers)


def so_far(world: World, seen: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of the access log so far, while calls run, with their times: whole lines only."""
    text = world.access_log.read_text()
    lines = text[: text.rfind("\n") + 1].splitlines()[world.records_read :]
    parsed = [json.loads(line) for line in lines]
    seen[:] = [json.loads(line["record"]) | {"at": datetime.fromisoformat(line["time"]).timestamp()} for line in parsed]
    return seen


def the_gateways_tokens_are_revoked(world: World, claims: Claims) -> None:
    claims.begin("The gateway's tokens at the vault are revoked")
    with Load(world, "direct", "front", "lasting") as load:
        claims.hold("calls run", until(lambda: len(load.answers) > 10), load.failed)
        old = set(world.approle_tokens())
        for accessor in old:
            world.vault.post("auth/token/revoke-accessor", {"accessor": accessor})
        new = world.store("mcp/direct", "direct")
        used = until(lambda: [s for s in world.mcp.of("direct") if s.headers.get("x-api-key") == new])
        claims.hold("it logs in again and reads what has changed", used)
    claims.hold("there were tokens to revoke, and there are others", old and set(world.approle_tokens()) - old, old)
    claims.equal(f"none of {len(load.answers)} calls failed", load.failed[:3], [])
    world.records()


def a_vault_that_is_slow_or_talks_nonsense(world: World, claims: Claims) -> None:
    for what, mode, person, detail in (
        ("answers garbage", "garbage", "bob", "the vault's answer could not be understood"),
        ("answers with 10 MB", "huge", "carol", "the vault's answer is larger than any secret"),
        ("is slow", "hold", "dave", "the vault did not answer"),
    ):
        claims.begin(f"The vault {what}")
        world.front.modes[f"/users/{person}"] = mode
        world.store(f"users/{person}", f"{person} at front")
        answer = world.call("front", person)
        claims.equal("a call that needs it is an error", (answer.status, answer.reason()), UNAVAILABLE)
        [record] = world.records()
        claims.equal("the record says why", (record["decision"], record.get("detail")), ("error", detail))
        answer = world.call("front", "erin")
        claims.hold("others are served", answer.ok, answer)
        world.front.modes.clear()
        claims.hold("and so is the call once it answers well", until(lambda: world.call("front", person).ok))
        world.records()


def the_vault_is_sealed_and_unsealed(world: World, claims: Claims) -> None:
    claims.begin("The vault is sealed and unsealed")
    claims.hold("two credentials are in use", world.call("lasting").ok and world.call("direct").ok)
    with Load(world, "lasting") as load:
        world.openbao.seal()
        nothing_new(world, claims)
        world.openbao.unseal()
        claims.hold("it is back once the vault is", until(lambda: world.call("direct").ok))
    claims.equal(f"what lasted served all of {len(load.answers)} calls", load.failed[:3], [])
    world.records()


def the_vault_is_killed_and_comes_back(world: World, claims: Claims) -> None:
    claims.begin("The vault is killed and comes back")
    with Load(world, "lasting") as load:
        world.openbao.kill()
        nothing_new(world, claims)
        world.openbao.start()
        claims.equal("it comes back sealed", (world.call("direct").status, world.call("direct").reason()), UNAVAILABLE)
        world.openbao.unseal()
        served_again(world, claims)
    claims.equal(f"what lasted served all of {len(load.answers)} calls", load.failed[:3], [])
    only_credentials_failed(world, claims)


def another_vault_takes_its_place(world: World, claims: Claims) -> None:
    claims.begin("The vault is lost, and another takes its place that knows nobody")
    with Load(world, "lasting") as load:
        world.openbao.kill()
        nothing_new(world, claims)
        world.begin_vault()
        served_again(world, claims)
    claims.equal(f"what lasted served all of {len(load.answers)} calls", load.failed[:3], [])
    only_credentials_failed(world, claims)


def nothing_new(world: World, claims: Claims) -> None:
    refused = until(lambda: (answer := world.call("direct")).status == 503 and answer)
    claims.hold("what has ended is an error", refused and (refused.status, refused.reason()) == UNAVAILABLE, refused)


def served_again(world: World, claims: Claims) -> None:
    for server in ("direct", "front", "tenant", "lent", "own"):
        claims.hold(f"{server} is served again", until(lambda server=server: world.call(server).ok))


def only_credentials_failed(world: World, claims: Claims) -> None:
    failures = {r.get("reason") for r in world.records() if r["decision"] != "allow"}
    claims.hold("every failure is that of a credential", failures <= {"credential_unavailable"}, failures)


# --- and what nobody may see -----------------------------------------------------------------------


def nothing_leaked(world: World, claims: Claims) -> None:
    claims.begin("Nothing leaked")
    world.keep_admin()
    secrets_seen(world)
    left = [world.client_log, world.admin_log, world.access_log, HOME / "envoy.log"]
    empty = [file.name for file in left if not file.stat().st_size]
    claims.equal("there is something in every file that is searched", empty, [])
    size = sum(file.stat().st_size for file in left) >> 10
    found = sorted(search.occurrences(world.known, left))
    claims.equal(f"none of {len(world.known)} secrets stands in {size} KB that left the gateway, in any form", found[:10], [])
    # The search has to be one that finds: what carried secrets is searched in the same way.
    carried = "\n".join(search.occurrences(world.known, [world.mcp.log, world.front.log]))
    for name in world.known:
        if name.startswith(("key ", "access token", "vault token")) or name in CARRIED:
            claims.hold(f"{name} is found where it was sent", f"{name} (plain)" in carried)
        if name.startswith("password of "):
            claims.hold(f"{name} is found where it was sent", f"{name} (Base64" in carried)
    control = HOME / "control"
    value = next(iter(world.known.values()))
    missed = []
    for form, written in search.forms(value).items():
        control.write_bytes(b"before" + written + b"after")
        missed += [form] if not list(search.occurrences({"it": value}, [control])) else []
    for length in range(3):
        control.write_bytes(b"Basic " + base64.b64encode(b"u" * length + value.encode() + b"x"))
        missed += [f"after {length}"] if not list(search.occurrences({"it": value}, [control])) else []
    claims.equal("every form of a secret is found where one is", missed, [])
    crashes = [line for line in (HOME / "envoy.log").read_text().splitlines() if "panic" in line or "[critical]" in line]
    claims.equal("the plugin did not fail in any of it", crashes, [])


def secrets_seen(world: World) -> None:
    """Adds what the vault made itself: tokens that passed through the front, and leases."""
    tokens = set(VAULT_TOKEN.findall(world.front.log.read_text()))
    world.known |= {f"vault token {number}": token for number, token in enumerate(sorted(tokens))}
    for role in ("app", "brief"):
        for number, lease in enumerate(world.vault.keys(f"sys/leases/lookup/database/creds/{role}")):
            world.known[f"lease {number} of {role}"] = lease


def payload(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


if __name__ == "__main__":
    main()
