"""What each official client sees of the gateway, as alice (finance) and as bob (engineering)."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stack import servers
from stack.running import Stack

from claims import Claims

OF_FINANCE = ["list_invoices", "refund", "statement"]
ADVICE = "Refunds over 100 need a person: ask for approval in the finance channel, naming the invoice."
QUARTERS, STEPS = 4, 4


@dataclass(frozen=True)
class Client:
    """An official client, and the era it is told to speak."""

    name: str
    program: str
    era: str

    @property
    def speaks_legacy(self) -> bool:
        """Whether it can talk to a server that has no 2026-07-28."""
        return self.era != "modern"

    def protocol(self, server: str) -> str:
        return "2025-11-25" if self.era == "legacy" or server == "everything" else "2026-07-28"


CLIENTS = [
    Client("Python SDK, legacy", "client.py", "legacy"),
    Client("Python SDK, auto", "client.py", "auto"),
    Client("Python SDK, 2026-07-28", "client.py", "modern"),
    Client("TypeScript SDK v1", "client-v1.mjs", "legacy"),
    Client("TypeScript SDK v2, legacy", "client-v2.mjs", "legacy"),
    Client("TypeScript SDK v2, auto", "client-v2.mjs", "auto"),
    Client("TypeScript SDK v2, 2026-07-28", "client-v2.mjs", "modern"),
]


class Answers:
    """What a client said to the actions it was given, each taken in turn."""

    def __init__(self, lines: list[dict[str, Any]]) -> None:
        self.lines = iter(lines)

    def next(self, action: str) -> dict[str, Any]:
        line = next(self.lines, None)
        if line is None or line["action"] != action:
            return {"ok": False, "error": {"code": None, "message": f"no answer to {action}", "data": None}}
        return line


def act(stack: Stack, client: Client, token: str | None, server: str, *actions: list[str]) -> Answers:
    words = [word for action in actions for word in action]
    return Answers(stack.client(token, server, client.era, *words, program=client.program))


def alice_at_billing(stack: Stack, claims: Claims, client: Client) -> None:
    claims.begin(f"{client.name}: alice at billing")
    before = len(refunds(stack))
    answers = act(
        stack,
        client,
        stack.tokens["alice"],
        "billing",
        ["tools"],
        call("refund", invoice="INV-1", amount=40),
        call("refund", invoice="INV-1", amount=5000),
        call("refund", invoice="INV-1", amount="40"),
        call("refund", invoice="INV-1", amount=40, currency="EUR"),
        call("delete_customer", customer="acme"),
        ["progress", "statement", "{}"],
        ["prompts"],
        ["prompt", "dunning_letter", '{"customer":"acme"}'],
        ["prompt", "other", "{}"],
        ["resources"],
        ["read", "billing://terms"],
        ["read", "billing://ledger"],
    )
    connected = answers.next("connect")
    claims.equal("connects", result(connected).get("protocol"), client.protocol("billing"))
    claims.equal("sees exactly the tools of finance", result(answers.next("tools")), OF_FINANCE)
    claims.hold("a small refund is paid", "refunded 40" in text(line := answers.next("call")), line)
    line = answers.next("call")
    claims.equal("a large one is an error 403 in the client", code(line), 403)
    claims.hold("whose message is the policy's advice", ADVICE in message(line), line)
    claims.equal("and whose data says what kind it is", reason(line), "arguments_refused")
    line = answers.next("call")
    claims.equal("an argument of another type is refused", (code(line), reason(line)), (-32602, "argument_types"))
    claims.hold("naming the argument", "amount" in message(line), line)
    line = answers.next("call")
    claims.equal("so is one that is not declared", (code(line), reason(line)), (-32602, "argument_types"))
    line = answers.next("call")
    claims.equal("a forbidden tool is unknown", code(line), -32602)
    claims.hold("in the words for any unknown tool", "Unknown tool: delete_customer" in message(line), line)
    streamed(claims, answers.next("progress"), QUARTERS)
    claims.equal("sees the permitted prompt only", result(answers.next("prompts")), ["dunning_letter"])
    claims.hold("gets it", "friendly reminder to acme" in json.dumps(result(line := answers.next("prompt"))), line)
    claims.hold("another prompt is unknown", "Unknown prompt: other" in message(line := answers.next("prompt")), line)
    claims.equal("sees the permitted resource only", result(answers.next("resources")), ["billing://terms"])
    claims.hold("reads it", "30 days" in json.dumps(result(line := answers.next("read"))), line)
    line = answers.next("read")
    expected = -32002 if client.protocol("billing") == "2025-11-25" else -32602
    claims.equal("another resource is unknown, by its revision's code", code(line), expected)

    records = stack.records()
    claims.equal("the server got one refund", len(refunds(stack)) - before, 1)
    calls = [record for record in records if record["mcp_method"] == "tools/call"]
    expected_calls = [
        ("refund", "allow", None),
        ("refund", "deny", "arguments_refused"),
        ("refund", "deny", "argument_types"),
        ("refund", "deny", "argument_types"),
        ("delete_customer", "deny", "not_visible"),
        ("statement", "allow", None),
    ]
    seen = [(record["tool"], record["decision"], record["reason"]) for record in calls]
    claims.equal("each call has its record", seen, expected_calls)
    who = {(record["principal"], record["client"]) for record in records}
    claims.equal("all of them alice's, by her client", who, {("alice", "demo-agent")})


def bob_at_everything(stack: Stack, claims: Claims, client: Client) -> None:
    claims.begin(f"{client.name}: bob at everything")
    bob = stack.tokens["bob"]
    if not client.speaks_legacy:
        answers = act(stack, client, bob, "everything", ["tools"])
        seen = [answers.next("connect"), answers.next("tools")]
        claims.hold("a server without 2026-07-28 is an error", not all(line["ok"] for line in seen), seen)
        stack.records()
        return
    direct = stack.client(None, "everything", client.era, "tools", program=client.program, around_the_gateway=True)
    offered = direct[-1]["result"]
    answers = act(
        stack,
        client,
        bob,
        "everything",
        ["tools"],
        call("echo", message="grüß dich 😀"),
        call("get-env"),
        ["progress", "trigger-long-running-operation", json.dumps({"duration": 2, "steps": STEPS})],
        ["prompts"],
        ["prompt", "simple-prompt", "{}"],
        ["resources"],
    )
    claims.equal("connects", result(answers.next("connect")).get("protocol"), client.protocol("everything"))
    claims.hold("the server offers get-env", "get-env" in offered, offered)
    permitted = [tool for tool in offered if tool != "get-env"]
    claims.equal("sees all its tools but that", result(answers.next("tools")), permitted)
    claims.hold("a call is answered, whatever its letters", "grüß dich 😀" in text(line := answers.next("call")), line)
    claims.hold("get-env is unknown", "Unknown tool: get-env" in message(line := answers.next("call")), line)
    line = answers.next("progress")
    streamed(claims, line, STEPS)
    notes, after = result(line).get("progress", []), result(line).get("after", 0)
    first = notes[0]["after"] if notes else after
    claims.hold("the first long before the result: nothing is held back", after - first > after / 2, line)
    claims.hold("sees the prompts", "simple-prompt" in result(line := answers.next("prompts")), line)
    claims.hold("gets one", result(line := answers.next("prompt")).get("messages"), line)
    claims.hold("sees the resources", result(line := answers.next("resources")), line)
    records = stack.records()
    lists = [(record["listed"], record["hidden"]) for record in records if record["mcp_method"] == "tools/list"]
    claims.hold("the record counts one hidden tool", (str(len(permitted)), "1") in lists, lists)
    ends = [record["response_code"] for record in records if record["http_method"] == "DELETE"]
    claims.equal("the session is ended by the client", ends, [200])


def bob_at_billing(stack: Stack, claims: Claims, client: Client) -> None:
    claims.begin(f"{client.name}: bob at billing")
    before = len(stack.billing_requests())
    answers = act(stack, client, stack.tokens["bob"], "billing", ["tools"], call("list_invoices"))
    seen = [answers.next("connect"), answers.next("tools"), answers.next("call")]
    if seen[0]["ok"]:  # this client asks nothing before its first request
        seen = seen[1:]
        claims.hold("a call meets an unknown tool", "Unknown tool: list_invoices" in message(seen[1]), seen[1])
    claims.equal("the server does not exist to him", (seen[0]["ok"], seen[0]["error"].get("http_status")), (False, 404))
    records = stack.records()
    claims.equal("each request was denied", {record["decision"] for record in records}, {"deny"})
    claims.equal("nothing reached the server", len(stack.billing_requests()), before)


def without_a_valid_token(stack: Stack, claims: Claims, client: Client) -> None:
    claims.begin(f"{client.name}: without a valid token")
    before = len(stack.billing_requests())
    expired = stack.sign_in("alice", expires_in=-3600)["alice"]
    for what, token, expected in (("no token", None, "no_token"), ("an expired token", expired, "expired_token")):
        answers = act(stack, client, token, "billing", ["tools"])
        line = answers.next("connect")
        if line["ok"]:
            line = answers.next("tools")
        claims.equal(
            f"{what} is an HTTP 401 in the client", (line["ok"], line["error"].get("http_status")), (False, 401)
        )
        records = stack.records()
        seen = {(record["decision"], record["reason"], record["principal"]) for record in records}
        claims.equal("and a denial in the record, of nobody", seen, {("deny", expected, None)})
    claims.equal("nothing reached the server", len(stack.billing_requests()), before)


def the_inspector(stack: Stack, claims: Claims, program: Path) -> None:
    claims.begin("MCP Inspector, on the command line: alice at billing")
    home = stack.home / "inspector"  # where it keeps its catalogue
    home.mkdir(exist_ok=True)

    def inspect(token: str, *words: str) -> tuple[dict[str, Any], str]:
        header = ["--stored-auth-only", "--header", f"Authorization: Bearer {token}"]
        command = [str(program), "--cli", servers.SERVERS["billing"], "--transport", "http", *header, *words]
        answer = stack.run_client(command, {"HOME": str(home)})
        try:
            return json.loads(answer.stdout), answer.stderr
        except ValueError:
            return {}, answer.stdout + answer.stderr

    answer, said = inspect(stack.tokens["alice"], "--method", "tools/list")
    claims.equal("lists exactly her tools", [tool["name"] for tool in answer.get("tools", [said])], OF_FINANCE)
    arguments = ["--tool-arg", "invoice=INV-1", "amount=40"]
    answer, said = inspect(stack.tokens["alice"], "--method", "tools/call", "--tool-name", "refund", *arguments)
    claims.hold("calls one", "refunded 40" in json.dumps(answer), said)
    arguments = ["--tool-arg", "invoice=INV-1", "amount=5000"]
    answer, said = inspect(stack.tokens["alice"], "--method", "tools/call", "--tool-name", "refund", *arguments)
    claims.hold("shows the advice where it is refused", ADVICE in said + json.dumps(answer), said)
    answer, said = inspect("nonsense", "--method", "tools/list")
    claims.hold("is told 401 with a token that is none", not answer.get("tools") and "401" in said, said)
    stack.records()


# --- reading what a client said ----------------------------------------------------------------------


def call(tool: str, **arguments: object) -> list[str]:
    return ["call", tool, json.dumps(arguments)]


def result(line: dict[str, Any]) -> Any:
    """The result of an action; nothing when it failed."""
    return line["result"] if line["ok"] else {}


def text(line: dict[str, Any]) -> str:
    return " ".join(part.get("text", "") for part in result(line).get("content", []))


def message(line: dict[str, Any]) -> str:
    return "" if line["ok"] else line["error"]["message"]


def code(line: dict[str, Any]) -> int | None:
    return None if line["ok"] else line["error"]["code"]


def reason(line: dict[str, Any]) -> str | None:
    return None if line["ok"] else (line["error"]["data"] or {}).get("reason")


def streamed(claims: Claims, line: dict[str, Any], count: int) -> None:
    """The notifications of a call came each in its turn, and before its result."""
    notes = result(line).get("progress", [])
    claims.equal("progress is told in its order", [note["progress"] for note in notes], list(range(1, count + 1)))
    arrivals = [note["after"] for note in notes]
    claims.hold("each notification before the result", all(at < result(line)["after"] for at in arrivals), line)


def refunds(stack: Stack) -> list[dict[str, Any]]:
    return [request for request in stack.billing_requests() if request["tool"] == "refund"]
