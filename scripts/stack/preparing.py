"""Obtains and builds what the stack runs, at the same time as far as it goes."""

import concurrent.futures
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stack import tools
from stack.console import ROOT, TARGET, StackError, Status, Stopwatch, labelled, relative
from stack.supervisor import require_free_ports

PLUGIN = TARGET / "toolgate.wasm"
ENVOY_CONFIG = ROOT / "envoy" / "envoy.yaml"
LOOK_AGAIN_SECONDS = 0.5


@dataclass
class Parts:
    """The programs that the stack runs."""

    python: Path
    node: Path
    envoy: Path
    vault: tools.Vault | None


def check_prerequisites(ports: dict[int, str]) -> None:
    """Names everything that is missing at once, before anything long begins."""
    missing = []
    if shutil.which("cargo") is None:
        missing.append("cargo (install Rust with rustup, https://rustup.rs; rust-toolchain.toml picks the version)")
    if shutil.which("node") is None or shutil.which("npm") is None:
        missing.append(f"node and npm ({tools.dotted(tools.NODE_AT_LEAST)} or newer)")
    if not ENVOY_CONFIG.is_file():
        missing.append(f"{relative(ENVOY_CONFIG)} (the checkout is not complete)")
    if not os.access(ROOT / "scripts" / "build", os.X_OK):
        missing.append("scripts/build (the checkout is not complete)")
    if missing:
        raise StackError("missing:\n  - " + "\n  - ".join(missing))
    require_free_ports(ports)


def prepare(watch: Stopwatch, *, with_vault: bool) -> Parts:
    """Does the four jobs side by side; each has its own cache, so this takes a moment the second time."""
    jobs: dict[str, Callable[[], object]] = {
        "compiling the plugin": build_plugin,
        "fetching Envoy": envoy_and_python,
        "fetching the MCP servers": tools.node,
    }
    if with_vault:
        jobs["fetching a vault"] = tools.vault
    with watch.timing("preparing"):
        made, seconds = do_all(jobs)
    watch.parts["preparing"] = seconds
    envoy, python = made["fetching Envoy"]
    parts = Parts(python, made["fetching the MCP servers"], envoy, made.get("fetching a vault"))
    size = f"{PLUGIN.stat().st_size / 1e6:.1f} MB"
    labelled("plugin", f"{relative(PLUGIN)}, {size}, built from this checkout")
    labelled("Envoy", f"{relative(parts.envoy)}, {tools.dotted(tools.envoy_version(parts.envoy))}")
    labelled("servers", f"{relative(tools.PEERS / 'node_modules')}")
    if parts.vault:
        labelled("vault", relative(parts.vault.program))
    return parts


def do_all(jobs: dict[str, Callable[[], Any]]) -> tuple[dict[str, Any], dict[str, float]]:
    """The result of each job, by name, and how long it took."""
    began, status = time.monotonic(), Status()
    results: dict[str, Any] = {}
    seconds = dict.fromkeys(jobs, 0.0)
    with concurrent.futures.ThreadPoolExecutor(len(jobs)) as pool:
        running = {pool.submit(job): name for name, job in jobs.items()}
        try:
            while running:
                done, _ = concurrent.futures.wait(running, LOOK_AGAIN_SECONDS, concurrent.futures.FIRST_COMPLETED)
                for future in done:
                    name = running.pop(future)
                    seconds[name] = time.monotonic() - began
                    results[name] = future.result()
                if running:
                    status.show(" and ".join(running.values()), tools.latest_words())
        except BaseException:
            tools.cancel()
            raise
        finally:
            status.clear()
    return results, seconds


def envoy_and_python() -> tuple[Path, Path]:
    """One after the other: Envoy may have to come from the same virtual environment."""
    python = tools.python()
    return tools.envoy(), python


def build_plugin() -> None:
    tools.run([str(ROOT / "scripts" / "build")], "scripts/build failed", cwd=ROOT)
    if not PLUGIN.is_file():
        raise StackError(f"scripts/build left no {relative(PLUGIN)}")
