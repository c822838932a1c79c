"""What runs: Envoy with the plugin, a vault that is reached directly and through a front, a database in which it
makes users, an authorization server, and MCP servers that each want another kind of credential."""

import base64
import http.client
import json
import secrets
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from stack import gateway, tools
from stack.console import ROOT, StackError
from stack.preparing import PLUGIN
from stack.running import PEOPLE
from stack.supervisor import POLL_SECONDS, Child, Supervisor

from database import Valkey
from upstreams import SERVICE_ACCOUNT_UID, Front, Kubernetes, McpServer
from vault import NAME, OpenBao

# What is meant to come comes sooner; on a busy machine nothing comes quickly.
WITHIN_SECONDS = 120.0
READY_SECONDS = 300
KEY_FILE = ROOT / "scripts" / "stack" / "demo-jwks.json"
AUDIENCE = "http://127.0.0.1:10000/mcp"
TTL_SECONDS = 3
LONG_TTL_SECONDS = 600
# A quarter of it is left when it is renewed, and machines stop for as long as ten seconds: what ends in
# the vault ends in the database.
LEASE_SECONDS = 45
BRIEF_SECONDS = 4
LOGIN_SECONDS = LEASE_SECONDS
# How long the gateway waits for the vault and for tokens: longer than a machine stops.
CALL_SECONDS = 20
LINK = "https://accounts.example/link"
POLICIES = {
    "toolgate": """
path "secret/data/mcp/*" { capabilities = ["read"] }
path "secret/data/users/*" { capabilities = ["read"] }
path "database/creds/*" { capabilities = ["read"] }
path "first/*" { capabilities = ["read"] }
""",
    "tenant": 'path "secret/data/*" { capabilities = ["read"] }',
    # The vault's own rule: each person reads what is that person's.
    "person": """
path "secret/data/own/{{identity.entity.aliases.%s.name}}" { capabilities = ["read"] }
""",
}
PERMIT_ALL = '@id("all") permit (principal, action, resource);'


@dataclass
class Answer:
    """An answer as it came over HTTP."""

    status: int
    headers: dict[str, str]
    text: str
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.status == 200 and '"result"' in self.text

    def reason(self) -> str | None:
        try:
            return json.loads(self.text)["error"]["data"]["reason"]
        except (ValueError, KeyError, TypeError):
            return None


@dataclass
class World:
    """Started by `start`, stopped by its supervisor; everything that leaves the gateway is in `home`."""

    supervisor: Supervisor
    home: Path
    known: dict[str, str] = field(default_factory=dict)
    """The secrets, by what they are."""
    stored: dict[str, str] = field(default_factory=dict)
    """What is in the vault, by its path: one that begins anew has it again."""
    records_read: int = 0

    def __post_init__(self) -> None:
        (self.port, self.admin_port, self.idp_port, vault, cluster, database) = gateway.free_ports(6)
        self.openbao = OpenBao(self.supervisor, self.home, vault, cluster)
        self.database = Valkey(self.supervisor, self.home, database)
        self.mcp = McpServer(self.home / "servers.seen")
        self.front = Front(self.openbao, self.home / "vault.seen")
        self.access_log = self.home / "access.log"
        self.client_log = self.home / "clients.log"
        self.admin_log = self.home / "admin.log"
        self.known["database password"] = self.database.password
        self.secret_id = self.plant("AppRole secret_id")
        self.client_secret = self.plant("OAuth client secret")
        self.issued = self.plant("token that somebody keeps alive")
        self.kubernetes = Kubernetes(service_account())
        self.known["service account's token"] = self.kubernetes.token
        self.tokens: dict[str, str] = {}

    def plant(self, name: str) -> str:
        """Makes a secret that nothing but the requests that it is for may show."""
        self.known[name] = f"planted-{secrets.token_urlsafe(24)}"
        return self.known[name]

    # --- starting ------------------------------------------------------------------------------------

    def start(self) -> None:
        self.mcp.start()
        self.front.start()
        self.kubernetes.start()
        self.sign_in("alice", "bob", "carol", "dave", "erin", "frank")
        node, idp = str(tools.node()), tools.PEERS / "idp"
        tools.install_packages(idp)
        variables = {"PORT": str(self.idp_port), "SUBJECT_KEYS": str(KEY_FILE), "INTROSPECTION_SECRET": self.client_secret}
        provider = self.supervisor.start("provider", [node, "server.mjs"], variables, cwd=idp)
        self.trust_database()
        self.database.start()
        self.begin_vault()
        self.supervisor.wait_until_answers(provider, f"{self.issuer}/jwks", status=200)
        self.trust_provider()
        self.start_envoy()

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.idp_port}"

    def sign_in(self, *names: str) -> None:
        command = [str(tools.python()), str(PEOPLE), *names]
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
        self.tokens |= json.loads(answer.stdout)
        self.known |= {f"{name}'s token": token for name, token in self.tokens.items()}

    # --- the vault -----------------------------------------------------------------------------------

    def begin_vault(self) -> None:
        """Starts a vault without anything in it, and puts everything there."""
        self.openbao.begin()
        self.vault = self.openbao.client
        number = sum(name.startswith("root token") for name in self.known)
        self.known[f"root token {number}"] = self.openbao.root_token
        self.known[f"unseal key {number}"] = self.openbao.unseal_key
        self.fill_vault()

    def fill_vault(self) -> None:
        vault = self.vault
        vault.post("sys/namespaces/tenant", {})
        for mount, version in (("secret", "2"), ("first", "1"), ("tenant/secret", "2")):
            namespace, _, name = mount.rpartition("/")
            vault.post(f"{namespace}/sys/mounts/{name}".lstrip("/"), {"type": "kv", "options": {"version": version}})
        vault.wait_for_mount("secret/")
        vault.wait_for_mount("tenant/secret/")
        for path, value in self.stored.items():
            self.put(path, value)
        if not self.stored:
            for name in ("direct", "lasting", "issued", "pod"):
                self.store(f"mcp/{name}", name)
            for name in ("alice", "erin"):
                self.store(f"users/{name}", f"{name} at front")
            for name in ("alice", "bob"):
                self.store(f"own/{name}", f"{name} at own")
            self.store("app", "first", "first")
            self.store("app", "tenant", "tenant/secret/data")
        self.database.lend_by(self.openbao, {"app": LEASE_SECONDS, "brief": BRIEF_SECONDS})
        self.let_the_gateway_in("")
        self.let_the_gateway_in("tenant/")
        self.vault.post("auth/token/create", {"id": self.issued, "policies": ["toolgate"], "period": "1h"})
        self.let_a_service_account_in()
        self.let_callers_in()

    def let_the_gateway_in(self, namespace: str) -> None:
        vault = self.vault
        vault.post(f"{namespace}sys/auth/approle", {"type": "approle"})
        vault.post(f"{namespace}sys/policies/acl/toolgate", {"policy": POLICIES["tenant" if namespace else "toolgate"]})
        login = {"token_policies": ["toolgate"], "token_ttl": f"{LOGIN_SECONDS}s", "token_max_ttl": "1h"}
        vault.post(f"{namespace}auth/approle/role/toolgate", login)
        vault.post(f"{namespace}auth/approle/role/toolgate/role-id", {"role_id": "toolgate"})
        vault.post(f"{namespace}auth/approle/role/toolgate/custom-secret-id", {"secret_id": self.secret_id})

    def let_a_service_account_in(self) -> None:
        vault = self.vault
        vault.post("sys/auth/kubernetes", {"type": "kubernetes"})
        # It wants an authority, though nothing here is reached by TLS.
        authority = self.openbao.certificate.read_text()
        cluster = {"kubernetes_host": f"http://127.0.0.1:{self.kubernetes.port}", "kubernetes_ca_cert": authority}
        vault.post("auth/kubernetes/config", cluster | {"disable_local_ca_jwt": True})
        bound = {"bound_service_account_names": "toolgate", "bound_service_account_namespaces": "mcp", "audience": "openbao"}
        vault.post("auth/kubernetes/role/toolgate", bound | {"token_policies": ["toolgate"], "token_ttl": f"{LOGIN_SECONDS}s"})

    def let_callers_in(self) -> None:
        vault = self.vault
        vault.post("sys/auth/jwt", {"type": "jwt"})
        accessor = vault.get("sys/auth")["data"]["jwt/"]["accessor"]
        vault.post("sys/policies/acl/person", {"policy": POLICIES["person"] % accessor})
        key = jwt.PyJWK(json.loads(KEY_FILE.read_text())["keys"][0]).key
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        vault.post("auth/jwt/config", {"jwt_validation_pubkeys": [pem]})
        role = {"role_type": "jwt", "user_claim": "sub", "bound_audiences": [AUDIENCE], "token_policies": ["person"]}
        vault.post("auth/jwt/role/person", role)

    def store(self, path: str, name: str, engine: str = "secret/data") -> str:
        """Stores a new secret, which its server accepts from then on, besides those before it."""
        value = self.plant(f"key {len(self.known)} of {name}")
        server = name.rsplit(" ", 1)[-1]
        before = self.mcp.accepts.get(server, lambda _: False)
        self.mcp.accepts[server] = lambda headers: before(headers) or value in headers.get("x-api-key", "")
        self.put(f"{engine}/{path}", value)
        self.stored[f"{engine}/{path}"] = value
        return value

    def put(self, path: str, value: str) -> None:
        kept = {"key": value}
        self.vault.post(path, {"data": kept} if "/data/" in path else kept)

    # --- what servers accept -------------------------------------------------------------------------

    def trust_database(self) -> None:
        """Lets two servers take whom the database knows: one asks it every time, one keeps open what it opened."""
        opened: set[str] = set()

        def opens(headers: dict[str, str]) -> bool:
            user, password = basic(headers)
            if good := self.database.opens(user, password):
                self.known[f"password of {user}"] = password
            return good

        def opened_once(headers: dict[str, str]) -> bool:
            sent = headers.get("authorization", "")
            if sent not in opened and opens(headers):
                opened.add(sent)
            return sent in opened

        self.mcp.accepts["brief"], self.mcp.accepts["lent"] = opens, opened_once

    def trust_provider(self) -> None:
        """Lets three servers verify the provider's tokens, each that they are for it, as servers do."""
        keys = jwt.PyJWKClient(f"{self.issuer}/jwks")

        def good(headers: dict[str, str], name: str) -> bool:
            scheme, _, token = headers.get("authorization", "").partition(" ")
            try:
                key = keys.get_signing_key_from_jwt(token).key
                claims = jwt.decode(token, key, ["ES256"], audience=self.resource(name), issuer=self.issuer)
            except jwt.PyJWTError:
                return False
            self.known[f"access token {claims['jti']} of {name}"] = token
            return scheme == "Bearer"

        for name in ("client", "exchanged", "bearer"):
            self.mcp.accepts[name] = lambda headers, name=name: good(headers, name)

    def resource(self, name: str) -> str:
        return f"https://{name}.example/mcp"

    # --- Envoy ---------------------------------------------------------------------------------------

    def start_envoy(self) -> None:
        (self.home / "envoy.json").write_text(json.dumps(self.envoy_config(), indent=1))
        self.envoy = self.run_envoy("envoy", self.home / "envoy.json", self.access_log)
        self.supervisor.wait_until_answers(self.envoy, f"http://127.0.0.1:{self.admin_port}/ready", READY_SECONDS, 200)

    def run_envoy(self, name: str, config: Path, access_log: Path) -> Child:
        command = [str(tools.envoy()), "-c", str(config), "--disable-hot-restart", "--concurrency", "1"]
        command += ["--file-flush-interval-msec", "100", "--component-log-level", "wasm:debug"]
        variables = {
            "TOOLGATE_ROLE_ID": "toolgate",
            "TOOLGATE_SECRET_ID": self.secret_id,
            "TOOLGATE_CLIENT_SECRET": self.client_secret,
            "TOOLGATE_ISSUED_TOKEN": self.issued,
            "TOOLGATE_SERVICE_ACCOUNT": self.kubernetes.token,
        }
        return self.supervisor.start(name, command, variables, cwd=ROOT, stdout=access_log)

    def envoy_config(self) -> Any:
        ports = {"mcp": self.mcp.port, "front": self.front.port, "vault": self.openbao.port, "provider": self.idp_port}
        settings = gateway.Settings(PLUGIN, ports, PERMIT_ALL, more=self.plugin_config())
        config = gateway.configured(gateway.yaml(gateway.ENVOY_CONFIG.read_text()), settings, self.port, self.admin_port)
        for cluster in config["static_resources"]["clusters"]:
            cluster["connect_timeout"] = f"{CALL_SECONDS}s"
            if cluster["name"] == "vault":
                cluster["transport_socket"] = self.verified_tls()
        manager = gateway.only(gateway.only(config["static_resources"]["listeners"])["filter_chains"])["filters"][0]
        wasm = next(each for each in manager["typed_config"]["http_filters"] if each["name"] == "toolgate")
        names = ["ROLE_ID", "SECRET_ID", "CLIENT_SECRET", "ISSUED_TOKEN", "SERVICE_ACCOUNT"]
        variables = {"host_env_keys": [f"TOOLGATE_{name}" for name in names]}
        wasm["typed_config"]["config"]["vm_config"]["environment_variables"] = variables
        return config

    def verified_tls(self) -> Any:
        exact = {"san_type": "DNS", "matcher": {"exact": NAME}}
        validation = {"trusted_ca": {"filename": str(self.openbao.certificate)}, "match_typed_subject_alt_names": [exact]}
        return {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": NAME,
                "common_tls_context": {"validation_context": validation},
            },
        }

    def plugin_config(self) -> dict[str, Any]:
        def variable(name: str) -> dict[str, str]:
            return {"environment": f"TOOLGATE_{name}"}

        app_role = {"role_id": variable("ROLE_ID"), "secret_id": variable("SECRET_ID")}
        endpoint = {"endpoint": "provider", "scope": "mcp:tools"}
        key, bearer = {"header": "x-api-key"}, {"header": "Authorization", "format": "Bearer {}"}
        attached = {
            "direct": {"name": "direct", **key},
            "lasting": {"name": "lasting", **key},
            "issued": {"name": "issued", **key},
            "pod": {"name": "pod", **key},
            "front": {"name": "per-user", **key},
            "own": {"name": "own", **key},
            "first": {"name": "first", **key},
            "tenant": {"name": "tenant", **key},
            "lent": {"name": "lent", "basic": "{username}:{}"},
            "brief": {"name": "brief", "basic": "{username}:{}"},
            "client": {"name": "client", **bearer},
            "exchanged": {"name": "exchanged", **bearer},
            "bearer": {"name": "bearer", **bearer},
        }

        def vault(cluster: str, login: dict[str, Any], **more: str) -> dict[str, Any]:
            return {"cluster": cluster, "authority": NAME, "login": login, "timeout_ms": CALL_SECONDS * 1000} | more

        def kv(vault: str, path: str, ttl: int = TTL_SECONDS, **more: Any) -> dict[str, Any]:
            stored = {"vault": vault, "path": path, "field": "key", "ttl_seconds": ttl}
            return {"kv": stored | ({"link_url": LINK} if "{sub}" in path else {}) | more}

        def lent(role: str) -> dict[str, Any]:
            return {"dynamic": {"vault": "direct", "path": f"database/creds/{role}", "field": "password", "fields": ["username"]}}

        def token(grant: str, name: str) -> dict[str, Any]:
            linked = {} if grant == "client_credentials" else {"link_url": LINK}
            return {grant: endpoint | {"resource": self.resource(name)} | linked}

        return {
            "servers": {
                name: {"cluster": "mcp", "authority": f"{name}.example", "path": f"/{name}", "credential": credential}
                for name, credential in attached.items()
            },
            "vaults": {
                "direct": vault("vault", {"app_role": app_role}),
                "front": vault("front", {"app_role": app_role}),
                "issued": vault("front", {"token": variable("ISSUED_TOKEN")}),
                "cluster": vault("front", {"kubernetes": {"role": "toolgate", "token": variable("SERVICE_ACCOUNT")}}),
                "callers": vault("front", {"jwt": {"role": "person"}}),
                "tenant": vault("vault", {"app_role": app_role}, namespace="tenant"),
            },
            "token_endpoints": {
                "provider": {
                    "cluster": "provider",
                    "authority": f"127.0.0.1:{self.idp_port}",
                    "path": "/token",
                    "client_id": "toolgate",
                    "client_secret": variable("CLIENT_SECRET"),
                    "timeout_ms": CALL_SECONDS * 1000,
                }
            },
            "credentials": {
                "direct": kv("direct", "mcp/direct"),
                "lasting": kv("direct", "mcp/lasting", LONG_TTL_SECONDS),
                "issued": kv("issued", "mcp/issued", LONG_TTL_SECONDS),
                "pod": kv("cluster", "mcp/pod", LONG_TTL_SECONDS),
                "per-user": kv("front", "users/{sub}"),
                "own": kv("callers", "own/{sub}"),
                "first": kv("direct", "app", LONG_TTL_SECONDS, mount="first", version=1),
                "tenant": kv("tenant", "app", LONG_TTL_SECONDS),
                "lent": lent("app"),
                "brief": lent("brief"),
                "client": token("client_credentials", "client"),
                "exchanged": token("token_exchange", "exchanged"),
                "bearer": token("jwt_bearer", "bearer"),
            },
        }

    # --- what clients do, and what is seen -----------------------------------------------------------

    def call(self, server: str, person: str = "alice", tool: str = "do") -> Answer:
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": {}}}
        headers = {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "authorization": f"Bearer {self.tokens[person]}",
        }
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WITHIN_SECONDS)
        try:
            connection.request("POST", f"/mcp/{server}", json.dumps(message), headers)
            response = connection.getresponse()
            text = response.read().decode(errors="replace")
        finally:
            connection.close()
        answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, text, time.monotonic() - began)
        with self.client_log.open("a") as log:
            log.write(f"{server} {person}: {answer.status} {json.dumps(answer.headers)}\n{text}\n")
        return answer

    def records(self) -> list[dict[str, Any]]:
        """The records that came since the last time, once every exchange has its own."""
        deadline = time.monotonic() + WITHIN_SECONDS
        while True:
            stats = dict(line.split(": ", 1) for line in self.admin("/stats?filter=http.mcp.downstream_rq").splitlines())
            began, active = int(stats["http.mcp.downstream_rq_total"]), int(stats["http.mcp.downstream_rq_active"])
            lines = self.access_log.read_text().splitlines()
            if (active == 0 and len(lines) >= began) or time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)
        new = lines[self.records_read :]
        self.records_read = len(lines)
        return [json.loads(json.loads(line)["record"]) for line in new]

    def admin(self, path: str) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=WITHIN_SECONDS)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode(errors="replace")
        finally:
            connection.close()

    def keep_admin(self) -> None:
        """Keeps what Envoy's admin interface shows."""
        with self.admin_log.open("a") as log:
            for path in ("/config_dump?include_eds", "/stats", "/clusters", "/listeners", "/server_info", "/certs", "/runtime"):
                log.write(self.admin(path))

    def approle_tokens(self) -> dict[str, dict[str, Any]]:
        """The gateway's tokens at the vault, by accessor."""
        tokens = {}
        for accessor in self.vault.keys("auth/token/accessors"):
            try:
                data = self.vault.post("auth/token/lookup-accessor", {"accessor": accessor})["data"]
            except StackError:
                continue  # It has ended meanwhile.
            if data["path"] == "auth/approle/login":
                tokens[accessor] = data
        return tokens


def service_account() -> str:
    """A token as Kubernetes gives it to a pod."""
    now = int(time.time())
    account = {"namespace": "mcp", "serviceaccount": {"name": "toolgate", "uid": SERVICE_ACCOUNT_UID}}
    times = {"iat": now, "nbf": now - 60, "exp": now + 86400}
    claims = {"sub": "system:serviceaccount:mcp:toolgate", "aud": ["openbao"], "kubernetes.io": account} | times
    return jwt.encode(claims, ec.generate_private_key(ec.SECP256R1()), "ES256")


def basic(headers: dict[str, str]) -> tuple[str, str]:
    """User and password of a request."""
    scheme, _, encoded = headers.get("authorization", "").partition(" ")
    user, _, password = base64.b64decode(encoded).decode().partition(":") if scheme == "Basic" else ("", "", "")
    return user, password


def until(condition: Callable[[], Any]) -> Any:
    """What it comes to be, once that is true; its last value where that does not happen in time."""
    deadline = time.monotonic() + WITHIN_SECONDS
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return value


class Load:
    """Calls servers, one call after the other, for as long as its block lasts."""

    def __init__(self, world: World, *names: str) -> None:
        self.world, self.names = world, names
        self.answers: list[tuple[str, Answer]] = []
        self.failed: list[str] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(name,), daemon=True) for name in names]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, name: str) -> None:
        while not self._over.is_set():
            try:
                answer = self.world.call(name)
            except OSError as error:
                self.failed.append(f"{name}: {error}")
                continue
            self.answers.append((name, answer))
            if not answer.ok:
                self.failed.append(f"{name}: {answer.status} {answer.text}")
            self._over.wait(POLL_SECONDS)

    def longest(self) -> float:
        return max((answer.seconds for _, answer in self.answers), default=0.0)
