"""What the stack says to the person at the keyboard, and how long things took."""

import json
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "target"
WIDTH = 110
LABEL = 12
HELD_TOGETHER = "\N{NO-BREAK SPACE}"
"""Stands for a space at which no line ends."""


class StackError(Exception):
    """A problem the person at the keyboard can solve; the message names it and the way out."""


class Stopwatch:
    """Notes how long things took, by name."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.seconds: dict[str, float] = {}
        self.parts: dict[str, dict[str, float]] = {}
        """What of it went on side by side."""

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = time.monotonic() - began

    def elapsed(self) -> float:
        return time.monotonic() - self.began

    def show(self) -> None:
        for what, seconds in self.seconds.items():
            say(f"{seconds:6.1f} s  {what}")
            for part, part_seconds in self.parts.get(what, {}).items():
                say(f"          {part_seconds:6.1f} s  {part}")


class Status:
    """A line that says what is going on: rewritten in place on a terminal, repeated now and then elsewhere."""

    REPEATED_AFTER_SECONDS = 30.0

    def __init__(self) -> None:
        self.began = self.said = time.monotonic()

    def show(self, text: str, detail: str = "") -> None:
        now = time.monotonic()
        if sys.stdout.isatty():
            line = f"   ... {text}, {now - self.began:.0f} s  {detail}"
            print(f"\r\x1b[2K{line[: WIDTH - 1]}", end="", flush=True)
        elif now - self.said > self.REPEATED_AFTER_SECONDS:
            self.said = now
            say(f"... {text}, {now - self.began:.0f} s")

    def clear(self) -> None:
        if sys.stdout.isatty():
            print("\r\x1b[2K", end="", flush=True)


def heading(text: str) -> None:
    print(f"\n{text}", flush=True)


def say(text: str) -> None:
    over = "\r\x1b[2K" if sys.stdout.isatty() else ""  # where a status may stand
    print(f"{over}   {text}", flush=True)


def labelled(label: str, text: str) -> None:
    """A text after its label, wrapped below itself."""
    indent = " " * (3 + LABEL)
    lines = textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    body = "\n".join(lines).removeprefix(indent).replace(HELD_TOGETHER, " ")
    print(f"   {label:<{LABEL}}{body}", flush=True)


def shortened(text: str, width: int = WIDTH - 3 - LABEL) -> str:
    return textwrap.shorten(text, width, placeholder=" ...", break_on_hyphens=False)


def json_text(fields: Mapping[str, object]) -> str:
    """JSON that wraps at its commas only."""
    pairs = (f"{json.dumps(name)}:{json.dumps(value, separators=(',', ':'))}" for name, value in fields.items())
    return "{" + ", ".join(pair.replace(" ", HELD_TOGETHER) for pair in pairs) + "}"


def fail(error: StackError) -> None:
    print(f"\nerror: {error}", file=sys.stderr, flush=True)


def relative(path: Path) -> str:
    """`path` as a person in the repository's root would write it."""
    try:
        return str(path.relative_to(ROOT))
    except ValueError:
        return str(path)
