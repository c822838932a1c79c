"""envoy/envoy.yaml with other ports, servers and policies, for tests that bring servers of their own."""

import json
import random
import socket
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stack import tools
from stack.console import ROOT, StackError
from stack.supervisor import Child, Supervisor

ENVOY_CONFIG = ROOT / "envoy" / "envoy.yaml"
READY_SECONDS = 120


@dataclass(frozen=True)
class Gateway:
    """An Envoy with the plugin, and where it listens."""

    child: Child
    port: int
    admin_port: int

    def url(self, server: str) -> str:
        return f"http://127.0.0.1:{self.port}/mcp/{server}"

    def wait(self, supervisor: Supervisor) -> None:
        """Waits until it serves. It compiles the plugin first, which takes a while on a busy machine."""
        ready = f"http://127.0.0.1:{self.admin_port}/ready"
        supervisor.wait_until_answers(self.child, ready, within=READY_SECONDS, status=200)


# Below those that systems give to outgoing connections, one of which could take a port before its server does.
PORTS_FOR_TESTS = range(15000, 30000)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    found: list[int] = []
    for port in random.sample(PORTS_FOR_TESTS, len(PORTS_FOR_TESTS)):
        if len(found) == count:
            return found
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
    raise OSError(f"there are no {count} free ports")


@dataclass(frozen=True)
class Settings:
    """What a test's gateway has in place of what envoy/envoy.yaml has."""

    plugin: Path
    servers: dict[str, int]
    """The port of each server."""
    policy: str
    """In Cedar."""
    identity: Any = None
    """The identity of envoy/envoy.yaml where None."""
    forward_headers: tuple[str, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the plugin's configuration."""
    workers: int = 1
    name: str = "envoy"
    port: int = 0
    """Where it listens; the system chooses where 0."""
    cluster: Any = None
    """What every server's cluster is like; as in envoy/envoy.yaml where None."""
    dynamic: bool = False
    """Whether listeners and clusters are in files of their own, which `reconfigure` replaces."""


def start(supervisor: Supervisor, home: Path, settings: Settings) -> Gateway:
    """Starts Envoy with the plugin in front of servers; see `Gateway.wait`."""
    port, admin_port = free_ports(2)
    port = settings.port or port
    config = home / "envoy.json"
    made = configured(yaml(ENVOY_CONFIG.read_text()), settings, port, admin_port)
    if settings.dynamic:
        write_resources(home, made, DYNAMIC)
        made["static_resources"] = {}
        made["node"] = {"id": settings.name, "cluster": "test"}
        made["dynamic_resources"] = {
            f"{kind}_config": {"path_config_source": {"path": str(home / f"{kind}.json")}} for kind in DYNAMIC
        }
    config.write_text(json.dumps(made, indent=2))
    command = [str(tools.envoy()), "-c", str(config), "--disable-hot-restart", "--file-flush-interval-msec", "100"]
    command += ["--component-log-level", "main:warning", "--concurrency", str(settings.workers)]
    child = supervisor.start(settings.name, command, cwd=ROOT, stdout=home / "access.log")
    return Gateway(child, port, admin_port)


DYNAMIC = {
    "cds": ("clusters", "type.googleapis.com/envoy.config.cluster.v3.Cluster"),
    "lds": ("listeners", "type.googleapis.com/envoy.config.listener.v3.Listener"),
}


def reconfigure(home: Path, settings: Settings, envoy: Gateway, *kinds: str) -> None:
    """Replaces files of a dynamic Envoy, `cds` or `lds`, in this order."""
    made = configured(yaml(ENVOY_CONFIG.read_text()), settings, envoy.port, envoy.admin_port)
    write_resources(home, made, kinds)


def write_resources(home: Path, made: Any, kinds: Iterable[str]) -> None:
    for kind in kinds:
        member, of_type = DYNAMIC[kind]
        resources = [{"@type": of_type} | each for each in made["static_resources"][member]]
        # Moved into its place, as Envoy wants it: it never reads half a file.
        new = home / f"{kind}.new"
        new.write_text(json.dumps({"resources": resources}, indent=2))
        new.replace(home / f"{kind}.json")


def yaml(text: str) -> Any:
    """What YAML holds. Python's standard library has none; an npm package of the peers does."""
    command = [str(tools.node()), str(tools.PEERS / "yaml.mjs")]
    answer = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise StackError(f"not YAML: {answer.stderr.strip()[-500:]}")
    return json.loads(answer.stdout)


def configured(config: Any, settings: Settings, port: int, admin_port: int) -> Any:
    resources = config["static_resources"]
    config["admin"]["address"]["socket_address"]["port_value"] = admin_port
    listener = only(resources["listeners"])
    listener["address"]["socket_address"]["port_value"] = port
    manager = only(only(listener["filter_chains"])["filters"])["typed_config"]
    wasm = next(each for each in manager["http_filters"] if each["name"] == "toolgate")["typed_config"]["config"]
    del wasm["vm_config"]["environment_variables"]
    wasm["vm_config"]["code"]["local"]["filename"] = str(settings.plugin)
    plugin = wasm["configuration"]["value"]
    plugin["servers"] = {
        name: {"cluster": name, "authority": f"127.0.0.1:{at}", "forward_headers": list(settings.forward_headers)}
        for name, at in settings.servers.items()
    }
    plugin["identity"] = settings.identity or plugin["identity"]
    plugin["origins"] = [f"http://127.0.0.1:{port}"]
    plugin["policy"] = {"name": "test", "policies": {"test.cedar": settings.policy}}
    for unused in ("vaults", "credentials"):
        plugin.pop(unused, None)
    plugin.update(settings.more)
    sample = settings.cluster or resources["clusters"][0]
    resources["clusters"] = [cluster(sample, name, at) for name, at in settings.servers.items()]
    return config


def cluster(sample: Any, name: str, port: int) -> Any:
    made = json.loads(json.dumps(sample))
    made["name"] = made["load_assignment"]["cluster_name"] = name
    endpoints = only(made["load_assignment"]["endpoints"])
    # A server of a test has one address, whatever the sample has.
    endpoints["lb_endpoints"] = endpoints["lb_endpoints"][:1]
    only(endpoints["lb_endpoints"])["endpoint"]["address"]["socket_address"]["port_value"] = port
    return made


def only(items: list[Any]) -> Any:
    if len(items) != 1:
        raise StackError("envoy/envoy.yaml is not built as this test knows it")
    return items[0]
