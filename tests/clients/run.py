#!/usr/bin/env python3
"""End to end: the official MCP clients, as two people, at Envoy with the plugin, real servers and a vault.

    scripts/build && scripts/fetch && tests/clients/run.py [--no-vault]

The stack is the demo's, with the repository's own envoy/envoy.yaml. Every check is a claim that is
printed as it holds or fails; the last line is `N passed, N failed`. Nothing here waits for a time: it
waits for what Envoy counts, or compares the times at which things arrived with each other.

`claims` keeps the score, `matrix` plays the clients, `trouble` what goes wrong around them,
`going_away` clients that leave a call at servers of both eras.
"""

import argparse
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from stack import servers, tools
from stack.console import TARGET, StackError, relative
from stack.preparing import PLUGIN, Parts
from stack.running import Stack
from stack.supervisor import Supervisor, require_free_ports

import going_away
import matrix
import trouble
from claims import Claims

HOME = TARGET / "clients"


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests/clients/run.py", description="Tests the gateway with real clients.")
    parser.add_argument("--no-vault", action="store_true", help="take the credential from the environment")
    given = parser.parse_args()
    claims = Claims()
    with claims.whole_run():
        with Supervisor(HOME) as supervisor:
            stack = Stack(supervisor, parts(with_vault=not given.no_vault), HOME)
            play(stack, claims)
            going_away.play(supervisor, claims, HOME / "going-away")


def parts(*, with_vault: bool) -> Parts:
    if not PLUGIN.is_file():
        raise StackError(f"there is no {relative(PLUGIN)}; run scripts/build")
    if shutil.which("node") is None:
        raise StackError("node is not on PATH")
    require_free_ports(servers.PORTS)
    return Parts(tools.python(), tools.node(), tools.envoy(), tools.vault() if with_vault else None)


def play(stack: Stack, claims: Claims) -> None:
    inspector = tools.inspector()
    stack.start()
    if stack.parts.vault:
        trouble.the_vault_is_down_and_comes_back(stack, claims)
    for client in matrix.CLIENTS:
        matrix.alice_at_billing(stack, claims, client)
        matrix.bob_at_everything(stack, claims, client)
        matrix.bob_at_billing(stack, claims, client)
        matrix.without_a_valid_token(stack, claims, client)
    matrix.the_inspector(stack, claims, inspector)
    trouble.a_session_that_has_ended(stack, claims)
    trouble.bad_messages(stack, claims)
    trouble.clients_that_go_away(stack, claims)
    trouble.a_server_is_down_and_comes_back(stack, claims)
    trouble.the_run_as_a_whole(stack, claims)


if __name__ == "__main__":
    main()
