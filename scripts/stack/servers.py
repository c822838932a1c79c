"""What runs, on which port, with which secrets, and how the vault is set up.

Nothing secret is on a command line: secrets are made for the run and go to the processes by their
environment.
"""

import json
import os
import re
import secrets
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stack import tools
from stack.console import ROOT, StackError
from stack.supervisor import POLL_SECONDS, Child, Supervisor, opener

GATEWAY_PORT, ADMIN_PORT, EVERYTHING_PORT, BILLING_PORT, VAULT_PORT = 10000, 9901, 3001, 3002, 8200
PORTS = {
    GATEWAY_PORT: "the gateway",
    ADMIN_PORT: "Envoy's admin interface",
    EVERYTHING_PORT: "the MCP server everything",
    BILLING_PORT: "the MCP server billing",
    VAULT_PORT: "the vault",
}
GATEWAY = f"http://127.0.0.1:{GATEWAY_PORT}"
ADMIN = f"http://127.0.0.1:{ADMIN_PORT}"
VAULT = f"http://127.0.0.1:{VAULT_PORT}"
UPSTREAMS = {
    "everything": f"http://127.0.0.1:{EVERYTHING_PORT}/mcp",
    "billing": f"http://127.0.0.1:{BILLING_PORT}/mcp",
}
SERVERS = {name: f"{GATEWAY}/mcp/{name}" for name in UPSTREAMS}

POLICY = 'path "secret/data/mcp/*" { capabilities = ["read"] }'
GATEWAY_SECRET_PATH = "secret/data/mcp/billing"
GATEWAY_LOGIN_PATH = "auth/approle/login"
# A busy machine may take its time; none takes this long.
VAULT_SECONDS = 60
BILLING_KEY_VARIABLE = "TOOLGATE_BILLING_KEY"


@dataclass
class Secrets:
    """The values that must never turn up in a log, an answer or a client's output; by name."""

    values: dict[str, str] = field(default_factory=dict)

    def make(self, name: str) -> str:
        self.values[name] = secrets.token_hex(24)
        return self.values[name]

    def keep(self, name: str, value: str) -> str:
        self.values[name] = value
        return value


@dataclass
class Login:
    """How the gateway logs in at the vault. Chosen here, so that a vault can be restarted as it was."""

    role_id: str
    secret_id: str

    def environment(self) -> dict[str, str]:
        return {"TOOLGATE_VAULT_ROLE_ID": self.role_id, "TOOLGATE_VAULT_SECRET_ID": self.secret_id}


def start_everything(supervisor: Supervisor, node: Path) -> Child:
    environment = {"PORT": str(EVERYTHING_PORT)}
    return supervisor.start("everything", [str(node), "everything/server.mjs"], environment, cwd=tools.PEERS)


def await_everything(supervisor: Supervisor, child: Child) -> None:
    supervisor.wait_until_answers(child, UPSTREAMS["everything"])


def start_billing(supervisor: Supervisor, node: Path, key: str, request_log: Path) -> Child:
    environment = {"PORT": str(BILLING_PORT), "BILLING_KEY": key, "REQUEST_LOG": str(request_log)}
    return supervisor.start("billing", [str(node), "billing/server.mjs"], environment, cwd=tools.PEERS)


def await_billing(supervisor: Supervisor, child: Child) -> None:
    # A path of its own, which it answers without a line in its request log.
    supervisor.wait_until_answers(child, f"http://127.0.0.1:{BILLING_PORT}/ready", status=200)


def start_vault(supervisor: Supervisor, vault: tools.Vault, root_token: str, audit_log: Path) -> Child:
    address = f"127.0.0.1:{VAULT_PORT}"
    command = [str(vault.program), "server", "-dev", "-dev-no-store-token", f"-dev-listen-address={address}"]
    if vault.kind == "bao":
        # OpenBao takes audit devices from its configuration only.
        config = supervisor.logs / "bao.json"
        device = {"type": "file", "path": "file", "options": {"file_path": str(audit_log)}}
        config.write_text(json.dumps({"audit": [device], "disable_clustering": True}))
        command.append(f"-config={config}")
    environment = {"VAULT_DEV_ROOT_TOKEN_ID": root_token, "BAO_DEV_ROOT_TOKEN_ID": root_token}
    # Its log goes to the standard error; to the standard output it greets developers with the token and the unseal key.
    return supervisor.start("vault", command, environment, cwd=ROOT, stdout=Path(os.devnull))


def await_vault(
    supervisor: Supervisor, child: Child, root_token: str, login: Login, billing_key: str, audit_log: Path
) -> None:
    """Waits for the vault and sets it up: the secret, who may read it, and the gateway's login."""
    supervisor.wait_until_answers(child, f"{VAULT}/v1/sys/health", status=200)
    vault = VaultClient(root_token)
    vault.wait_for_mount("secret/")
    vault.post("secret/data/mcp/billing", {"data": {"key": billing_key}})
    vault.post("sys/policies/acl/toolgate", {"policy": POLICY})
    vault.post("sys/auth/approle", {"type": "approle"})
    vault.post("auth/approle/role/toolgate", {"token_policies": ["toolgate"], "token_ttl": "1h"})
    vault.post("auth/approle/role/toolgate/role-id", {"role_id": login.role_id})
    vault.post("auth/approle/role/toolgate/custom-secret-id", {"secret_id": login.secret_id})
    if not vault.get("sys/audit")["data"]:
        vault.post("sys/audit/file", {"type": "file", "options": {"file_path": str(audit_log)}})


def start_envoy(
    supervisor: Supervisor, envoy: Path, config: Path, environment: dict[str, str], access_log: Path
) -> Child:
    command = [str(envoy), "-c", str(config.relative_to(ROOT)), "--disable-hot-restart"]
    # By default it writes the access log every ten seconds, and begins its own with pages of what it has compiled in.
    command += ["--file-flush-interval-msec", "100", "--component-log-level", "main:warning"]
    return supervisor.start("envoy", command, environment, cwd=ROOT, stdout=access_log)


def await_envoy(supervisor: Supervisor, child: Child) -> None:
    # It compiles the plugin to machine code first; on a busy machine that takes a while.
    supervisor.wait_until_answers(child, f"{ADMIN}/ready", within=120, status=200)


def config_without_vault(config: str) -> str:
    """Envoy's configuration, changed where there is no vault: the gateway has the key from its environment."""
    config = _without_block(config, "vaults:")
    for pattern, replacement in (
        (r"billing-key: \{ kv: \{[^}]*\} \}", f"billing-key: {{ static: {{ environment: {BILLING_KEY_VARIABLE} }} }}"),
        (r"host_env_keys: \[[^]]*\]", f"host_env_keys: [ {BILLING_KEY_VARIABLE} ]"),
    ):
        config, count = re.subn(pattern, replacement, config)
        if count != 1:
            raise StackError(f"envoy/envoy.yaml has no line like `{pattern}` to change for a run without a vault")
    return config


def _without_block(text: str, key: str) -> str:
    """YAML without the block that begins with a line `key`."""
    kept, block_indent = [], None
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        if block_indent is not None and line.strip() and indent <= block_indent:
            block_indent = None
        if line.strip() == key:
            block_indent = indent
        if block_indent is None:
            kept.append(line)
    return "\n".join(kept) + "\n"


class VaultClient:
    """As much of the vault's HTTP interface as setting it up takes; by TLS with `authority` as the one that is trusted."""

    def __init__(self, token: str, address: str = VAULT, authority: Path | None = None) -> None:
        self.token, self.address, self.authority = token, address, authority

    def get(self, path: str) -> dict[str, Any]:
        return self._request("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._request("POST", path, body)

    def put(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        return self._request("PUT", path, body)

    def keys(self, path: str) -> list[str]:
        """The keys at a path; none where nothing is there."""
        try:
            return list(self._request("LIST", path, None)["data"]["keys"])
        except StackError as error:
            if "with 404" in str(error):
                return []
            raise

    def wait_for_mount(self, name: str, within: float = VAULT_SECONDS) -> None:
        """Waits until KV v2 at `name` answers: a new mount spends a moment upgrading itself."""
        deadline = time.monotonic() + within
        while True:
            try:
                self.post(f"{name}data/ready", {"data": {"ready": True}})
                return
            except StackError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(POLL_SECONDS)

    def _request(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.address}/v1/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"X-Vault-Token": self.token, "Content-Type": "application/json"},
        )
        try:
            with opener(self.authority).open(request, timeout=VAULT_SECONDS) as answer:
                text = answer.read()
                return json.loads(text) if text else {}
        except urllib.error.HTTPError as error:
            reason = error.read().decode(errors="replace").strip()
            raise StackError(f"the vault refused {method} {path} with {error.code}: {reason}") from error
        except OSError as error:
            raise StackError(f"the vault did not answer {method} {path}: {error}") from error
