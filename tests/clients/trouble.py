"""What goes wrong around the clients: a vault, a server, a session, a connection. And the run as a whole."""

import http.client
import json
import socket
import time
from dataclasses import dataclass, field
from typing import Any

from stack import servers
from stack.running import Stack
from stack.supervisor import POLL_SECONDS

import matrix
from claims import Claims
from matrix import OF_FINANCE, Client

PYTHON = Client("Python SDK, 2026-07-28", "client.py", "modern")
TYPESCRIPT = Client("TypeScript SDK v1", "client-v1.mjs", "legacy")
LONG_CALL = {"name": "trigger-long-running-operation", "arguments": {"duration": 6, "steps": 60}}
SEEN_WITHIN_SECONDS = 60.0
FAILURE_REMEMBERED_SECONDS = 8.0  # the longest that a failed request for a credential is remembered


@dataclass
class Answer:
    """An answer as it came over HTTP."""

    status: int
    headers: dict[str, str]
    text: str

    def json(self) -> dict[str, Any]:
        try:
            value = json.loads(self.text)
        except ValueError:
            value = None
        return value if isinstance(value, dict) else {}

    def reason(self) -> str | None:
        return (self.json().get("error", {}).get("data") or {}).get("reason")


@dataclass
class Session:
    """A legacy session, spoken by hand."""

    stack: Stack
    server: str
    token: str | None
    headers: dict[str, str] = field(default_factory=dict)

    def open(self) -> Answer:
        client = {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "by-hand", "version": "1"},
        }
        answer = self.post({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": client})
        if "mcp-session-id" in answer.headers:
            self.headers = {"mcp-session-id": answer.headers["mcp-session-id"], "mcp-protocol-version": "2025-11-25"}
        self.post({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return answer

    def post(self, message: object) -> Answer:
        return self.send("POST", json.dumps(message).encode())

    def send(self, method: str, body: bytes | None = None, **headers: str) -> Answer:
        connection = self.connect()
        try:
            connection.request(method, self.path, body, self.all_headers() | headers)
            response = connection.getresponse()
            text = response.read().decode(errors="replace")
        finally:
            connection.close()
        answer = Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, text)
        self.stack.keep(f"HTTP {answer.status} {json.dumps(answer.headers)}\n{text}")
        return answer

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", servers.GATEWAY_PORT, timeout=SEEN_WITHIN_SECONDS)

    @property
    def path(self) -> str:
        return f"/mcp/{self.server}"

    def all_headers(self) -> dict[str, str]:
        bearer = {"authorization": f"Bearer {self.token}"} if self.token else {}
        common = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        return common | bearer | self.headers


def the_vault_is_down_and_comes_back(stack: Stack, claims: Claims) -> None:
    claims.begin("The vault is down and comes back")
    stack.stop("vault")
    for client in (PYTHON, TYPESCRIPT):
        answers = matrix.act(stack, client, stack.tokens["alice"], "billing", matrix.call("list_invoices"))
        line = answers.next("connect")
        line = answers.next("call") if line["ok"] else line
        seen = (line["ok"], line["error"].get("http_status"), matrix.code(line))
        claims.equal(f"{client.name}: a call that needs it is an error 503", seen, (False, 503, 503))
        records = stack.records()
        errors = {(record["decision"], record["reason"], record["credential"]) for record in records}
        expected = {("error", "credential_unavailable", "billing-key")}
        claims.equal("and an error in the record, naming the credential", errors, expected)
    claims.equal("the server got nothing without its key", stack.billing_requests(), [])
    stack.start_vault()
    line = list_invoices_once_the_failure_is_forgotten(stack)
    claims.hold("with the vault back the call is answered", "INV-1" in matrix.text(line), line)
    records = [record for record in stack.records() if record["mcp_method"] == "tools/call"]
    outcomes = [(record["decision"], record["credential_source"]) for record in records]
    claims.equal("with the key from the vault", outcomes[-1:], [("allow", "vault")])
    before = {(record["decision"], record["reason"]) for record in records[:-1]}
    claims.hold("and until then each is the error of a failure still remembered", before <= {("error", "credential_unavailable")}, before)


def list_invoices_once_the_failure_is_forgotten(stack: Stack) -> dict[str, Any]:
    """Calls until the gateway asks the vault again, as the error tells a client to: it spares a vault that failed."""
    deadline = time.monotonic() + FAILURE_REMEMBERED_SECONDS + SEEN_WITHIN_SECONDS
    while True:
        answers = matrix.act(stack, PYTHON, stack.tokens["alice"], "billing", matrix.call("list_invoices"))
        answers.next("connect")
        line = answers.next("call")
        if line["ok"] or time.monotonic() > deadline:
            return line


def a_server_is_down_and_comes_back(stack: Stack, claims: Claims) -> None:
    claims.begin("A server is down and comes back")
    stack.stop("billing")
    for client in (PYTHON, TYPESCRIPT):
        answers = matrix.act(stack, client, stack.tokens["alice"], "billing", matrix.call("list_invoices"))
        line = answers.next("connect")
        line = answers.next("call") if line["ok"] else line
        seen = (line["ok"], line["error"].get("http_status"), matrix.code(line))
        claims.equal(f"{client.name}: a call to it is an error 503", seen, (False, 503, 503))
        errors = {(record["decision"], record["reason"]) for record in stack.records()}
        claims.equal("and an error in the record", errors, {("error", "server_unreachable")})
    stack.start_billing()
    answers = matrix.act(stack, PYTHON, stack.tokens["alice"], "billing", ["tools"])
    answers.next("connect")
    claims.equal("with the server back it is answered", matrix.result(answers.next("tools")), OF_FINANCE)
    stack.records()


def a_session_that_has_ended(stack: Stack, claims: Claims) -> None:
    for server, person in (("everything", "bob"), ("billing", "alice")):
        claims.begin(f"A session at {server} that has ended")
        session = Session(stack, server, stack.tokens[person])
        opened = session.open()
        claims.equal("it is opened", (opened.status, "mcp-session-id" in opened.headers), (200, True))
        listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        claims.hold("it is of use", '"tools":' in (answer := session.post(listing)).text, answer)
        claims.equal("DELETE ends it", session.send("DELETE").status, 200)
        answer = session.post(listing)
        claims.hold("what comes after is an error", 400 <= answer.status < 500 and "error" in answer.json(), answer)
        claims.hold("and lists nothing", '"tools":' not in answer.text, answer)
        seen = [record["mcp_method"] for record in stack.records()]
        expected = ["initialize", "notifications/initialized", "tools/list", "DELETE", "tools/list"]
        claims.equal("each of these has its record", seen, expected)


def bad_messages(stack: Stack, claims: Claims) -> None:
    claims.begin("Bad messages")
    bob = Session(stack, "everything", stack.tokens["bob"])
    ping = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
    for what, body, headers, status, reason in (
        ("broken JSON", b'{"jsonrpc":"2.0","id":1,', {}, 400, "invalid_json"),
        ("a name twice", b'{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/list"}', {}, 400, "duplicate_key"),
        ("a batch", b"[" + ping + b"]", {"mcp-protocol-version": "2025-11-25"}, 400, "batch"),
        ("an id that is null", b'{"jsonrpc":"2.0","id":null,"method":"ping"}', {}, 400, "invalid_id"),
        ("bytes that are not UTF-8", b'{"jsonrpc":"2.0","id":1,"method":"\xff"}', {}, 400, "not_utf8"),
        ("a text that is not JSON", ping, {"content-type": "text/plain"}, 415, "content_type"),
        ("a body that is packed", ping, {"content-encoding": "gzip"}, 415, "content_encoding"),
        ("a body over the limit", b'{"pad":"' + b"x" * 1_100_000 + b'"}', {}, 413, "body_too_large"),
        ("an unknown method", b'{"jsonrpc":"2.0","id":1,"method":"tools/execute"}', {}, 200, "unknown_method"),
        ("an unknown revision", ping, {"mcp-protocol-version": "2031-01-01"}, 400, "protocol_version"),
    ):
        answer = bob.send("POST", body, **headers)
        claims.equal(f"{what} is refused", (answer.status, answer.reason()), (status, reason))
        [record, *more] = stack.records() or [{}]
        seen = (record.get("decision"), record.get("reason"), record.get("upstream_host"), len(more))
        claims.equal("with one record, and nothing reaches the server", seen, ("deny", reason, None, 0))


def clients_that_go_away(stack: Stack, claims: Claims) -> None:
    claims.begin("A client that goes away in the middle of an answer")
    session = Session(stack, "everything", stack.tokens["bob"])
    session.open()
    stack.records()
    params = LONG_CALL | {"_meta": {"progressToken": "p"}}
    call = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}
    connection = session.connect()
    connection.request("POST", session.path, json.dumps(call).encode(), session.all_headers())
    response = connection.getresponse()
    seen = b""
    while b"notifications/progress" not in seen and (piece := response.read1()):
        seen += piece
    claims.hold("it saw progress, and no result", b"notifications/progress" in seen and b'"result"' not in seen, seen)
    response.close()
    connection.close()
    [record, *more] = stack.records() or [{}]
    told = (record.get("tool"), record.get("decision"), record.get("principal"), len(more))
    claims.equal("the call has its one record", told, ("trigger-long-running-operation", "allow", "bob", 0))
    claims.hold("which says that the client went", "DC" in str(record.get("response_flags")), record)
    claims.hold("and nothing stays open at the server", nothing_open(stack), stack.envoy_stats("cluster.everything"))

    claims.begin("A client that goes away in the middle of its request")
    before = stack.envoy_stats("cluster.everything.upstream_rq_total")
    head = "".join(f"{name}: {value}\r\n" for name, value in session.all_headers().items())
    with socket.create_connection(("127.0.0.1", servers.GATEWAY_PORT)) as raw:
        raw.sendall(f"POST {session.path} HTTP/1.1\r\nhost: x\r\n{head}content-length: 1000\r\n\r\n{{".encode())
        claims.hold("Envoy has the beginning of it", until(lambda: stack.exchanges()[1] == 1))
    [record, *more] = stack.records() or [{}]
    claims.equal("it has its one record", (record.get("principal"), len(more)), ("bob", 0))
    claims.equal("which says so", (record.get("decision"), record.get("reason")), ("abort", "client_closed"))
    claims.equal("nothing reached the server", stack.envoy_stats("cluster.everything.upstream_rq_total"), before)


def the_run_as_a_whole(stack: Stack, claims: Claims) -> None:
    claims.begin("The run as a whole")
    lines, (began, active) = stack.settled_lines(), stack.exchanges()
    claims.equal(f"Envoy counted {began} exchanges and wrote as many records", len(lines), began)
    claims.equal("none is still open", active, 0)
    stack.records_read = 0
    records = stack.records()
    claims.equal("every line is JSON", [record for record in records if "not_a_record" in record], [])
    undecided = [record for record in records if record.get("decision") not in ("allow", "deny", "error", "abort")]
    claims.equal("and has a decision", undecided, [])
    claims.equal("and an id of its own", len({record.get("record_id") for record in records}), len(records))
    allowed_nobody = [record for record in records if record["decision"] == "allow" and not record["principal"]]
    claims.equal("nobody without a name was allowed anything", allowed_nobody, [])
    # Envoy's own word: how long the server took, which is there only where it answered.
    answered = sum(record["server"] == "billing" and record["upstream_duration_ms"] is not None for record in records)
    claims.equal("what billing received is what the records say it answered", len(stack.billing_requests()), answered)
    tokens = [request for request in stack.billing_requests() if request["authorization"]]
    claims.equal("no request brought a client's token to it", tokens, [])
    claims.hold("each brought its key", all(request["key_accepted"] for request in stack.billing_requests()))
    crashes = [line for line in stack.logs()["envoy.log"].splitlines() if "panic" in line or "[critical]" in line]
    claims.equal("the plugin did not fail in any of it", crashes, [])
    searched = f"{', '.join(stack.known.values)} in {len(stack.logs())} files"
    claims.equal(f"no secret is in any log, answer or client's output ({searched})", stack.leaks(), [])


def nothing_open(stack: Stack) -> bool:
    name = "cluster.everything.upstream_rq_active"
    return until(lambda: stack.envoy_stats(name).get(name) == 0)


def until(condition: Any) -> bool:
    """Whether it comes to be so."""
    deadline = time.monotonic() + SEEN_WITHIN_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
