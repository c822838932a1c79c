"""The other ways in, each through a listener of a second Envoy: a provider that clients cannot log in at by
themselves, opaque tokens, tokens bound to a key or to a certificate, and a caller that Envoy itself has
authenticated. `run.py` starts the providers and calls these.
"""

import base64
import copy
import hashlib
import http.client
import ipaddress
import json
import ssl
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from jwt.algorithms import ECAlgorithm

PROVIDER = "http://127.0.0.1:3010"
QUIRKY = "http://127.0.0.1:3011"
OPAQUE = "http://127.0.0.1:3012"
INTROSPECTION_SECRET = "introspection-secret-of-the-tests"
PROXIED, INTROSPECTED, CERTIFICATES, AUTHENTICATED = 10001, 10002, 10003, 10004
ADMIN = 9902
# On a busy machine nothing comes quickly.
ANSWER_SECONDS = 60.0
PORTS = {
    PROXIED: "the gateway in front of a quirky provider",
    INTROSPECTED: "the gateway for opaque tokens",
    CERTIFICATES: "the gateway with TLS",
    AUTHENTICATED: "the gateway behind jwt_authn",
    ADMIN: "the second Envoy's admin interface",
    3011: "the quirky provider",
    3012: "the provider of opaque tokens",
}
ALGORITHMS = ["RS256", "ES256", "EdDSA"]
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "ways", "version": "1"}},
}
# What Envoy's own filters found out becomes a value that no client can write.
JWT_AUTHN = [
    {
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": {
                "idp": {
                    "issuer": PROVIDER,
                    "audiences": [f"http://127.0.0.1:{AUTHENTICATED}/mcp/everything"],
                    "remote_jwks": {"http_uri": {"uri": f"{PROVIDER}/jwks", "cluster": "idp", "timeout": "20s"}},
                    "payload_in_metadata": "payload",
                }
            },
            "rules": [
                {
                    "match": {"prefix": "/mcp"},
                    "requires": {"requires_any": {"requirements": [{"provider_name": "idp"}, {"allow_missing": {}}]}},
                }
            ],
        },
    },
    {
        "name": "envoy.filters.http.set_filter_state",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config",
            "on_request_headers": [
                {
                    "object_key": "toolgate.caller",
                    "factory_key": "envoy.string",
                    "format_string": {
                        "text_format_source": {
                            "inline_string": "%DYNAMIC_METADATA(envoy.filters.http.jwt_authn:payload)%"
                        },
                        "omit_empty_values": True,
                    },
                    "skip_if_empty": True,
                }
            ],
        },
    },
]


def configuration(base: Any, home: Path) -> Any:
    """Envoy's configuration: `base` is tests/login/envoy.yaml, whose listener each way changes."""
    keys = lambda cluster: {"cluster": cluster, "path": "/jwks", "unknown_key_seconds": 1}
    jwt_issuer = {"issuer": PROVIDER, "algorithms": ALGORITHMS, "strict_type": True, "remote_jwks": keys("idp")}
    quirky = {
        "issuer": QUIRKY,
        "algorithms": ALGORITHMS,
        "strict_type": True,
        "remote_jwks": keys("quirky"),
        "authorization_server_metadata": {
            "cluster": "quirky",
            "authority": "127.0.0.1:3011",
            "path": "/.well-known/openid-configuration",
        },
        "oauth_proxy": {"drop_resource": True, "client_id": "toolgate-agents"},
    }
    asked = {
        "issuer": OPAQUE,
        "introspection": {
            "cluster": "opaque",
            "authority": "127.0.0.1:3012",
            "path": "/token/introspection",
            "client_id": "toolgate",
            "client_secret": {"value": INTROSPECTION_SECRET},
            "ttl_seconds": 1,
        },
    }
    host = {"property": ["filter_state", "toolgate.caller"], "issuer": PROVIDER}
    local = "http://127.0.0.1"
    ways = [
        (PROXIED, {"public_url": f"{local}:{PROXIED}", "issuers": [quirky]}, []),
        (INTROSPECTED, {"public_url": f"{local}:{INTROSPECTED}", "issuers": [asked]}, []),
        (
            CERTIFICATES,
            {
                "public_url": f"https://127.0.0.1:{CERTIFICATES}",
                "issuers": [jwt_issuer],
                "certificate_bound_tokens": True,
            },
            [],
        ),
        (AUTHENTICATED, {"host": host}, JWT_AUTHN),
    ]
    config = copy.deepcopy(base)
    config["admin"]["address"]["socket_address"]["port_value"] = ADMIN
    resources = config["static_resources"]
    sample = resources["listeners"][0]
    resources["listeners"] = [listener(sample, *way) for way in ways]
    tls = resources["listeners"][2]["filter_chains"][0]
    tls["transport_socket"] = {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": True,
            "common_tls_context": {
                "tls_certificates": [
                    {
                        "certificate_chain": {"filename": str(home / "server.pem")},
                        "private_key": {"filename": str(home / "server.key")},
                    }
                ],
                "validation_context": {"trusted_ca": {"filename": str(home / "ca.pem")}},
            },
        },
    }
    sample = next(each for each in resources["clusters"] if each["name"] == "idp")
    for name, port in (("quirky", 3011), ("opaque", 3012)):
        text = json.dumps(sample).replace('"idp"', f'"{name}"').replace("3010", str(port))
        resources["clusters"].append(json.loads(text))
    return config


def listener(sample: Any, port: int, identity: Any, filters_before: list[Any]) -> Any:
    """The listener of tests/login/envoy.yaml with another port and another `identity`."""
    made = copy.deepcopy(sample)
    made["name"] = f"mcp-{port}"
    made["address"]["socket_address"]["port_value"] = port
    manager = made["filter_chains"][0]["filters"][0]["typed_config"]
    wasm = manager["http_filters"][0]["typed_config"]["config"]
    wasm["name"] = wasm["root_id"] = f"toolgate-{port}"
    wasm["configuration"]["value"]["identity"] = identity
    manager["http_filters"] = [*filters_before, *manager["http_filters"]]
    return made


def make_certificates(home: Path) -> None:
    """An authority, the gateway's certificate, and those of two agents."""
    now = datetime.now(UTC)
    authority = ec.generate_private_key(ec.SECP256R1())
    name = lambda text: x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def certificate(subject: str, key: ec.EllipticCurvePrivateKey, is_authority: bool) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name("authority of the tests"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(hours=2))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if not is_authority:
            address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        return builder.sign(authority, hashes.SHA256())

    def write(subject: str, key: ec.EllipticCurvePrivateKey, made: x509.Certificate) -> None:
        plain = serialization.NoEncryption()
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        (home / f"{subject}.key").write_bytes(key.private_bytes(*form))
        (home / f"{subject}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))

    write("ca", authority, certificate("authority of the tests", authority, True))
    for subject in ("server", "agent", "thief"):
        key = ec.generate_private_key(ec.SECP256R1())
        write(subject, key, certificate(subject, key, False))


def ask(
    url: str,
    body: Any,
    headers: dict[str, str] | None = None,
    context: ssl.SSLContext | None = None,
    connection: http.client.HTTPConnection | None = None,
) -> tuple[int, dict[str, str], str]:
    """POSTs; a text as it is, anything else as JSON."""
    parts = urlsplit(url)
    used = connection
    if used is None and context:
        used = http.client.HTTPSConnection(parts.netloc, timeout=ANSWER_SECONDS, context=context)
    elif used is None:
        used = http.client.HTTPConnection(parts.netloc, timeout=ANSWER_SECONDS)
    kind = "application/x-www-form-urlencoded" if isinstance(body, str) else "application/json"
    sent = {"content-type": kind, "accept": "application/json, text/event-stream", **(headers or {})}
    try:
        used.request("POST", parts.path, body if isinstance(body, str) else json.dumps(body), sent)
        answer = used.getresponse()
        fields = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, fields, answer.read().decode()
    finally:
        if connection is None:
            used.close()


def until(look: Callable[[], object], wanted: object, within: float = ANSWER_SECONDS) -> bool:
    """Looks until it sees what is wanted."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if look() == wanted:
            return True
        time.sleep(0.05)
    return False


def machine_token(resource: str, client: str = "machine", headers: dict[str, str] | None = None) -> dict[str, Any]:
    """A token that the provider gives a machine for a resource."""
    login = base64.b64encode(f"{client}:{client}-secret-of-the-tests".encode()).decode()
    form = urlencode({"grant_type": "client_credentials", "resource": resource, "scope": "mcp:tools"})
    _, _, body = ask(f"{PROVIDER}/token", form, {"authorization": f"Basic {login}", **(headers or {})})
    return json.loads(body)


class Proofs:
    """A key of a client's own, and proofs made with it (RFC 9449)."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.public = json.loads(ECAlgorithm.to_jwk(self.key.public_key()))

    def prove(self, url: str, token: str | None = None) -> str:
        claims: dict[str, Any] = {"jti": str(uuid.uuid4()), "htm": "POST", "htu": url, "iat": int(time.time())}
        if token:
            digest = hashlib.sha256(token.encode()).digest()
            claims["ath"] = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        return jwt.encode(claims, self.key, algorithm="ES256", headers={"typ": "dpop+jwt", "jwk": self.public})


def bound_to_a_key(claims: Any, gateway: str) -> None:
    claims.begin("a machine whose token is bound to its key (DPoP)")
    url = f"{gateway}/mcp/everything"
    own, thief = Proofs(), Proofs()
    answer = machine_token(url, headers={"dpop": own.prove(f"{PROVIDER}/token")})
    token = answer.get("access_token", "")
    claims.equal("the provider binds its token", answer.get("token_type"), "DPoP")
    proof = own.prove(url, token)
    # One connection is one worker's, and each worker remembers proofs by itself.
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=ANSWER_SECONDS)
    call = lambda headers: ask(url, INITIALIZE, headers, connection=connection)
    status, _, body = call({"authorization": f"DPoP {token}", "dpop": proof})
    claims.hold("with a proof for this request it is accepted", status == 200 and "serverInfo" in body, (status, body))
    status, headers, _ = call({"authorization": f"DPoP {token}", "dpop": proof})
    challenge = headers.get("www-authenticate", "")
    claims.hold("with the same proof once more it is refused", status == 401 and "invalid_dpop_proof" in challenge, challenge)
    status, headers, _ = call({"authorization": f"DPoP {token}", "dpop": thief.prove(url, token)})
    claims.hold("with a proof of another key, too", status == 401 and headers["www-authenticate"].startswith("DPoP "), headers)
    status, _, _ = call({"authorization": f"Bearer {token}"})
    connection.close()
    claims.equal("and as a bearer token", status, 401)


def bound_to_a_certificate(claims: Any, home: Path, plain: str) -> None:
    claims.begin("a machine whose token is bound to its certificate (mTLS)")
    url = f"https://127.0.0.1:{CERTIFICATES}/mcp/everything"
    shown = base64.b64encode((home / "agent.pem").read_bytes()).decode()
    token = machine_token(url, "bound", {"x-test-certificate": shown}).get("access_token", "")
    bound = jwt.decode(token, options={"verify_signature": False}).get("cnf", {}) if token else {}
    claims.hold("the provider binds its token", "x5t#S256" in bound, bound)
    headers = {"authorization": f"Bearer {token}"}
    # A header that proxies use for certificates is a client's word here.
    forged = {**headers, "x-forwarded-client-cert": f"Hash={'0' * 64}", "x-test-certificate": shown}
    status, _, body = ask(url, INITIALIZE, headers, of_agent(home, "agent"))
    claims.hold("over its own connection it is accepted", status == 200 and "serverInfo" in body, (status, body))
    status, answer, _ = ask(url, INITIALIZE, forged, of_agent(home, "thief"))
    said = answer.get("www-authenticate", "")
    claims.hold("over that of another agent it is refused", status == 401 and "bound to another certificate" in said, said)
    other = machine_token(f"{plain}/mcp/everything", "bound", {"x-test-certificate": shown}).get("access_token", "")
    status, answer, _ = ask(f"{plain}/mcp/everything", INITIALIZE, {**forged, "authorization": f"Bearer {other}"})
    said = answer.get("www-authenticate", "")
    claims.hold("and over one that shows no certificate", status == 401 and "the connection shows none" in said, said)
    unbound = machine_token(url).get("access_token", "")
    status, _, _ = ask(url, INITIALIZE, {"authorization": f"Bearer {unbound}"}, of_agent(home, "thief"))
    claims.equal("a token that is bound to nothing is anybody's", status, 200)


def of_agent(home: Path, agent: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(home / "ca.pem"))
    context.load_cert_chain(home / f"{agent}.pem", home / f"{agent}.key")
    return context


def authenticated_by_envoy(claims: Any, home: Path) -> None:
    claims.begin("a caller that Envoy's jwt_authn has authenticated")
    url = f"http://127.0.0.1:{AUTHENTICATED}/mcp/everything"
    token = machine_token(url).get("access_token", "")
    status, _, body = ask(url, INITIALIZE, {"authorization": f"Bearer {token}"})
    claims.hold("is who its token says", status == 200 and "serverInfo" in body, (status, body))
    claimed = {"sub": "alice", "iss": PROVIDER, "aud": url, "exp": int(time.time()) + 600, "groups": ["finance"]}
    payload = json.dumps(claimed)
    encoded = base64.urlsafe_b64encode(payload.encode()).decode().rstrip("=")
    forged = {
        name: value
        for name in ("toolgate.caller", "x-jwt-payload", "x-envoy-dynamic-metadata", "filter_state")
        for value in (payload,)
    } | {"payload": encoded, "x-toolgate-host-secret": "guessed"}
    status, answer, _ = ask(url, INITIALIZE, forged)
    claims.hold("nobody becomes one by header fields", status == 401 and "www-authenticate" in answer, (status, answer))
    status, _, _ = ask(url, INITIALIZE, {**forged, "authorization": f"Bearer {token}"})
    claims.equal("nor somebody else", status, 200)
    shown = base64.b64encode((home / "agent.pem").read_bytes()).decode()
    bound = machine_token(url, "bound", {"x-test-certificate": shown}).get("access_token", "")
    status, _, _ = ask(url, INITIALIZE, {"authorization": f"Bearer {bound}"})
    claims.equal("a token that is bound to a certificate is refused without it, though jwt_authn takes it", status, 401)
    head, _, signature = token.split(".")
    status, _, _ = ask(url, INITIALIZE, {"authorization": f"Bearer {head}.{encoded}.{signature}"})
    claims.equal("nor by a token that nobody signed", status, 401)


def records_of_the_ways(claims: Any, access: Path) -> None:
    claims.begin("the records of the other ways")
    records = [json.loads(line) for line in access.read_text().splitlines() if line.startswith("{")]
    refused = [record for record in records if record["status"] in (400, 401, 403)]
    claims.hold("what was refused reached no server", refused and not any(r["upstream"] for r in refused), refused)
    allowed = [record for record in records if record["decision"] == "allow"]
    named = [r["principal"] for r in allowed if r["port"] == AUTHENTICATED]
    claims.equal("the caller that Envoy knew is in the record, and no other", named, ["machine", "machine"])
    named = [r["principal"] for r in allowed if r["port"] == CERTIFICATES]
    claims.equal("and so are the machines with certificates", named, ["bound", "machine"])
    kinds = {r["principal_type"] for r in allowed if r["port"] in (CERTIFICATES, AUTHENTICATED)}
    claims.equal("each as a client that acts for itself", kinds, {"client"})
    claims.hold("no record holds a token", "eyJ" not in access.read_text())
