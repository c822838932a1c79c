"""The results as docs/peers.md."""

import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass

from stack import tools

from matrix.features import FEATURES, REVISIONS, Seen
from matrix.peers import ALL_CLIENTS, ALL_SERVERS, Client, Server

MARKS = {"passed": "✓", "not supported": "–", "failed": "✗"}


@dataclass
class Row:
    """A client and a server in an era: what is wrong with each feature, directly and through the gateway."""

    client: Client
    era: str
    server: Server
    direct: dict[str, str | None]
    gateway: dict[str, str | None]

    def verdicts(self) -> dict[str, str]:
        """What does not work directly either is not the gateway's."""
        return {name: self._verdict(name) for name in FEATURES}

    def _verdict(self, name: str) -> str:
        if self.direct["initialise"]:  # they do not come together at all
            return "not supported" if self.gateway["initialise"] else "failed"
        if self.gateway[name] is None:
            return "passed"
        return "not supported" if self.direct[name] else "failed"

    def count(self, verdict: str) -> int:
        return list(self.verdicts().values()).count(verdict)


@dataclass
class Choice:
    """Which revision a client that may choose settles on."""

    client: Client
    server: Server
    direct: str
    gateway: str

    @property
    def holds(self) -> bool:
        return self.direct == self.gateway


def revision(seen: Seen) -> str:
    """The newest revision in which the server answered anything but an error."""
    answered = {one["version"] for one in seen.requests if one["version"] and one["status"] < 300}
    connected = seen.lines.get(("tools", None), {}).get("ok", False)
    return max(answered) if answered and connected else "none"


def written(rows: Sequence[Row], choices: Sequence[Choice]) -> str:
    """The tables as Markdown. No time, no path, no order of its own: the same run writes the same text."""
    versions = locked_versions()
    lines = [
        "# Peers",
        "",
        "Written by `tests/peers/run`; do not edit.",
        "",
        "Real clients at real servers, one of each SDK, every one with the same tools, prompts and resources",
        "(`tests/peers`). Each pair does the same things twice: with nothing in between, and through Envoy",
        "with Toolgate, as a user from whom the policy keeps a tool, a prompt, a resource and a template.",
        "",
        "* ✓ works through the gateway",
        "* – does not work directly either: the peers do not support it, and below stands what was seen",
        "* ✗ works directly, and not through the gateway",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {(holds.__doc__ or '').strip()} |" for name, holds in FEATURES.items()),
        "",
        "Versions: " + ", ".join(f"`{name}` {version}" for name, version in versions.items()) + ".",
    ]
    for server in ALL_SERVERS:
        lines += ["", f"## Server: {server.title}", "", *features_table([row for row in rows if row.server == server])]
    lines += ["", "## Which revision a client settles on", "", *choices_table(choices)]
    lines += ["", "## What the peers do not support"]
    return "\n".join([*lines, *unsupported(rows)]) + "\n"


def features_table(rows: Sequence[Row]) -> list[str]:
    lines = [f"| client | revision | {' | '.join(FEATURES)} |", f"|{'---|' * (len(FEATURES) + 2)}"]
    for row in rows:
        marks = " | ".join(MARKS[verdict] for verdict in row.verdicts().values())
        lines.append(f"| {row.client.title} | {REVISIONS[row.era]} | {marks} |")
    return lines


def choices_table(choices: Sequence[Choice]) -> list[str]:
    """One column for each server: directly and through the gateway, once where they agree."""
    lines = [f"| client | {' | '.join(server.title for server in ALL_SERVERS)} |"]
    lines.append(f"|{'---|' * (len(ALL_SERVERS) + 1)}")
    for client in ALL_CLIENTS:
        mine = [choice for choice in choices if choice.client == client]
        cells = [one.direct if one.holds else f"**{one.direct} / {one.gateway}**" for one in mine]
        if cells:
            lines.append(f"| {client.title} | {' | '.join(cells)} |")
    return lines


def unsupported(rows: Sequence[Row]) -> list[str]:
    """What was seen directly: by client and feature, and then once for all servers where it was the same."""
    lines = []
    for client, era in dict.fromkeys((row.client, row.era) for row in rows):
        where: dict[tuple[str, str], list[str]] = {}
        for row in rows:
            if (row.client, row.era) == (client, era):
                for name, seen in missing(row).items():
                    where.setdefault((name, steady(seen)), []).append(row.server.title)
        if where:
            lines += ["", f"### {client.title}, {REVISIONS[era]}", "", "| | at | seen |", "|---|---|---|"]
            lines += [f"| {name} | {', '.join(servers)} | {seen} |" for (name, seen), servers in where.items()]
    return lines


def missing(row: Row) -> dict[str, str]:
    """What is wrong directly with each feature that is not supported."""
    if row.direct["initialise"]:
        return {"everything": row.direct["initialise"]}
    return {name: row.direct[name] or "" for name, verdict in row.verdicts().items() if verdict == "not supported"}


def steady(seen: str) -> str:
    """Without what is different in every run: ports, times and random names; and no longer than a line or two."""
    seen = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1", re.sub(r"\d+\.\d{3,}", "…", seen))
    seen = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{32}|run-\d+", "…", " ".join(seen.split()))
    return seen[:200].replace("`", "'").replace("|", "\\|").replace("<", "&lt;")


def locked_versions() -> dict[str, str]:
    """Each package that a peer is made of, as it is locked."""
    rust = tomllib.loads((tools.PEERS / "rmcp" / "Cargo.lock").read_text())["package"]
    python = (tools.HERE / "requirements.txt", tools.PEERS / "fastmcp" / "requirements.txt")
    lines = [line for file in python for line in file.read_text().splitlines()]
    npm: dict[str, dict[str, str]] = {}
    for directory in (tools.PEERS, tools.INSPECTOR):
        npm = json.loads((directory / "package-lock.json").read_text())["packages"] | npm
    known = {f"{package['name']}": package["version"] for package in rust if package["name"] == "rmcp"}
    known |= dict(line.split("==") for line in lines if line.startswith(("mcp==", "fastmcp==")))
    names = dict.fromkeys(peer.package for peer in (*ALL_CLIENTS, *ALL_SERVERS))
    return {name: known.get(name) or npm[f"node_modules/{name}"]["version"] for name in names}
