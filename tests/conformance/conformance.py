"""`tests/conformance/run`: the official MCP conformance suite, directly and through the gateway.

A fixture server (tests/peers/conformance) is started twice, the second time in a mode in which it does
not look at the headers that mirror the body. Both stand behind an Envoy with the plugin. The suite's
frozen requirements of each revision are run against the fixture and against the gateway; the scenarios
about headers are also run on the careless server. One test per scenario:

  * a required scenario passes if every check of it passes, directly and through the gateway;
  * no check of any scenario may be worse through the gateway, except where deviations.toml says why;
  * in front of the careless server the gateway's own checks must make the scenarios about headers pass.

    tests/conformance/run                    all of it; writes docs/conformance.md
    tests/conformance/run --details          also prints what every failed check says
    tests/conformance/run --scenario NAME    only this one, in both ways; writes nothing

Everything of the last run is under target/conformance. Standard library only.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stack import gateway, tools
from stack.console import ROOT, TARGET, StackError, fail, heading, relative, say
from stack.supervisor import Supervisor

HERE = Path(__file__).resolve().parent
HOME = TARGET / "conformance"
TABLE = ROOT / "docs" / "conformance.md"
PLUGIN = TARGET / "toolgate.wasm"
FIXTURE = tools.PEERS / "conformance" / "server.mjs"
PACKAGE = HERE / "node_modules" / "@modelcontextprotocol" / "conformance"
NODE_AT_LEAST = (22,)
REVISIONS = ("2025-11-25", "2026-07-28")
# What the gateway checks by itself, so that a server need not.
HEADER_REVISION = "2026-07-28"
HEADER_SCENARIOS = (
    "http-custom-header-server-validation",
    "http-header-validation",
    "server-stateless",
    "tasks-request-headers",
)
SUITE_SECONDS = 300

POLICY = '@id("everybody-everything") permit (principal is MCP::Anonymous, action, resource);'


# --- what the suite said ---------------------------------------------------------------------------


@dataclass
class Result:
    """The checks of one scenario; a check is known by its id and name, and may be made several times."""

    passed: Counter[tuple[str, str]] = field(default_factory=Counter)
    failed: Counter[tuple[str, str]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return not self.failed

    def worse_than(self, other: "Result") -> bool:
        return bool(other.passed - self.passed) or bool(self.failed - other.failed)

    def __str__(self) -> str:
        passed = self.passed.total()
        return f"{passed}/{passed + self.failed.total()}"


@dataclass(frozen=True)
class Scenario:
    """A scenario of a revision's requirements; `note` says why one is not required."""

    revision: str
    name: str
    note: str | None

    @property
    def required(self) -> bool:
        return self.note is None


def read_result(file: Path) -> Result:
    result = Result()
    for check in json.loads(file.read_text()):
        key = (check["id"], check.get("name", ""))
        match check["status"]:
            case "SUCCESS":
                result.passed[key] += 1
            # What a server should do counts like what it must: the gateway must not take either away.
            case "FAILURE" | "WARNING":
                result.failed[key] += 1
                words = check.get("errorMessage") or check.get("description", "")
                result.problems.append(f"{check['id']} ({check.get('name', '')}): {words}")
    return result


class Suite:
    """The suite's command line, with a Node that is new enough for it."""

    def __init__(self) -> None:
        tools.install_packages(HERE)
        self.node = self._node()

    def scenarios(self, revision: str) -> list[Scenario]:
        """What a revision requires of servers, and what is run without being required."""
        lists = gateway.yaml((PACKAGE / "requirements" / f"{revision}.yaml").read_text())
        required = [Scenario(revision, name, None) for name in lists["server"]]
        others = [
            Scenario(revision, entry["scenario"], entry["reason"])
            for entry in lists["not_scored"]
            if entry["leg"] == "server"
        ]
        return sorted(required + others, key=lambda scenario: scenario.name)

    def run_requirements(self, revision: str, url: str, output: Path) -> dict[str, Result]:
        return self._run(output, url, "--requirements", revision)

    def run_scenario(self, scenario: str, revision: str, url: str, output: Path) -> Result:
        return self._run(output, url, "--scenario", scenario, "--spec-version", revision, "--force")[scenario]

    def _run(self, output: Path, url: str, *options: str) -> dict[str, Result]:
        output.mkdir(parents=True)
        command = [str(self.node), str(PACKAGE / "dist" / "index.js"), "server", "--url", url, *options]
        command += ["--output-dir", str(output)]
        with (output / "printed.txt").open("wb") as printed:
            try:
                # Its exit code says less than its checks do.
                subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=printed,
                    stderr=subprocess.STDOUT,
                    timeout=SUITE_SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise StackError(f"the suite did not end within {SUITE_SECONDS} s: {' '.join(command[1:])}") from error
        # A directory is named server-SCENARIO-TIME, and the time has five hyphens.
        found = {
            file.parent.name.removeprefix("server-").rsplit("-", 6)[0]: read_result(file)
            for file in output.glob("server-*/checks.json")
        }
        if not found:
            last = (output / "printed.txt").read_text(errors="replace").strip()[-1000:]
            raise StackError(f"the suite ran no scenario; its last words:\n{last}")
        return found

    @staticmethod
    def _node() -> Path:
        installed = sorted((HERE / "node_modules").glob("node-*/bin/node"))
        for program in [*installed, *filter(None, [tools.on_path("node")])]:
            if tools.version_of([str(program), "--version"]) >= NODE_AT_LEAST:
                return program
        raise StackError(f"the suite needs Node.js {tools.dotted(NODE_AT_LEAST)} or newer, and none is on PATH")


# --- what it is run against ------------------------------------------------------------------------


@dataclass
class Place:
    """A server and the same server through the gateway."""

    direct: str
    gateway: str


def start(supervisor: Supervisor, plugin: Path) -> dict[str, Place]:
    """Starts the fixtures and Envoy; returns where they are once all of them answer."""
    node = tools.node()
    servers = dict(zip(("fixture", "careless"), gateway.free_ports(2), strict=True))
    children = {
        name: supervisor.start(
            name,
            [str(node), str(FIXTURE)],
            {"PORT": str(port), "LAX": "1" if name == "careless" else ""},
            cwd=ROOT,
        )
        for name, port in servers.items()
    }
    # The suite asks like a page of the gateway's own origin, and like one of another.
    envoy = gateway.start(supervisor, HOME, gateway.Settings(plugin, servers, POLICY, identity={"anonymous": True}))
    for name, port in servers.items():
        supervisor.wait_until_answers(children[name], f"http://127.0.0.1:{port}/ready", status=200)
    envoy.wait(supervisor)
    return {name: Place(f"http://127.0.0.1:{port}/mcp", envoy.url(name)) for name, port in servers.items()}


# --- comparing -------------------------------------------------------------------------------------


@dataclass
class Row:
    """A line of a table, and one test."""

    scenario: Scenario
    direct: Result | None
    gateway: Result | None
    deviation: str | None = None
    careless: bool = False

    def verdict(self) -> str | None:
        """What is wrong, if anything is."""
        if self.direct is None or self.gateway is None:
            return "was not run"
        if self.careless:
            if self.deviation:
                return "passes: take it out of deviations.toml" if self.gateway.complete else None
            return None if self.gateway.complete else "the gateway does not make up for the server"
        if self.scenario.required and not self.direct.complete:
            return "the fixture itself does not pass"
        worse = self.gateway.worse_than(self.direct)
        if self.deviation and not worse:
            return "is not worse through the gateway: take it out of deviations.toml"
        if worse and not self.deviation:
            return "is worse through the gateway"
        if self.scenario.required and not self.gateway.complete and not self.deviation:
            return "does not pass through the gateway"
        return None


def compare(suite: Suite, places: dict[str, Place]) -> list[Row]:
    deviations = read_deviations()
    rows = []
    fixture, careless = places["fixture"], places["careless"]
    for revision in REVISIONS:
        results = {
            way: suite.run_requirements(revision, getattr(fixture, way), HOME / revision / way)
            for way in ("direct", "gateway")
        }
        for scenario in suite.scenarios(revision):
            found = (results[way].get(scenario.name) for way in ("direct", "gateway"))
            rows.append(Row(scenario, *found, deviation=deviations.pop((revision, scenario.name), None)))
    for name in HEADER_SCENARIOS:
        found = (
            suite.run_scenario(name, HEADER_REVISION, getattr(careless, way), HOME / "careless" / name / way)
            for way in ("direct", "gateway")
        )
        reason = deviations.pop(("careless", name), None)
        rows.append(Row(Scenario(HEADER_REVISION, name, None), *found, deviation=reason, careless=True))
    if deviations:
        raise StackError(f"deviations.toml names scenarios that are not run: {sorted(deviations)}")
    return rows


def read_deviations() -> dict[tuple[str, str], str]:
    entries = tomllib.loads((HERE / "deviations.toml").read_text()).get("deviation", [])
    return {(entry["revision"], entry["scenario"]): entry["reason"] for entry in entries}


# --- telling ---------------------------------------------------------------------------------------


def show(rows: Iterable[Row], *, details: bool) -> None:
    for row in rows:
        problem = row.verdict()
        kind = "" if row.scenario.required else f"({row.scenario.note})"
        mark = "ok" if problem is None else "FAILED"
        where = "careless" if row.careless else row.scenario.revision
        say(f"{where:<10}  {row.scenario.name:<46} {row.direct!s:>6} {row.gateway!s:>6}  {mark:<6} {problem or kind}")
        if problem or (details and row.gateway):
            for words in row.gateway.problems if row.gateway else []:
                say(f"              {words}")


def written(rows: list[Row], versions: dict[str, str]) -> str:
    """The table as Markdown. No time, no path, no order of its own: the same run writes the same text."""
    lines = [
        "# Conformance",
        "",
        "Written by `tests/conformance/run`; do not edit.",
        "",
        f"The official suite, `@modelcontextprotocol/conformance` {versions['suite']}, against a server on the",
        f"official TypeScript SDK (`@modelcontextprotocol/server` {versions['sdk']};",
        "`tests/peers/conformance`), directly and through Envoy with Toolgate, which lets everybody do",
        "everything here. The numbers are checks passed of checks made; what a server only *should* do",
        "counts, too.",
    ]
    for revision in REVISIONS:
        mine = [row for row in rows if row.scenario.revision == revision and not row.careless]
        for required, title in ((True, "required"), (False, "not required")):
            chosen = [row for row in mine if row.scenario.required == required]
            whole = sum(row.gateway is not None and row.gateway.complete for row in chosen)
            lines += ["", f"## {revision}, {title}: {whole} of {len(chosen)} pass through the gateway", ""]
            lines += table(chosen, with_note=not required)
    lines += [
        "",
        "## A server that does not check headers",
        "",
        "The same server, made careless: it never looks at the headers that repeat parts of the body",
        f"({HEADER_REVISION}). The gateway does, so that such a server is as safe behind it as one that",
        "checks them itself.",
        "",
        *table([row for row in rows if row.careless]),
    ]
    deviations = [row for row in rows if row.deviation]
    if deviations:
        lines += ["", "## Exceptions, and why", ""]
        lines += [
            f"* {'a server that does not check headers' if row.careless else row.scenario.revision}, "
            f"`{row.scenario.name}`: {row.deviation}"
            for row in deviations
        ]
    return "\n".join(lines) + "\n"


def table(rows: Iterable[Row], *, with_note: bool = False) -> list[str]:
    head = ["scenario", "direct", "through the gateway", *(["not required because"] if with_note else [])]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in sorted(rows, key=lambda row: row.scenario.name):
        cells = [f"`{row.scenario.name}`", cell(row.direct), cell(row.gateway)]
        lines.append(f"| {' | '.join(cells + ([row.scenario.note or ''] if with_note else []))} |")
    return lines


def cell(result: Result | None) -> str:
    return "not run" if result is None else str(result) if result.complete else f"**{result}**"


def versions() -> dict[str, str]:
    return {
        "suite": locked(HERE, "@modelcontextprotocol/conformance"),
        "sdk": locked(tools.PEERS, "@modelcontextprotocol/server"),
    }


def locked(directory: Path, package: str) -> str:
    lock = json.loads((directory / "package-lock.json").read_text())
    return str(lock["packages"][f"node_modules/{package}"]["version"])


def one_scenario(suite: Suite, places: dict[str, Place], name: str) -> None:
    for revision in REVISIONS:
        if name not in {scenario.name for scenario in suite.scenarios(revision)}:
            continue
        for server, place in places.items():
            for way in ("direct", "gateway"):
                result = suite.run_scenario(name, revision, getattr(place, way), HOME / revision / server / way)
                say(f"{revision}  {server:<9} {way:<8} {result}")
                for words in result.problems:
                    say(f"              {words}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests/conformance/run", description="Runs the MCP conformance suite.")
    parser.add_argument("--details", action="store_true", help="print what every failed check says")
    parser.add_argument("--scenario", metavar="NAME", help="run only this scenario and print what it finds")
    parser.add_argument("--plugin", metavar="FILE", type=Path, default=PLUGIN, help="instead of target/toolgate.wasm")
    given = parser.parse_args()
    try:
        if not given.plugin.is_file():
            raise StackError(f"{relative(given.plugin)} is missing; scripts/build makes the plugin")
        shutil.rmtree(HOME, ignore_errors=True)
        with Supervisor(HOME) as supervisor:
            suite = Suite()
            places = start(supervisor, given.plugin)
            if given.scenario:
                one_scenario(suite, places, given.scenario)
                return
            rows = compare(suite, places)
    except StackError as error:
        fail(error)
        sys.exit(1)
    heading("revision    scenario                                            direct  gateway")
    show(rows, details=given.details)
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(written(rows, versions()))
    say(f"the table is in {relative(TABLE)}, everything else under {relative(HOME)}")
    failed = sum(row.verdict() is not None for row in rows)
    print(f"{len(rows) - failed} passed, {failed} failed", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
