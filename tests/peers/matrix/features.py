"""What a pair of client and server has to do, and how it shows that it has done it.

The same for every pair. A client performs ACTIONS; each feature looks at what it printed and at what
the server wrote into its request log, and says what is wrong, if anything is. Everything the servers
call "secret" is there when a client asks directly, and does not exist for it through the gateway.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

STEPS = 4
STEP_SECONDS = 0.12
"""How many notifications the tool `work` sends, and how long it works before each of them."""
GREETING = "grüß dich 😀"
REVISIONS = {"legacy": "2025-11-25", "modern": "2026-07-28"}

TOOLS = ["echo", "add", "secret", "work", "ask", "wait", "was_cancelled"]
PROMPTS = ["greeting", "secret"]
RESOURCES = ["peer://about", "peer://secret"]
TEMPLATES = ["peer://items/{id}", "peer://secrets/{id}"]


def actions(run: str) -> list[list[str]]:
    """What the client is told to do; `run` is a name for this run that no other has."""
    key = json.dumps({"key": run})
    return [
        ["tools"],
        ["prompts"],
        ["resources"],
        ["templates"],
        ["call", "echo", json.dumps({"text": GREETING})],
        ["call", "add", '{"a":2,"b":3}'],
        ["prompt", "greeting", '{"name":"Ada"}'],
        ["read", "peer://about"],
        ["read", "peer://items/7"],
        ["call", "secret", "{}"],
        ["prompt", "secret", "{}"],
        ["read", "peer://secret"],
        ["read", "peer://secrets/7"],
        ["progress", "work", "{}"],
        ["call", "ask", "{}"],
        ["cancel", "wait", key],
        ["call", "was_cancelled", key],
    ]


@dataclass
class Seen:
    """What came of one run of a client."""

    era: str
    through_gateway: bool
    lines: dict[tuple[str, str | None], dict[str, Any]] = field(default_factory=dict)
    """What the client printed, by action and target."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    """The requests of this run that the server answered."""

    def result(self, action: str, target: str | None = None) -> Any:
        """The result of an action; raises where it has none."""
        line = self.lines.get((action, target))
        if line is None:
            raise Unmet(f"no answer to {named(action, target)}; {self._connection()}")
        if not line["ok"]:
            raise Unmet(f"{named(action, target)}: {line['error']['message']}")
        return line["result"]

    def error(self, action: str, target: str) -> str:
        """What an action failed with; raises where it did not fail."""
        line = self.lines.get((action, target))
        if line is None:
            raise Unmet(f"no answer to {named(action, target)}")
        if line["ok"] and not line["result"].get("isError"):
            raise Unmet(f"{named(action, target)} was answered: {line['result']}")
        return str(line.get("error", {}).get("message", line.get("result")))

    def _connection(self) -> str:
        line = self.lines.get(("connect", None))
        return "it printed nothing" if line is None else str(line.get("error", {}).get("message", "connected"))


class Unmet(Exception):
    """A feature that is not there; the message says what was seen."""


def named(action: str, target: str | None) -> str:
    return f"{action} {target}" if target else action


def same(what: str, seen: Any, expected: Any) -> None:
    if seen != expected:
        raise Unmet(f"{what}: {seen!r}, expected {expected!r}")


def text(result: Any) -> str:
    """The text of a call, a prompt or a resource, whichever it is."""
    parts = [
        *result.get("content", []),
        *result.get("contents", []),
        *(message["content"] for message in result.get("messages", [])),
    ]
    return " ".join(part.get("text", "") for part in parts)


# --- the features ----------------------------------------------------------------------------------


def initialise(seen: Seen) -> None:
    """connects, in the revision it was told to speak"""
    spoken = seen.result("connect")["protocol"]
    if spoken is not None:  # not every client tells
        same("the client's revision", spoken, REVISIONS[seen.era])
    versions = {one["version"] for one in seen.requests if one["version"] and one["status"] < 300}
    if not versions:
        raise Unmet("the server answered nothing but errors")
    same("what the server answered in", versions, {REVISIONS[seen.era]})


def lists(seen: Seen) -> None:
    """lists tools, prompts, resources and templates: through the gateway all that are permitted, and no other"""
    for action, offered in (("tools", TOOLS), ("prompts", PROMPTS), ("resources", RESOURCES), ("templates", TEMPLATES)):
        expected = [name for name in offered if not (seen.through_gateway and "secret" in name)]
        same(action, sorted(seen.result(action)), sorted(expected))


def calls(seen: Seen) -> None:
    """calls tools, gets a prompt, reads a resource and one of a template"""
    for action, target, expected in (
        ("call", "echo", GREETING),
        ("call", "add", "5"),
        ("prompt", "greeting", "Greet Ada."),
        ("read", "peer://about", "A peer."),
        ("read", "peer://items/7", "Item 7."),
    ):
        same(named(action, target), text(seen.result(action, target)), expected)


def refusals(seen: Seen) -> None:
    """what is not permitted does not exist: directly it is answered, through the gateway it is an error"""
    asked = (("call", "secret"), ("prompt", "secret"), ("read", "peer://secret"), ("read", "peer://secrets/7"))
    for action, target in asked:
        if seen.through_gateway:
            seen.error(action, target)
        else:
            same(named(action, target), text(seen.result(action, target)), "a secret")
    if seen.through_gateway and "a secret" in json.dumps(list(seen.lines.values())):
        raise Unmet("the client got a secret")


def streams(seen: Seen) -> None:
    """each notification of a long call arrives when it is sent, in its order, and before the result"""
    result = seen.result("progress", "work")
    same("the result", text(result), "worked")
    notes = result.get("progress", [])
    same("progress", [note["progress"] for note in notes], list(range(1, STEPS + 1)))
    if not all(note["after"] <= result["after"] for note in notes):
        raise Unmet(f"a notification after the result: {result}")
    # Had they been held back, they would have come together.
    if notes[-1]["after"] - notes[0]["after"] < (STEPS - 1) * STEP_SECONDS / 2:
        raise Unmet(f"notifications that were sent one by one came together: {notes}")


def elicits(seen: Seen) -> None:
    """the server asks the user for a name in the midst of a call, and gets it"""
    same("the result", text(seen.result("call", "ask")), "hello Ada")


def cancels(seen: Seen) -> None:
    """the client cancels a call that is under way, and the server ends it"""
    same("the client's call", seen.result("cancel", "wait"), {"cancelled": True})
    same("the server's", text(seen.result("call", "was_cancelled")), "cancelled")


def ends(seen: Seen) -> None:
    """the client ends its session; in an era without sessions there is none"""
    seen.result("connect")
    if seen.era == "modern":
        same("requests of a session", [one for one in seen.requests if one["session"] or one["method"] == "DELETE"], [])
        return
    same("ends of a session", [one["status"] // 100 for one in seen.requests if one["method"] == "DELETE"], [2])


FEATURES: dict[str, Callable[[Seen], None]] = {
    "initialise": initialise,
    "list": lists,
    "call": calls,
    "refuse": refusals,
    "stream": streams,
    "elicit": elicits,
    "cancel": cancels,
    "end": ends,
}


def problems(seen: Seen) -> dict[str, str | None]:
    """What is wrong with each feature; None where nothing is."""
    found: dict[str, str | None] = {}
    for name, holds in FEATURES.items():
        try:
            holds(seen)
            found[name] = None
        except Unmet as unmet:
            found[name] = str(unmet)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            found[name] = f"an answer of another shape ({error!r})"
    return found
