"""`scripts/demo`: an agent's tool calls through a real Envoy, told step by step.

    scripts/demo             builds, starts everything, plays the calls, shows the records, stops everything
    scripts/demo --keep      leaves it running, for your own client; target/demo/session.json says where
    scripts/demo --stop      stops what --keep left running
    scripts/demo --no-vault  takes the credential from the environment, and starts no vault

Each claim is checked, not only printed; the exit code is 0 when every check passed.
"""

import argparse
import sys
from typing import Any

from stack import keeping, servers
from stack.console import (
    TARGET,
    StackError,
    Stopwatch,
    fail,
    heading,
    json_text,
    labelled,
    relative,
    say,
    shortened,
)
from stack.preparing import check_prerequisites, prepare
from stack.running import Stack
from stack.supervisor import Supervisor, require_free_ports

DEMO = TARGET / "demo"
SESSION = DEMO / "session.json"
# What the demo shows of a record, where it is set; the access log has it all.
OF_A_CALL = (
    *("decision", "reason", "principal", "client", "server", "mcp_method", "tool", "policies"),
    *("credential", "credential_source", "upstream_status", "decided_us", "duration_ms"),
)
OF_A_LIST = ("decision", "reason", "principal", "server", "mcp_method", "policies", "listed", "hidden")


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/demo", description="Shows the gateway at work on real parts.")
    parser.add_argument("--keep", action="store_true", help="leave everything running and say how to use it")
    parser.add_argument("--stop", action="store_true", help="stop what --keep left running")
    parser.add_argument("--no-vault", action="store_true", help="take the credential from the environment")
    given = parser.parse_args()
    try:
        if given.stop:
            keeping.stop(SESSION)
            return
        passed = run(keep=given.keep, with_vault=not given.no_vault)
    except StackError as error:
        fail(error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0 if passed else 1)


def run(*, keep: bool, with_vault: bool) -> bool:
    watch = Stopwatch()
    with Supervisor(DEMO) as supervisor:
        stack = start(supervisor, watch, with_vault=with_vault)
        story = Story(stack)
        with watch.timing("the first call, with the start of its client"):
            story.a_refund_that_is_too_large()
        first_decision = watch.elapsed()
        story.a_refund_with_a_credential()
        story.a_refund_by_somebody_else()
        story.a_call_without_a_credential()
        story.what_each_of_them_sees()
        story.the_records_as_a_whole()
        if keep:
            keeping.write_session(SESSION, stack, supervisor.release())
        else:
            supervisor.stop_all()
    heading(f"From the start to the first decision: {first_decision:.1f} s")
    watch.show()
    if keep:
        keeping.explain(SESSION, stack)
    else:
        say("Everything is stopped. `scripts/demo --keep` leaves it running for a client of your own.")
    print(f"\ndemo: {story.passed} passed, {story.failed} failed", flush=True)
    return story.failed == 0


def start(supervisor: Supervisor, watch: Stopwatch, *, with_vault: bool) -> Stack:
    print("Toolgate: Envoy as the gateway between agents and MCP servers", flush=True)
    heading("Preparing")
    check_prerequisites(servers.PORTS)
    parts = prepare(watch, with_vault=with_vault)
    if parts.vault is None:
        labelled("vault", "none: the gateway takes the credential from its environment instead")
    heading("Starting")
    require_free_ports(servers.PORTS)  # once more: preparing may have taken minutes
    stack = Stack(supervisor, parts, DEMO)
    with watch.timing("starting servers, vault and Envoy" if parts.vault else "starting servers and Envoy"):
        stack.start()
    labelled("everything", f"{servers.UPSTREAMS['everything']}   the MCP reference server")
    labelled("billing", f"{servers.UPSTREAMS['billing']}   an MCP server that refuses requests without its key")
    if parts.vault:
        labelled("vault", f"{servers.VAULT}       holds the key; nobody else does")
    labelled("Envoy", f"{servers.GATEWAY}      envoy/envoy.yaml, with the plugin")
    return stack


class Story:
    """The calls, each with what must be seen from outside: at the server, at the vault, in the record.

    Every call is made by the official Python client.
    """

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.has_vault = stack.parts.vault is not None
        self.passed = self.failed = 0

    def a_refund_that_is_too_large(self) -> None:
        heading("1. alice (finance) calls billing/refund for 5000: denied, her limit is 100")
        answer = self.refund("alice", 5000)
        records = self.show(answer, "tools/call")
        self.check("the client got error 403", not answer["ok"] and answer["error"]["code"] == 403)
        self.check("one record, a denial", [record.get("decision") for record in records] == ["deny"])
        arrived = len(self.stack.billing_requests())
        self.check(f"billing received {arrived} requests ({relative(self.stack.request_log)})", arrived == 0)
        if self.has_vault:
            asked = self.stack.vault_logins(), self.stack.vault_reads()
            claim = f"the vault received {asked[0]} logins, {asked[1]} reads ({relative(self.stack.audit_log)})"
            self.check(claim, asked == (0, 0))

    def a_refund_with_a_credential(self) -> None:
        source = "the vault" if self.has_vault else "the environment"
        heading(f"2. alice calls billing/refund for 40: allowed, with the key from {source}")
        answer = self.refund("alice", 40)
        [record, *_] = self.show(answer, "tools/call") or [{}]
        self.check("the tool answered", succeeded(answer))
        refunds = self.refunds()
        self.check(
            f"billing received {len(refunds)} refund, with its key, without alice's token",
            [(refund["key_accepted"], refund["authorization"]) for refund in refunds] == [(True, False)],
        )
        self.check("the record names the credential", record.get("credential") == "billing-key")
        if self.has_vault:
            asked = self.stack.vault_logins(), self.stack.vault_reads()
            claim = f"the vault received {asked[0]} login, {asked[1]} read of {servers.GATEWAY_SECRET_PATH}"
            self.check(claim, min(asked) >= 1 and max(asked) <= 2)  # each of Envoy's workers reads for itself

    def a_refund_by_somebody_else(self) -> None:
        heading("3. bob (engineering) calls billing/refund for 40: denied, to him there is no such tool")
        answer = self.refund("bob", 40)
        self.show(answer, "tools/call")
        self.check("the client got an error", not answer["ok"])
        self.check("billing received nothing more", len(self.refunds()) == 1)

    def a_call_without_a_credential(self) -> None:
        heading("4. bob calls everything/echo: allowed, this server needs no credential")
        call = ("call", "echo", '{"message":"hi"}')
        answer = self.stack.client(self.stack.tokens["bob"], "everything", "legacy", *call)[-1]
        [record, *_] = self.show(answer, "tools/call") or [{}]
        self.check("the tool answered", succeeded(answer))
        self.check("the record names no credential", record.get("decision") == "allow" and not record.get("credential"))

    def what_each_of_them_sees(self) -> None:
        heading("5. What each of them sees: the same policies filter the lists")
        seen: dict[tuple[str, str], set[str]] = {}
        for person in ("alice", "bob"):
            for server in servers.SERVERS:
                answer = self.stack.client(self.stack.tokens[person], server, "auto", "tools")[-1]
                seen[person, server] = set(answer["result"]) if answer["ok"] else set()
                self.show(answer, "tools/list", label=f"{person}", server=server)
        of_finance = {"list_invoices", "refund", "statement"}
        self.check("alice sees refund and not delete_customer", seen["alice", "billing"] == of_finance)
        self.check("bob sees nothing of billing", not seen["bob", "billing"])
        playgrounds = [seen[person, "everything"] for person in ("alice", "bob")]
        hidden = all("echo" in tools and "get-env" not in tools for tools in playgrounds)
        self.check("nobody sees get-env, which tells the environment of its server", hidden)

    def the_records_as_a_whole(self) -> None:
        heading("6. The records as a whole")
        began, _ = self.stack.exchanges()
        lines = self.stack.settled_lines()
        claim = f"Envoy counted {began} exchanges and wrote {len(lines)} records ({relative(self.stack.access_log)})"
        self.check(claim, began == len(lines))
        self.stack.records_read = 0
        decisions = [record.get("decision") for record in self.stack.records()]
        counts = ", ".join(f"{decisions.count(decision)} {decision}" for decision in sorted(set(map(str, decisions))))
        self.check(f"each has a decision: {counts}", set(decisions) <= {"allow", "deny"})
        leaks, files = self.stack.leaks(), len(self.stack.logs())
        secrets = ", ".join(self.stack.known.values)
        self.check(f"no secret is in any log or answer ({files} files searched for: {secrets})", not leaks)
        for leak in leaks:
            say(f"       found the {leak}")

    # --- telling -------------------------------------------------------------------------------------

    def refund(self, who: str, amount: int) -> dict[str, Any]:
        """One refund as a single request, 2026-07-28, which has no session to open before it."""
        arguments = f'{{"invoice":"INV-1","amount":{amount}}}'
        return self.stack.client(self.stack.tokens[who], "billing", "modern", "call", "refund", arguments)[-1]

    def refunds(self) -> list[dict[str, Any]]:
        return [request for request in self.stack.billing_requests() if request["tool"] == "refund"]

    def show(
        self, answer: dict[str, Any], method: str, label: str = "answer", server: str | None = None
    ) -> list[dict[str, Any]]:
        """Shows the answer and the records of this method; what else the client sent is only counted."""
        records = self.stack.records()
        fields = OF_A_LIST if method == "tools/list" else OF_A_CALL
        shown = [record for record in records if record.get("mcp_method") == method] or records[-1:]
        text = text_of(answer, shown)
        labelled(label, shortened(f"{server}: {text}") if server else text)
        for record in shown:
            labelled("record", json_text({field: record[field] for field in fields if record.get(field) is not None}))
        return shown

    def check(self, claim: str, holds: bool) -> None:
        if holds:
            self.passed += 1
        else:
            self.failed += 1
        labelled("ok" if holds else "FAILED", claim)


def succeeded(answer: dict[str, Any]) -> bool:
    return answer["ok"] and not answer["result"].get("isError")


def text_of(answer: dict[str, Any], records: list[dict[str, Any]]) -> str:
    """What the client got, in a line."""
    if not answer["ok"]:
        return f"error {answer['error']['code']}: {answer['error']['message']}"
    if isinstance(answer["result"], list):
        listed, hidden = (sum(int(record.get(field) or 0) for record in records) for field in ("listed", "hidden"))
        return f"{listed} of {listed + hidden} tools: {', '.join(answer['result'])}"
    return " ".join(part.get("text", part["type"]) for part in answer["result"].get("content", []))


if __name__ == "__main__":
    main()
