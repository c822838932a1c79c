"""Follows the walk of docs/credentials.md: its commands and its configuration, as they stand there."""

import json
import os
import re
import secrets
import subprocess
from pathlib import Path
from typing import Any

from claims import Claims
from stack import gateway, servers, tools
from stack.console import ROOT, StackError
from stack.supervisor import Supervisor, require_free_ports

import search
from world import until

DOCUMENT = ROOT / "docs" / "credentials.md"
CHAPTER = "## From an empty OpenBao to a credential for each person"
STEP_SECONDS = 120


def follow(supervisor: Supervisor, claims: Claims, home: Path) -> None:
    """Every command has to succeed, in order; Envoy is started where its configuration stands."""
    claims.begin("docs/credentials.md, from an empty OpenBao on")
    require_free_ports(servers.PORTS)
    key, root_token = f"planted-{secrets.token_hex(16)}", f"planted-{secrets.token_hex(16)}"
    child = servers.start_vault(supervisor, tools.vault(), root_token, home / "audit.log")
    billing = servers.start_billing(supervisor, tools.node(), key, home / "requests.jsonl")
    supervisor.wait_until_answers(child, f"{servers.VAULT}/v1/sys/health", status=200)
    servers.await_billing(supervisor, billing)
    variables = {"VAULT_ADDR": servers.VAULT, "VAULT_TOKEN": root_token, "BILLING_KEY": key}
    shell = Shell(home, variables)
    for number, (language, text) in enumerate(blocks(DOCUMENT.read_text(), CHAPTER), start=1):
        if language == "yaml":
            config = home / "envoy.json"
            config.write_text(json.dumps(configured(text)))
            envoy = servers.start_envoy(supervisor, tools.envoy(), config, {}, home / "access.log")
            servers.await_envoy(supervisor, envoy)
            claims.hold(f"step {number}: Envoy runs with the configuration", True)
        else:
            done = shell.run(text)
            claims.hold(f"step {number}: {text.strip().splitlines()[-1][:60]}", done.returncode == 0, done.stdout + done.stderr)
    last = until(lambda: [one for one in outcomes(home) if one[0] == "allow"])
    told = outcomes(home)
    claims.equal("alice was told to link her account", told[:1], [("deny", "credential_not_linked", None)])
    claims.equal("and was served with what the vault keeps for her", last[-1:], [("allow", None, "vault")])
    left = [home / "access.log", home / "envoy.log", home / "shown"]
    found = list(search.occurrences({"key": key, "root token": root_token}, left))
    claims.equal("nothing secret is in the logs or was shown", found, [])


def outcomes(home: Path) -> list[tuple[str, str | None, str | None]]:
    """What became of the exchanges that Envoy has told of so far."""
    lines = (home / "access.log").read_text().splitlines()
    records = [json.loads(json.loads(line)["record"]) for line in lines]
    return [(record["decision"], record.get("reason"), record.get("credential_source")) for record in records]


class Shell:
    """Runs pieces of one shell script: what one defines, the next has."""

    def __init__(self, home: Path, variables: dict[str, str]) -> None:
        self.home = home
        self.state = home / "state.sh"
        self.state.write_text("")
        self.environment = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()} | variables

    def run(self, text: str) -> "subprocess.CompletedProcess[str]":
        script = f"set -euo pipefail\nsource {self.state}\n{text}\n{{ declare -p accessor || true; declare -f; }} > {self.state} 2>/dev/null\n"
        done = subprocess.run(
            ["bash", "-c", script], cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False, timeout=STEP_SECONDS
        )
        with (self.home / "shown").open("a") as shown:
            shown.write(done.stdout + done.stderr)
        return done


def blocks(document: str, chapter: str) -> list[tuple[str, str]]:
    """The code of a chapter: its language and its text."""
    _, _, text = document.partition(chapter)
    text = re.split(r"^## ", text, flags=re.MULTILINE)[0]
    found = re.findall(r"^```(\w+)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    if len(found) < 6:
        raise StackError(f"{DOCUMENT.name} has no walk any more")
    return found


def configured(text: str) -> Any:
    """envoy/envoy.yaml with what the walk puts in its place."""
    config = gateway.yaml(gateway.ENVOY_CONFIG.read_text())
    manager = gateway.only(gateway.only(config["static_resources"]["listeners"])["filter_chains"])["filters"][0]
    wasm = next(each for each in manager["typed_config"]["http_filters"] if each["name"] == "toolgate")
    plugin = wasm["typed_config"]["config"]["configuration"]["value"]
    plugin.update(gateway.yaml(text))
    del wasm["typed_config"]["config"]["vm_config"]["environment_variables"]
    return config
