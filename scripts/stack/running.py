"""The stack once it runs: Envoy with the plugin, two MCP servers, a vault, and what each of them saw."""

import json
import os
import re
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stack import servers, tools
from stack.console import ROOT, StackError
from stack.preparing import ENVOY_CONFIG, Parts
from stack.supervisor import POLL_SECONDS, Child, Supervisor

PEOPLE = Path(__file__).with_name("people.py")
CLIENTS = tools.PEERS / "clients"
CLIENT_SECONDS = 120
SETTLED_WITHIN_SECONDS = 60.0
# What a vault's tokens look like, whoever they were issued to.
VAULT_TOKEN = re.compile(r"\b(?:hvs|s)\.[A-Za-z0-9_-]{24,}")


class Record(dict[str, Any]):
    """The fields of a record, and of its line in the access log; one that does not apply is none."""

    def __missing__(self, field: str) -> None:
        return None


class Stack:
    """Started by `start`, stopped by its supervisor; `home` holds every log and every client's output."""

    def __init__(self, supervisor: Supervisor, parts: Parts, home: Path) -> None:
        self.supervisor = supervisor
        self.parts = parts
        self.home = home
        self.access_log = home / "access.log"
        self.request_log = home / "billing-requests.jsonl"
        self.audit_log = home / "vault-audit.jsonl"
        self.client_log = home / "clients.jsonl"
        self.known = servers.Secrets()
        self.billing_key = self.known.make("billing key")
        self.root_token: str | None = None
        self.login: servers.Login | None = None
        if parts.vault:
            self.root_token = self.known.make("vault root token")
            self.login = servers.Login("toolgate-demo", self.known.make("AppRole secret_id"))
        self.tokens: dict[str, str] = {}
        self.records_read = 0

    # --- starting and stopping -----------------------------------------------------------------------

    def start(self, *, with_vault: bool = True) -> None:
        """Starts everything side by side; nothing calls anything before all of it is ready."""
        self._clear()
        everything = servers.start_everything(self.supervisor, self.parts.node)
        billing = self._start_billing()
        vault = self._start_vault() if self.parts.vault and with_vault else None
        envoy = self._start_envoy()
        self.sign_in("alice", "bob")
        if vault:
            self._await_vault(vault)
        servers.await_billing(self.supervisor, billing)
        servers.await_everything(self.supervisor, everything)
        servers.await_envoy(self.supervisor, envoy)

    def start_vault(self) -> None:
        """Starts a vault that is stopped, with the same secrets as before."""
        self._await_vault(self._start_vault())

    def start_billing(self) -> None:
        servers.await_billing(self.supervisor, self._start_billing())

    def stop(self, name: str) -> None:
        self.supervisor.stop(name)

    def _clear(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        for old in self.home.iterdir():
            if old.is_file():
                old.unlink()
        for log in (self.access_log, self.request_log, self.audit_log, self.client_log):
            log.touch()

    def _start_billing(self) -> Child:
        return servers.start_billing(self.supervisor, self.parts.node, self.billing_key, self.request_log)

    def _start_vault(self) -> Child:
        if self.parts.vault is None or self.root_token is None:
            raise StackError("there is no vault to start")
        return servers.start_vault(self.supervisor, self.parts.vault, self.root_token, self.audit_log)

    def _await_vault(self, child: Child) -> None:
        if self.root_token and self.login:
            servers.await_vault(self.supervisor, child, self.root_token, self.login, self.billing_key, self.audit_log)

    def _start_envoy(self) -> Child:
        if self.login:
            config, environment = ENVOY_CONFIG, self.login.environment()
        else:
            config = self.home / "envoy.yaml"
            config.write_text(servers.config_without_vault(ENVOY_CONFIG.read_text()))
            environment = {servers.BILLING_KEY_VARIABLE: self.billing_key}
        return servers.start_envoy(self.supervisor, self.parts.envoy, config, environment, self.access_log)

    # --- clients -------------------------------------------------------------------------------------

    def sign_in(self, *names: str, expires_in: int = 3600) -> dict[str, str]:
        """Tokens of these people, kept as theirs; an expired one is returned only."""
        command = [str(self.parts.python), str(PEOPLE), *names, "--expires-in", str(expires_in)]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode != 0:
            raise StackError(f"the tokens could not be signed:\n{answer.stderr}")
        tokens: dict[str, str] = json.loads(answer.stdout)
        for name, token in tokens.items():
            self.known.keep(f"{name}'s token" if expires_in > 0 else f"{name}'s expired token", token)
        if expires_in > 0:
            self.tokens |= tokens
        return tokens

    def client(
        self,
        token: str | None,
        server: str,
        era: str,
        *actions: str,
        program: str = "client.py",
        around_the_gateway: bool = False,
    ) -> list[dict[str, Any]]:
        """Runs one of the clients of tests/peers: one line per action, the connection being the first."""
        runner = self.parts.python if program.endswith(".py") else self.parts.node
        url = (servers.UPSTREAMS if around_the_gateway else servers.SERVERS)[server]
        command = [str(runner), str(CLIENTS / program), url, "--era", era, *actions]
        answer = self.run_client(command, {"MCP_TOKEN": token or ""})
        lines = [json.loads(line) for line in answer.stdout.splitlines()]
        if answer.returncode != 0 or not lines:
            raise StackError(f"the client ({' '.join(command[1:])}) failed:\n{answer.stderr[-2000:]}")
        return lines

    def run_client(
        self, command: Sequence[str], environment: dict[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Runs any client; what it prints is kept, to be searched for secrets."""
        try:
            answer = subprocess.run(
                command,
                cwd=ROOT,
                env=os.environ | (environment or {}),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=CLIENT_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise StackError(f"the client ({' '.join(command[1:])}) had no answer in {CLIENT_SECONDS} s") from error
        self.keep(answer.stdout + answer.stderr)
        return answer

    def keep(self, output: str) -> None:
        """Keeps what a client got or printed."""
        with self.client_log.open("a") as log:
            log.write(output if output.endswith("\n") or not output else f"{output}\n")

    # --- what was seen -------------------------------------------------------------------------------

    def records(self) -> list[Record]:
        """The records that came since the last time, once every exchange that began has its own."""
        lines = self.settled_lines()[self.records_read :]
        self.records_read += len(lines)
        return [parsed(line) for line in lines]

    def settled_lines(self) -> list[str]:
        """The access log once no exchange is open and Envoy has written as many lines as it counted."""
        deadline = time.monotonic() + SETTLED_WITHIN_SECONDS
        while True:
            began, active = self.exchanges()
            lines = self.access_log.read_text().splitlines()
            if (active == 0 and len(lines) >= began) or time.monotonic() > deadline:
                return lines
            time.sleep(POLL_SECONDS)

    def exchanges(self) -> tuple[int, int]:
        """How many exchanges with clients began since the start, and how many are open, as Envoy counts."""
        stats = self.envoy_stats("http.mcp.downstream_rq")
        return stats["http.mcp.downstream_rq_total"], stats["http.mcp.downstream_rq_active"]

    def envoy_stats(self, prefix: str) -> dict[str, int]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{servers.ADMIN}/stats?filter=^{prefix}", timeout=10) as answer:
            pairs = (line.split(": ", 1) for line in answer.read().decode().splitlines())
            return {name: int(value) for name, value in pairs if value.isdigit()}

    def billing_requests(self) -> list[dict[str, Any]]:
        """The requests that reached the server billing, whether it accepted them or not."""
        return [json.loads(line) for line in self.request_log.read_text().splitlines()]

    def vault_requests(self, path: str) -> int:
        """How many requests for this path the vault answered, reads and logins."""
        entries = (json.loads(line) for line in self.audit_log.read_text().splitlines())
        return sum(
            entry["type"] == "response"
            and entry["request"].get("path") == path
            and (entry["request"]["operation"] == "read" or path == servers.GATEWAY_LOGIN_PATH)
            for entry in entries
        )

    def vault_logins(self) -> int:
        return self.vault_requests(servers.GATEWAY_LOGIN_PATH)

    def vault_reads(self) -> int:
        return self.vault_requests(servers.GATEWAY_SECRET_PATH)

    def logs(self) -> dict[str, str]:
        """Every file of this run, by its name."""
        files = sorted(path for path in self.home.iterdir() if path.is_file())
        return {path.name: path.read_text(errors="replace") for path in files}

    def leaks(self) -> list[str]:
        """Which secret stands in which file of this run; nothing, if all is well."""
        logs = self.logs()
        found = [
            f"{secret} in {file}"
            for secret, value in self.known.values.items()
            for file, text in logs.items()
            if value in text
        ]
        return found + [f"a vault token in {file}" for file, text in logs.items() if VAULT_TOKEN.search(text)]


def parsed(line: str) -> Record:
    """A line of the access log; one without a record is a record without a decision."""
    try:
        entry = json.loads(line)
        record = json.loads(entry.pop("record"))
    except (ValueError, TypeError, AttributeError, KeyError):
        return Record(not_a_record=line)
    return Record(entry | {field: in_text(value) for field, value in record.items()})


def in_text(value: Any) -> str:
    """A value as log formats that have fields of text show it."""
    if isinstance(value, list) and all(isinstance(element, str) for element in value):
        return ",".join(value)
    return value if isinstance(value, str) else json.dumps(value)
