"""`scripts/test`: all tests, in parts.

    scripts/test            runs every part
    scripts/test PART...    runs these
    scripts/test --list     names them
    scripts/test --again    runs a part of real programs once more when it failed, and says so

A part ends with a line `PART: N passed, N failed`, the sum of what its runners report; the last line
of all is `N passed, N failed`. The exit code is 0 when nothing failed. A runner that ends badly
without naming a failed test, or that runs no test, is itself a failed test.

Tools that no toolchain brings are installed under target/tools, once. Standard library only.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

if sys.version_info < (3, 11):
    sys.exit(f"error: python3 is {sys.version.split()[0]}; install Python 3.11 or newer")

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / "target" / "tools"
CARGO_DENY = "0.20.2"
# A workspace of its own, which only the part "peers" builds.
RUST_PEERS = "tests/peers/rmcp/Cargo.toml"
# The longest that one runner may take, compiling included.
LIMIT_SECONDS = 45 * 60
COUNTS = (
    re.compile(r"test result: \w+\. (\d+) passed; (\d+) failed"),
    re.compile(r"(?:\w+: )?(\d+) passed, (\d+) failed"),
)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
NOTHING_RAN = "no tests to run!"  # what wasm-bindgen-test-runner says, and ends well


# --- the parts -------------------------------------------------------------------------------------


def lint(part: "Part") -> None:
    """formatting, clippy for the host and for WebAssembly, licences and sources, shell scripts"""
    part.verify("formatting", "cargo", "fmt", "--all", "--check")
    part.verify("formatting of the peers", "cargo", "fmt", "--manifest-path", RUST_PEERS, "--check")
    deny = ["--", "--deny", "warnings"]
    part.verify("clippy", "cargo", "clippy", "--locked", "--keep-going", "--workspace", "--all-targets", *deny)
    if part.prepare("the target", "scripts/rust-target", "wasm32-wasip1"):
        filter_ = ["--package", "toolgate-filter", "--target", "wasm32-wasip1"]
        part.verify("clippy of the filter", "cargo", "clippy", "--locked", *filter_, *deny)
    if part.install("cargo-deny", CARGO_DENY, "cargo-deny"):
        check = ["cargo-deny", "--locked", "check", "--hide-inclusion-graph"]
        part.verify("licences, bans and sources", *check, "licenses", "bans", "sources")
        of_peers = ["cargo-deny", "--manifest-path", RUST_PEERS, "--config", "deny.toml", *check[1:]]
        part.verify("licences, bans and sources of the peers", *of_peers, "licenses", "bans", "sources")
        if succeeds("cargo-deny", "--locked", "fetch", "db"):
            part.verify("advisories", *check, "--disable-fetch", "advisories")
        else:
            part.say("advisories are not checked: their database cannot be fetched from here")
    if shutil.which("shellcheck"):
        part.verify("shellcheck", "shellcheck", *shell_scripts())
    else:
        part.say("shell scripts are not checked: shellcheck is not on PATH")


def native(part: "Part") -> None:
    """unit tests, the command line, the scenarios on the native core, properties"""
    crates = packages("protocol", "policy", "core", "cli", "artifact")
    part.run("unit tests", "cargo", "test", "--locked", "--no-fail-fast", *crates)
    part.run("fuzz checks", "cargo", "test", "--locked", "--no-fail-fast", *packages("fuzz"))
    part.run("scenarios", *harness("native", "properties", "examples", "protocol"))


def webassembly(part: "Part") -> None:
    """the tests of the crates without a host, as WebAssembly in V8 under Node"""
    for file in tests_that_only_run_natively():
        part.fail(f"{file} has tests that do not run here; other files show how")
    if not part.prepare("the target", "scripts/rust-target", "wasm32-unknown-unknown"):
        return
    if not part.install("wasm-bindgen-cli", locked_version("wasm-bindgen"), "wasm-bindgen-test-runner"):
        return
    crates = packages("protocol", "policy", "core")
    target = ["--target", "wasm32-unknown-unknown", "--lib", "--tests"]
    part.run("tests in V8", "cargo", "test", "--locked", "--no-fail-fast", *target, *crates)


def wasm(part: "Part") -> None:
    """the plugin as a file, and the scenarios on it in a proxy-wasm host of our own"""
    if not part.prepare("the build", "scripts/build"):
        return
    part.run("the file", "cargo", "run", "--locked", "--quiet", *packages("artifact"), "--", "target/toolgate.wasm")
    part.run("scenarios", *harness("host", "wasm", "counting"))


def envoy(part: "Part") -> None:
    """the scenarios on the plugin in a real Envoy"""
    if part.prepare("the build", "scripts/build") and part.prepare("fetching", "scripts/fetch", "envoy"):
        program = answer("scripts/fetch", "envoy").split()[-1]
        part.verify("the vault's cluster", "tests/credentials/validate", program)
        part.verify("a server's cluster", "tests/federation/validate", program)
        part.run("scenarios", *harness("envoy"), env={"ENVOY": str(ROOT / program)})
        part.run("calls", *harness("envoy_calls"), env={"ENVOY": str(ROOT / program)})


def kong(part: "Part") -> None:
    """the scenarios on the plugin in a host that behaves like Kong; scripts/kong has the real one"""
    if part.prepare("the build", "scripts/build"):
        part.run("scenarios", *harness("kong", "kong_rules", "kong_files"))


def conformance(part: "Part") -> None:
    """the official conformance suite, directly and through the gateway; writes docs/conformance.md"""
    if part.prepare("the build", "scripts/build") and part.prepare("fetching", "scripts/fetch", "envoy", "python", "node", "fastmcp"):
        part.run("conformance", "tests/conformance/run")


def clients(part: "Part") -> None:
    """end to end: the official clients, Envoy with the plugin, real MCP servers, a vault"""
    if part.prepare("the build", "scripts/build") and part.prepare("fetching", "scripts/fetch", "envoy", "vault", "python", "node", "inspector"):
        part.run("clients", "target/tools/python/bin/python", "tests/clients/run.py")


def peers(part: "Part") -> None:
    """every official client at every official server, directly and through the gateway; writes docs/peers.md"""
    fetch = ["scripts/fetch", "envoy", "python", "node", "inspector", "fastmcp", "rmcp"]
    if part.prepare("the build", "scripts/build") and part.prepare("fetching", *fetch):
        part.run("peers", "tests/peers/run")


def smuggling(part: "Part") -> None:
    """requests that real servers run and the gateway refuses; writes docs/smuggling.md"""
    if part.prepare("the build", "scripts/build") and part.prepare("fetching", "scripts/fetch", "envoy", "python", "node", "fastmcp"):
        part.run("smuggling", "target/tools/python/bin/python", "tests/smuggling/run.py")


def login(part: "Part") -> None:
    """login as people have it: official clients that are given a URL, at a real identity provider"""
    if part.prepare("the build", "scripts/build") and part.prepare("fetching", "scripts/fetch", "envoy", "python", "node"):
        part.run("login", "target/tools/python/bin/python", "tests/login/run.py")


def credentials(part: "Part") -> None:
    """the life of credentials: a real vault that fails in every way, a real authorization server, nothing leaks"""
    fetch = ["scripts/fetch", "envoy", "vault", "openbao", "valkey", "python", "node"]
    if part.prepare("the build", "scripts/build") and part.prepare("fetching", *fetch):
        part.run("credentials", "tests/credentials/run")


def federation(part: "Part") -> None:
    """twenty-five real servers behind one endpoint of two Envoys, some of them failing under load"""
    if part.prepare("the build", "scripts/build") and part.prepare("fetching", "scripts/fetch", "envoy", "python", "node", "fastmcp", "rmcp"):
        part.run("federation", "tests/federation/run")


def demo(part: "Part") -> None:
    """scripts/demo, which checks what it shows"""
    part.run("the demo", "scripts/demo")


PARTS: dict[str, Callable[["Part"], None]] = {
    part.__name__: part
    for part in (lint, native, webassembly, wasm, kong, envoy, conformance, clients, login, credentials, peers, smuggling, federation, demo)
}


# Parts whose tests start real programs and wait for them: on a machine that stops for a while, as those of
# continuous integration do, one of thousands of waits may come to its end. What fails twice has failed.
OF_REAL_PROGRAMS = (envoy, conformance, clients, login, credentials, peers, smuggling, federation, demo)


def tests_that_only_run_natively() -> list[str]:
    """Files whose tests `wasm_bindgen_test` does not take over, so that they would be left out in silence."""
    files = [file for crate in ("protocol", "policy", "core") for file in (ROOT / "plugin" / crate).rglob("*.rs")]
    texts = {str(file.relative_to(ROOT)): file.read_text() for file in sorted(files)}
    return [file for file, text in texts.items() if "#[test]" in text and "wasm_bindgen_test" not in text]


def packages(*names: str) -> list[str]:
    return [word for name in names for word in ("--package", f"toolgate-{name}")]


def harness(*tests: str) -> list[str]:
    named = [word for test in tests for word in ("--test", test)]
    return ["cargo", "test", "--locked", "--no-fail-fast", *packages("harness"), *named]


def shell_scripts() -> list[str]:
    files = [path for directory in ("scripts", ".ci") for path in sorted((ROOT / directory).iterdir())]
    return [str(path.relative_to(ROOT)) for path in files if path.is_file() and b"bash" in first_line(path)]


def first_line(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.readline()


def locked_version(crate: str) -> str:
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    return next(package["version"] for package in lock["package"] if package["name"] == crate)


# --- running them ----------------------------------------------------------------------------------


class Part:
    """Runs the runners of a part and adds up what they report."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.passed = 0
        self.failures: list[str] = []
        self.failed = 0

    def run(self, what: str, *command: str, env: dict[str, str] | None = None) -> None:
        """Runs a test runner, which says how many tests passed and failed."""
        ran = run(command, env)
        self.passed += ran.passed
        self.failed += ran.failed
        if ran.failed:
            self.failures.append(f"{what}: {ran.failed} failed")
        elif ran.code != 0:
            self.fail(f"{what}: {command[0]} ended with {ran.code}")
        elif ran.passed == 0 or ran.lacks_tests:
            self.fail(f"{what}: no test was run")

    def verify(self, what: str, *command: str) -> None:
        """Runs a command that is one test: it passes or fails as a whole."""
        self.passed += self.prepare(what, *command)

    def prepare(self, what: str, *command: str) -> bool:
        """Runs a command that tests need; only its failure counts."""
        code = run(command).code
        if code != 0:
            self.fail(f"{what}: {command[0]} ended with {code}")
        return code == 0

    def install(self, package: str, version: str, program: str) -> bool:
        """Makes sure of a program that cargo installs."""
        if version in answer(program, "--version").split():
            return True
        self.say(f"installing {package} {version} (crates.io; once, some minutes)")
        command = ["cargo", "install", "--quiet", "--root", str(TOOLS.relative_to(ROOT)), "--bin", program]
        # Its own lock file may name versions that a mirror of crates.io does not have yet.
        for options in (["--locked"], []):
            if run([*command, *options, f"{package}@{version}"]).code == 0:
                return True
        self.fail(f"{package} could not be installed")
        return False

    def fail(self, problem: str) -> None:
        self.failed += 1
        self.failures.append(problem)
        self.say(f"FAILED: {problem}")

    def say(self, text: str) -> None:
        print(f"-- {self.name}: {text}", flush=True)


@dataclass
class Ran:
    """How a command ended, and what it reported."""

    code: int
    passed: int = 0
    failed: int = 0
    lacks_tests: bool = False
    """Whether it said that one of its programs has no test."""


def run(command: Sequence[str], env: dict[str, str] | None = None) -> Ran:
    """Runs a command, showing what it prints."""
    print(f"\n$ {' '.join(command)}", flush=True)
    try:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment() | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        print(f"error: {error}", flush=True)
        return Ran(code=127)
    limit = threading.Timer(LIMIT_SECONDS, end, [process])
    limit.start()
    ran = Ran(code=-1)
    try:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            text = COLOUR.sub("", line).strip()
            ran.lacks_tests |= text == NOTHING_RAN
            if found := next(filter(None, (count.match(text) for count in COUNTS)), None):
                ran.passed += int(found[1])
                ran.failed += int(found[2])
        ran.code = process.wait()
        return ran
    finally:
        limit.cancel()
        end(process)


def end(process: "subprocess.Popen[str]") -> None:
    """Ends a command and what it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def succeeds(*command: str) -> bool:
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=120
        )
        return done.returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def answer(*command: str) -> str:
    """What a command prints; nothing when it fails."""
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout if done.returncode == 0 else ""


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(TOOLS / "bin"), os.environ.get("PATH", "")])
    return os.environ | {"PATH": path}


def run_part(name: str) -> Part:
    print(f"\n== {name}: {PARTS[name].__doc__}", flush=True)
    began = time.monotonic()
    part = Part(name)
    PARTS[name](part)
    part.say(f"took {time.monotonic() - began:.0f} s")
    print(f"{name}: {part.passed} passed, {part.failed} failed", flush=True)
    return part


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/test", description="Runs the tests, in parts.")
    parser.add_argument("parts", nargs="*", metavar="PART", help="what to run; everything by default")
    parser.add_argument("--list", action="store_true", help="name the parts and say what they test")
    parser.add_argument("--again", action="store_true", help="run a part of real programs once more when it failed, and say so")
    given = parser.parse_args()
    if given.list:
        for name, part in PARTS.items():
            print(f"{name:<12} {part.__doc__}")
        return
    if unknown := [name for name in given.parts if name not in PARTS]:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")

    done, unsteady = [], []
    for name in given.parts or PARTS:
        part = run_part(name)
        if part.failed and given.again and PARTS[name] in OF_REAL_PROGRAMS:
            unsteady.append(part)
            part = run_part(name)
        done.append(part)

    print()
    for part in unsteady:
        for failure in part.failures:
            print(f"failed at first, and the part was run again: {part.name}: {failure}")
    for part in done:
        for failure in part.failures:
            print(f"failed: {part.name}: {failure}")
    passed, failed = sum(part.passed for part in done), sum(part.failed for part in done)
    print(f"{passed} passed, {failed} failed", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
