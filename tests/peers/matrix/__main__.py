"""`tests/peers/run`: every client against every server, directly and through the gateway.

One server per SDK offers the same tools, prompts and resources (tests/peers/servers); one client per SDK
performs the same actions (tests/peers/clients). Each pair does so in every era that the client can be
told to speak, first with nothing in between and then through Envoy with the plugin, as a user from whom
the policy keeps a tool, a prompt, a resource and a template. One test per pair, era and feature:

  * what a pair does directly it has to do through the gateway;
  * what it does not do directly either is its own: such a mark in the table is proven by the run.

    tests/peers/run                          all of it; writes docs/peers.md
    tests/peers/run --client A --server B    only these; writes nothing, prints what is missing

Everything of the last run is under target/peers.
"""

import argparse
import concurrent.futures
import shutil
import sys
from pathlib import Path

from stack.console import ROOT, TARGET, StackError, fail, heading, relative, say
from stack.supervisor import Supervisor

from matrix import features, peers, table

HOME = TARGET / "peers"
TABLE = ROOT / "docs" / "peers.md"
PLUGIN = TARGET / "toolgate.wasm"
AT_ONCE = 3


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests/peers/run", description="Runs every client against every server.")
    parser.add_argument("--client", choices=[client.name for client in peers.ALL_CLIENTS])
    parser.add_argument("--server", choices=[server.name for server in peers.ALL_SERVERS])
    parser.add_argument("--plugin", metavar="FILE", type=Path, default=PLUGIN, help="instead of target/toolgate.wasm")
    given = parser.parse_args()
    clients = [client for client in peers.ALL_CLIENTS if given.client in (None, client.name)]
    servers = [server for server in peers.ALL_SERVERS if given.server in (None, server.name)]
    partial = bool(given.client or given.server)
    try:
        if not given.plugin.is_file():
            raise StackError(f"{relative(given.plugin)} is missing; scripts/build makes the plugin")
        shutil.rmtree(HOME, ignore_errors=True)
        with Supervisor(HOME) as supervisor:
            place = peers.start(supervisor, HOME, given.plugin, servers)
            heading(f"{'client':<10} {'era':<8} {'server':<8} features")
            rows, choices = play(place, clients, servers, details=partial)
    except StackError as error:
        fail(error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    if not partial:
        TABLE.write_text(table.written(rows, choices))
        say(f"the table is in {relative(TABLE)}, everything else under {relative(HOME)}")
    passed = sum(row.count("passed") for row in rows) + sum(choice.holds for choice in choices)
    failed = sum(row.count("failed") for row in rows) + sum(not choice.holds for choice in choices)
    print(f"{passed} passed, {failed} failed", flush=True)
    sys.exit(1 if failed else 0)


def play(
    place: peers.Place, clients: list[peers.Client], servers: list[peers.Server], *, details: bool
) -> tuple[list[table.Row], list[table.Choice]]:
    """All runs, some at once; each pair is told as it comes to its end, and returned in its order."""
    wanted = features.actions("{run}")

    def row(client: peers.Client, era: str, server: peers.Server) -> table.Row:
        seen = (place.run(client, era, server, wanted, through_gateway=way) for way in (False, True))
        made = table.Row(client, era, server, *map(features.problems, seen))
        say("\n".join(told(made, details=details)))
        return made

    def choice(client: peers.Client, server: peers.Server) -> table.Choice:
        seen = (place.run(client, "auto", server, [["tools"]], through_gateway=way) for way in (False, True))
        made = table.Choice(client, server, *map(table.revision, seen))
        mark = "ok" if made.holds else "FAILED"
        say(f"{client.name:<10} auto     {server.name:<8} {made.direct} directly, {made.gateway} through: {mark}")
        return made

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        rows = [pool.submit(row, client, era, server) for client in clients for era in client.eras for server in servers]
        choosing = [client for client in clients if "modern" in client.eras]
        choices = [pool.submit(choice, client, server) for client in choosing for server in servers]
        try:
            return [one.result() for one in rows], [one.result() for one in choices]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def told(row: table.Row, *, details: bool) -> list[str]:
    verdicts = row.verdicts()
    marks = " ".join(f"{name}:{table.MARKS[verdict]}" for name, verdict in verdicts.items())
    lines = [f"{row.client.name:<10} {row.era:<8} {row.server.name:<8} {marks}"]
    for name, verdict in verdicts.items():
        if verdict == "failed":
            lines.append(f"    FAILED {name}: {row.gateway[name] or row.direct[name]}")
        elif verdict != "passed" and details:
            lines.append(f"    {name}: {row.direct[name]}")
    return lines


if __name__ == "__main__":
    main()
