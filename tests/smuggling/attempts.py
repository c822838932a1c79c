"""Requests that say one thing to a gateway and another to the server behind it.

Each is a body and header fields, and the call that a server makes of it. `echo` and `pay` are permitted,
`secret` is not: every one of these calls is one that the gateway must not let happen, or one that the
gateway and the server could read differently.
"""

import gzip
import json
from dataclasses import dataclass, field
from typing import Any

Call = tuple[str, dict[str, str]]
SECRET: Call = ("secret", {})
JSON = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
MODERN = "2026-07-28"
META = {"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {}}


@dataclass(frozen=True)
class Attempt:
    """One attempt; `runs` is what a server runs that falls for it, as text."""

    name: str
    body: bytes
    runs: Call = SECRET
    headers: dict[str, str] = field(default_factory=dict)
    nobody: str = ""
    """Why no server here falls for it, where none does."""

    def fields(self) -> dict[str, str]:
        return JSON | self.headers


def call(params: str) -> bytes:
    return ('{"jsonrpc":"2.0","id":1,"method":"tools/call","params":' + params + "}").encode()


def message(**members: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call"} | members


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


CALL_SECRET = encoded(message(params={"name": "secret", "arguments": {}}))
GO = "Go's `encoding/json` did (CVE-2026-27896)"

ATTEMPTS = [
    Attempt("name given twice", call('{"name":"echo","name":"secret","arguments":{}}')),
    Attempt("name given twice, once escaped", call('{"name":"echo","n\\u0061me":"secret","arguments":{}}')),
    Attempt(
        "method given twice",
        b'{"jsonrpc":"2.0","id":1,"method":"tools/list","method":"tools/call","params":{"name":"secret","arguments":{}}}',
    ),
    Attempt(
        "params given twice",
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"},"params":{"name":"secret","arguments":{}}}',
    ),
    Attempt(
        "arguments given twice",
        call('{"name":"pay","arguments":{"amount":1},"arguments":{"amount":5000}}'),
        ("pay", {"amount": "5000"}),
    ),
    Attempt(
        "argument given twice",
        call('{"name":"pay","arguments":{"amount":1,"amount":5000}}'),
        ("pay", {"amount": "5000"}),
    ),
    Attempt("byte order mark", b"\xef\xbb\xbf" + CALL_SECRET),
    Attempt(
        "UTF-16",
        CALL_SECRET.decode().encode("utf-16"),
        headers={"content-type": "application/json; charset=utf-16"},
    ),
    Attempt(
        "UTF-16 without saying so",
        CALL_SECRET.decode().encode("utf-16-le"),
        nobody="all of them read UTF-8; parsers that guess the encoding (RFC 4627) would",
    ),
    Attempt(
        "bytes that are not UTF-8",
        call('{"name":"echo","arguments":{"message":"a\xffb"}}').decode().encode("latin-1"),
        ("echo", {"message": "a\ufffdb"}),
    ),
    Attempt(
        "half a surrogate pair",
        call('{"name":"echo","arguments":{"message":"\\ud800"}}'),
        ("echo", {"message": "\ud800"}),
    ),
    Attempt("compressed body", gzip.compress(CALL_SECRET, mtime=0), headers={"content-encoding": "gzip"}),
    Attempt(
        "batch",
        encoded([message(params={"name": "secret", "arguments": {}})]),
        headers={"mcp-protocol-version": "2025-11-25"},
    ),
    Attempt(
        "batch behind a permitted call",
        encoded(
            [
                message(params={"name": "echo", "arguments": {}}),
                message(id=2, params={"name": "secret", "arguments": {}}),
            ]
        ),
    ),
    Attempt(
        "whole number beyond 2^53",
        call('{"name":"pay","arguments":{"amount":9007199254740993}}'),
        ("pay", {"amount": "9007199254740992"}),
    ),
    Attempt(
        "number beyond a double", call('{"name":"pay","arguments":{"amount":1e999}}'), ("pay", {"amount": "Infinity"})
    ),
    Attempt("NaN, which is no JSON", call('{"name":"pay","arguments":{"amount":NaN}}'), ("pay", {"amount": "nan"})),
    Attempt(
        "nested deeper than the gateway reads",
        call('{"name":"secret","arguments":{},"_meta":{"deep":' + "[" * 100 + "]" * 100 + "}}"),
    ),
    Attempt(
        "unknown member beside the method",
        encoded(message(params={"name": "secret", "arguments": {}}, extra=1)),
    ),
    Attempt(
        "header names another tool (legacy)",
        CALL_SECRET,
        headers={"mcp-method": "tools/call", "mcp-name": "echo"},
    ),
    Attempt(
        "header names another method (legacy)",
        CALL_SECRET,
        headers={"mcp-method": "tools/list"},
    ),
    Attempt(
        "no content type that is JSON",
        CALL_SECRET,
        headers={"content-type": "text/plain; charset=utf-8; x=application/json"},
        nobody="all of them read the media type; servers that look for the word do not",
    ),
    Attempt("other letter case", call('{"name":"echo","Name":"secret","arguments":{}}'), nobody=GO),
    Attempt(
        "NUL after the key",
        call('{"name":"echo","name\\u0000":"secret","arguments":{}}'),
        nobody="Go's SDK did (GHSA-q382-vc8q-7jhj)",
    ),
    Attempt(
        "letter that folds to another",
        call('{"name":"echo","argument\\u017f":{},"\\uff4eame":"secret"}'),
        nobody=GO,
    ),
    Attempt(
        "header names another tool (2026-07-28)",
        encoded(message(params={"name": "secret", "arguments": {}, "_meta": META})),
        headers={"mcp-protocol-version": MODERN, "mcp-method": "tools/call", "mcp-name": "echo"},
        nobody="the SDKs compare them; a server that does not would",
    ),
    Attempt(
        "version in the body only",
        encoded(message(params={"name": "secret", "arguments": {}, "_meta": META})),
        headers={"mcp-method": "tools/call", "mcp-name": "secret"},
    ),
]
