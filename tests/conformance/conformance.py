"""`tests/conformance/run`: the official MCP conformance suite, directly and through the gateway.

A fixture server (tests/peers/conformance) is started twice, the second time in a mode in which it does
not look at the headers that mirror the body. Both stand behind an Envoy with the plugin, and so do three
servers on other SDKs. The suite's frozen requirements of each revision are run against the fixture itself,
through the gateway, and through two federated endpoints: a portal of the fixture alone, and one in which
the other servers stand beside it. The scenarios about headers are also run on the careless server. One test
per scenario and way through the gateway:

  * a required scenario passes if every check of it passes, directly and on this way;
  * no check of any scenario may be worse on this way, except where deviations.toml says why; of what a
    portal need not offer, and does not, the suite may skip the checks;
  * in front of the careless server the gateway's own checks must make the scenarios about headers pass.

    tests/conformance/run                    all of it; writes docs/conformance.md
    tests/conformance/run --details          also prints what every failed check says
    tests/conformance/run --scenario NAME    only this one, in all ways; writes nothing

Everything of the last run is under target/conformance. Standard library only.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tomllib
import urllib.request
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matrix import peers
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
# The ways through the gateway: the fixture's own path, and two federated endpoints.
WAYS = ("gateway", "portal-of-one", "portal-of-several")
TITLES = {
    "direct": "direct",
    "gateway": "through the gateway",
    "portal-of-one": "a portal of one server",
    "portal-of-several": "a portal of four servers",
}
# What stands beside the fixture, on other SDKs and in both eras.
OTHERS = ("ts-v1", "python", "fastmcp")
SESSION_KEY = "only-for-tests-0123456789abcdef-0123456789"

POLICY = '@id("everybody-everything") permit (principal is MCP::Anonymous, action, resource);'


# --- what the suite said ---------------------------------------------------------------------------


@dataclass
class Result:
    """The checks of one scenario; a check is known by its id and name, and may be made several times."""

    passed: Counter[tuple[str, str]] = field(default_factory=Counter)
    failed: Counter[tuple[str, str]] = field(default_factory=Counter)
    skipped: set[tuple[str, str]] = field(default_factory=set)
    """What the suite leaves out, since the endpoint does not offer it and need not."""
    problems: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return not self.failed

    def worse_than(self, other: "Result", *, may_skip: bool) -> bool:
        missing = other.passed - self.passed
        if may_skip:
            missing = Counter({check: count for check, count in missing.items() if check not in self.skipped})
        return bool(missing) or bool(self.failed - other.failed)

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
            # It says so of what is optional: that there is nothing to check, or no need to.
            case "SKIPPED" | "INFO":
                result.skipped.add(key)
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
    """A server by itself, and the URLs of the ways to it through the gateway."""

    direct: str
    ways: dict[str, str]

    def url(self, way: str) -> str:
        return self.direct if way == "direct" else self.ways[way]


def start(supervisor: Supervisor, plugin: Path) -> dict[str, Place]:
    """Starts the servers and Envoy; returns where they are once all of them answer."""
    programs = peers.Programs(tools.python(), tools.node(), tools.fastmcp(), Path())
    names = ("fixture", "careless", *OTHERS)
    servers = dict(zip(names, gateway.free_ports(len(names)), strict=True))
    children = {}
    for name, port in servers.items():
        environment = {"PORT": str(port), "LAX": "1" if name == "careless" else ""}
        command = [str(programs.node), str(FIXTURE)]
        if name in OTHERS:
            command = next(each for each in peers.ALL_SERVERS if each.name == name).command(programs)
            environment["REQUEST_LOG"] = str(HOME / f"{name}.jsonl")
        children[name] = supervisor.start(name, command, environment, cwd=peers.SERVERS)
    for name, port in servers.items():
        supervisor.wait_until_answers(children[name], f"http://127.0.0.1:{port}/ready", status=200)
    places = {name: f"http://127.0.0.1:{port}/mcp" for name, port in servers.items()}
    more = {"federation": federation(places["fixture"]), "sessions": {"keys": [{"value": SESSION_KEY}]}}
    # The suite asks like a page of the gateway's own origin, and like one of another.
    settings = gateway.Settings(plugin, servers, POLICY, identity={"anonymous": True}, more=more)
    envoy = gateway.start(supervisor, HOME, settings)
    envoy.wait(supervisor)
    portals = {way: envoy.url(way) for way in WAYS[1:]}
    return {
        "fixture": Place(places["fixture"], {"gateway": envoy.url("fixture")} | portals),
        "careless": Place(places["careless"], {"gateway": envoy.url("careless")}),
    }


def federation(fixture: str) -> dict[str, Any]:
    """Portals in which the fixture's names are as they are, since the suite asks for them by name."""
    member = {
        "prefix": "",
        "tools": {name: {} for name in listed(fixture, "tools")},
        "prompts": {name: {} for name in listed(fixture, "prompts")},
        "uris": ["test://"],
    }
    several = {"fixture": member} | {name: {} for name in OTHERS}
    return {"portals": {"portal-of-one": {"servers": {"fixture": member}}, "portal-of-several": {"servers": several}}}


def listed(url: str, what: str) -> list[str]:
    """The names of a server's tools or prompts."""
    version = REVISIONS[-1]
    meta = {
        "io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "conformance", "version": "1"},
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": f"{what}/list", "params": {"_meta": meta}}
    headers = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": version,
        "mcp-method": f"{what}/list",
    }
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with opener.open(request, timeout=30) as answer:
        text = answer.read().decode()
    lines = [line.removeprefix("data:") for line in text.splitlines() if line.startswith("data:")]
    result = json.loads(lines[-1] if lines else text)["result"]
    if result.get("nextCursor"):
        raise StackError(f"the fixture's {what} have a second page, which this runner does not read")
    return [str(each["name"]) for each in result[what]]


# --- comparing -------------------------------------------------------------------------------------


@dataclass
class Row:
    """A line of a table, and one test for each way through the gateway."""

    scenario: Scenario
    direct: Result | None
    ways: dict[str, Result | None]
    deviations: dict[str, str] = field(default_factory=dict)
    """Why it may be worse, by way."""
    careless: bool = False

    def verdicts(self) -> dict[str, str]:
        """What is wrong, by way."""
        return {way: problem for way in self.ways if (problem := self._verdict(way))}

    def _verdict(self, way: str) -> str | None:
        direct, through, deviation = self.direct, self.ways[way], self.deviations.get(way)
        if direct is None or through is None:
            return "was not run"
        if self.careless:
            if deviation:
                return "passes: take it out of deviations.toml" if through.complete else None
            return None if through.complete else "the gateway does not make up for the server"
        if self.scenario.required and not direct.complete:
            return "the fixture itself does not pass"
        # A portal is an endpoint of its own, which offers less; the server's own path is to lose nothing.
        worse = through.worse_than(direct, may_skip=way != "gateway")
        if deviation and not worse:
            return "is not worse than directly: take it out of deviations.toml"
        if worse and not deviation:
            return "is worse than directly"
        if self.scenario.required and not through.complete and not deviation:
            return "does not pass"
        return None


def compare(suite: Suite, places: dict[str, Place]) -> list[Row]:
    deviations = read_deviations()
    rows = []
    fixture, careless = places["fixture"], places["careless"]
    for revision in REVISIONS:
        results = {
            way: suite.run_requirements(revision, fixture.url(way), HOME / revision / way) for way in ("direct", *WAYS)
        }
        for scenario in suite.scenarios(revision):
            ways = {way: results[way].get(scenario.name) for way in WAYS}
            direct = results["direct"].get(scenario.name)
            rows.append(Row(scenario, direct, ways, expected(deviations, revision, scenario.name, WAYS)))
    for name in HEADER_SCENARIOS:
        direct, through = (
            suite.run_scenario(name, HEADER_REVISION, careless.url(way), HOME / "careless" / name / way)
            for way in ("direct", "gateway")
        )
        known = expected(deviations, "careless", name, WAYS[:1])
        rows.append(Row(Scenario(HEADER_REVISION, name, None), direct, {"gateway": through}, known, careless=True))
    if deviations:
        raise StackError(f"deviations.toml names what is not run: {sorted(deviations)}")
    return rows


Deviations = dict[tuple[str, str, str], str]


def expected(deviations: Deviations, revision: str, scenario: str, ways: Iterable[str]) -> dict[str, str]:
    """The reasons for one scenario by way, taken out of all."""
    keys = [(revision, scenario, way) for way in ways]
    return {key[-1]: deviations.pop(key) for key in keys if key in deviations}


def read_deviations() -> Deviations:
    entries = tomllib.loads((HERE / "deviations.toml").read_text()).get("deviation", [])
    return {(entry["revision"], entry["scenario"], way): entry["reason"] for entry in entries for way in entry["ways"]}


# --- telling ---------------------------------------------------------------------------------------


def show(rows: Iterable[Row], *, details: bool) -> None:
    for row in rows:
        problems = row.verdicts()
        kind = "" if row.scenario.required else f"({row.scenario.note})"
        mark = "FAILED" if problems else "ok"
        where = "careless" if row.careless else row.scenario.revision
        numbers = " ".join(f"{result!s:>6}" for result in (row.direct, *row.ways.values()))
        words = "; ".join(f"{TITLES[way]}: {problem}" for way, problem in problems.items())
        say(f"{where:<10}  {row.scenario.name:<46} {numbers}  {mark:<6} {words or kind}")
        for way, result in row.ways.items():
            if result and (details or way in problems):
                for words in result.problems:
                    say(f"              {TITLES[way]}: {words}")


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
        "everything here: on the server's own path, `/mcp/NAME`, and through two federated endpoints",
        "([federation.md](federation.md)), a portal of this server alone and one in which three servers on",
        "other SDKs stand beside it. The numbers are checks passed of checks made; what a server only",
        "*should* do counts, too. Checks of what a portal need not offer, and does not, are skipped by the",
        "suite and not counted. What is marked is explained at the end.",
    ]
    for revision in REVISIONS:
        mine = [row for row in rows if row.scenario.revision == revision and not row.careless]
        for required, title in ((True, "required"), (False, "not required")):
            chosen = [row for row in mine if row.scenario.required == required]
            lines += ["", f"## {revision}, {title}", ""]
            lines += [f"* {TITLES[way]}: {whole(chosen, way)} of {len(chosen)} pass" for way in WAYS]
            lines += ["", *table(chosen, with_note=not required)]
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
    deviations = [row for row in rows if row.deviations]
    if deviations:
        lines += ["", "## Exceptions, and why", ""]
        for row in deviations:
            where = "a server that does not check headers" if row.careless else row.scenario.revision
            for reason in dict.fromkeys(row.deviations.values()):
                ways = " and ".join(TITLES[way] for way, its in row.deviations.items() if its == reason)
                lines += [f"* {where}, `{row.scenario.name}`, {ways}: {reason}"]
    return "\n".join(lines) + "\n"


def whole(rows: Iterable[Row], way: str) -> int:
    """How many scenarios pass as a whole on this way."""
    results = (row.ways.get(way) for row in rows)
    return sum(result is not None and result.complete for result in results)


def table(rows: Iterable[Row], *, with_note: bool = False) -> list[str]:
    rows = sorted(rows, key=lambda row: row.scenario.name)
    ways = list(rows[0].ways)
    head = ["scenario", "direct", *(TITLES[way] for way in ways), *(["not required because"] if with_note else [])]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        through = (cell(row.ways[way], marked=way in row.deviations) for way in ways)
        cells = [f"`{row.scenario.name}`", cell(row.direct), *through]
        lines.append(f"| {' | '.join(cells + ([row.scenario.note or ''] if with_note else []))} |")
    return lines


def cell(result: Result | None, *, marked: bool = False) -> str:
    if result is None:
        return "not run"
    return f"**{result}**" if marked or not result.complete else str(result)


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
            for way in ("direct", *place.ways):
                result = suite.run_scenario(name, revision, place.url(way), HOME / revision / server / way)
                say(f"{revision}  {server:<9} {way:<18} {result}")
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
    heading("revision    scenario                                            direct  gateway  portals of one and of several")
    show(rows, details=given.details)
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(written(rows, versions()))
    say(f"the table is in {relative(TABLE)}, everything else under {relative(HOME)}")
    failed = sum(len(row.verdicts()) for row in rows)
    print(f"{sum(len(row.ways) for row in rows) - failed} passed, {failed} failed", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
