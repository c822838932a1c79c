"""Leaves a stack running for other programs: where it is, how to point clients at it, how to stop it."""

import json
import os
import time
from functools import partial
from pathlib import Path

from stack import servers
from stack.console import heading, relative, say
from stack.running import Stack
from stack.supervisor import POLL_SECONDS, stop_group


def write_session(path: Path, stack: Stack, processes: dict[str, int]) -> None:
    """Everything that another client or test needs; readable only by its owner, as it holds tokens."""
    session = {
        "gateway": {"url": servers.GATEWAY, "servers": servers.SERVERS},
        "tokens": stack.tokens,
        "upstreams": servers.UPSTREAMS,
        "vault": servers.VAULT if stack.parts.vault else None,
        "envoy_admin": servers.ADMIN,
        "access_log": relative(stack.access_log),
        "upstream_request_log": relative(stack.request_log),
        "processes": processes,
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(session, indent=2) + "\n")


def explain(session: Path, stack: Stack) -> None:
    heading("It is still running; point a client at it")
    url = servers.SERVERS["billing"]
    print(
        f"""
   Servers         {servers.SERVERS["everything"]}
                   {url}    (for alice)
   Token           export TOKEN=$(scripts/token alice)      (or bob; good for an hour)
   For programs    {relative(session)}

   MCP Inspector   npx @modelcontextprotocol/inspector --server-url {url} \\
                       --transport http --header "Authorization: Bearer $TOKEN"
                   npx @modelcontextprotocol/inspector --cli {url} \\
                       --transport http --header "Authorization: Bearer $TOKEN" --method tools/list

   Claude Code     claude mcp add --transport http billing {url} \\
                       --header "Authorization: Bearer $TOKEN"

   Cursor          .cursor/mcp.json, Cursor being started where TOKEN is exported
                   {{ "mcpServers": {{ "billing": {{
                       "url": "{url}",
                       "headers": {{ "Authorization": "Bearer ${{env:TOKEN}}" }} }} }} }}

   VS Code         .vscode/mcp.json; it asks for the token
                   {{ "inputs": [
                       {{ "type": "promptString", "id": "token", "description": "Token", "password": true }} ],
                     "servers": {{ "billing": {{
                       "type": "http",
                       "url": "{url}",
                       "headers": {{ "Authorization": "Bearer ${{input:token}}" }} }} }} }}

   Records         tail -f {relative(stack.access_log)}
   The end         scripts/demo --stop"""
    )


def stop(session: Path) -> None:
    """Stops what was left running."""
    try:
        processes: dict[str, int] = json.loads(session.read_text())["processes"]
    except (OSError, ValueError, KeyError):
        say("nothing was left running")
        return
    for name, pid in reversed(processes.items()):
        if not leads_its_group(pid):
            say(f"{name} had ended already")
            continue
        stop_group(pid, partial(gone, pid))
        say(f"{name} stopped")
    session.unlink()


def leads_its_group(pid: int) -> bool:
    """Whether the process is one of ours: each leads its own group, which a reused id hardly does."""
    try:
        return os.getpgid(pid) == pid and os.getsid(pid) == pid
    except ProcessLookupError:
        return False


def gone(pid: int, within: float) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(POLL_SECONDS)
    return False
