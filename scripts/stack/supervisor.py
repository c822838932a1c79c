"""Starts processes, waits until they answer, and stops every one of them, however the run ends."""

import contextlib
import http.client
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from stack.console import StackError, relative

READY_WITHIN_SECONDS = 90.0
# One that is ended harder loses what it has not written yet.
STOP_WITHIN_SECONDS = 30.0
POLL_SECONDS = 0.05


@dataclass
class Child:
    """A running process, leader of its own process group."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-15:] or ["(nothing)"]
        return "\n    ".join([f"the end of {relative(self.log)}:", *lines])


class Supervisor:
    """A context manager: inside it children run, after it none does, unless they were released.

    SIGINT, SIGTERM and SIGHUP end the block by an exception, so that its clean-up runs.
    """

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.children: dict[str, Child] = {}
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self.logs.mkdir(parents=True, exist_ok=True)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._handlers[number] = signal.signal(number, _interrupt)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        # From here on nothing may cut the clean-up short.
        for number in self._handlers:
            signal.signal(number, signal.SIG_IGN)
        self.stop_all()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def start(
        self,
        name: str,
        command: list[str],
        env: Mapping[str, str] | None = None,
        *,
        cwd: Path,
        stdout: Path | None = None,
    ) -> Child:
        """Starts a child whose output goes to `<logs>/<name>.log`, or its standard output to `stdout`."""
        log = self.logs / f"{name}.log"
        with log.open("ab") as errors, (stdout or log).open("ab") as output:
            try:
                process = subprocess.Popen(
                    command,
                    cwd=cwd,
                    env=dict(os.environ) | dict(env or {}),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=errors if stdout else output,
                    start_new_session=True,
                )
            except OSError as error:
                raise StackError(f"cannot start {name}: {error}") from error
        child = Child(name, process, log)
        self.children[name] = child
        return child

    def wait_until_answers(
        self,
        child: Child,
        url: str,
        within: float = READY_WITHIN_SECONDS,
        status: int | None = None,
        authority: Path | None = None,
    ) -> None:
        """Waits until `url` answers, with `status` if given; any answer proves that the server listens."""
        deadline = time.monotonic() + within
        seen = "nothing answered"
        while time.monotonic() < deadline:
            if (code := child.process.poll()) is not None:
                raise StackError(f"{child.name} ended with exit code {code}; {child.last_words()}")
            answered = http_status(url, authority)
            if answered is not None and status in (None, answered):
                return
            seen = f"it answered {answered}" if answered else seen
            time.sleep(POLL_SECONDS)
        raise StackError(f"{child.name} was not ready at {url} within {within:.0f} s ({seen}); {child.last_words()}")

    def release(self) -> dict[str, int]:
        """Lets the children live on after the block; returns their process ids by name."""
        pids = {name: child.process.pid for name, child in self.children.items()}
        for child in self.children.values():
            child.process.returncode = 0  # no longer ours to wait for
        self.children.clear()
        return pids

    def stop(self, name: str) -> None:
        """Stops one child and everything it started."""
        child = self.children.pop(name)
        stop_group(child.process.pid, lambda seconds: _ended(child.process, seconds))

    def stop_all(self) -> None:
        """Stops the children, the youngest first."""
        for name in reversed(list(self.children)):
            self.stop(name)


def stop_group(pid: int, ended_within: Callable[[float], bool]) -> None:
    """Asks a process group to end, and ends it when it does not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            return
        if ended_within(STOP_WITHIN_SECONDS):
            break
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)  # whatever the leader left behind in its group


def http_status(url: str, authority: Path | None = None) -> int | None:
    """The HTTP status `url` answers with, None when nothing answers."""
    try:
        with opener(authority).open(url, timeout=2) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as answer:
        return answer.code
    except (OSError, http.client.HTTPException):
        return None


def opener(authority: Path | None = None) -> urllib.request.OpenerDirector:
    """Opens URLs on loopback, so by no proxy of the environment; by TLS with the one authority that is given."""
    trusted = ssl.create_default_context(cafile=authority)
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusted))


def require_free_ports(ports: Mapping[int, str]) -> None:
    """Fails when a port the stack needs is taken, naming all that are and by whom."""
    taken = [
        f"port {port} (for {purpose}) is taken by {holder}"
        for port, purpose in ports.items()
        if (holder := port_holder(port)) is not None
    ]
    if taken:
        way_out = "End what is there; `scripts/demo --stop` does if an earlier demo left it running"
        raise StackError("\n  ".join([*taken, way_out]))


def port_holder(port: int) -> str | None:
    """Who listens on a loopback port: a description, or None when nobody does."""
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.settimeout(1)
                if probe.connect_ex((address, port)) == 0:
                    return _listener(port)
        except OSError:
            continue
    return None


def _listener(port: int) -> str:
    for command, pattern in (
        (["ss", "-Hltnp", f"sport = :{port}"], r'\("([^"]+)",pid=(\d+)'),
        (["lsof", "-nP", f"-iTCP:{port}", "-sTCP:LISTEN"], r"^(?!COMMAND)(\S+)\s+(\d+)"),
    ):
        if shutil.which(command[0]):
            answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout
            if found := re.search(pattern, answer, re.MULTILINE):
                return f"{found[1]} (process {found[2]})"
    return "another program"


def _ended(process: subprocess.Popen[bytes], within: float) -> bool:
    try:
        process.wait(timeout=within)
    except subprocess.TimeoutExpired:
        return False
    return True


def _interrupt(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
