"""Keeps the score."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stack.console import StackError, fail


class Claims:
    """Prints each claim as it holds or fails, and counts."""

    def __init__(self) -> None:
        self.passed = self.failed = 0
        self.about = ""

    def begin(self, about: str) -> None:
        """What the claims that follow are about."""
        self.about = about
        print(f"\n{about}", flush=True)

    def hold(self, claim: str, holds: object, seen: Any = None) -> None:
        """`seen` is shown when the claim fails."""
        if holds:
            self.passed += 1
            print(f"   ok      {claim}", flush=True)
        else:
            self.failed += 1
            print(f"   FAILED  {claim}", flush=True)
            if seen is not None:
                print(f"           seen: {str(seen)[:1500]}", flush=True)

    def equal(self, claim: str, seen: Any, expected: Any) -> None:
        self.hold(claim, seen == expected, f"{seen!r}, expected {expected!r}")

    @contextmanager
    def whole_run(self) -> Iterator[None]:
        """All of a run: that it cannot go on is a claim that failed. Prints the score and ends the process."""
        try:
            yield
        except StackError as error:
            fail(error)
            self.hold("the run came to its end", False)
        except KeyboardInterrupt:
            sys.exit(130)
        print(f"\n{self.passed} passed, {self.failed} failed", flush=True)
        sys.exit(1 if self.failed else 0)
