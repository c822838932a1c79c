"""Prints tokens of fresh keys for the bench: {"RS256": {"jwk": ..., "token": ...}, ...}. Runs in the tools' Python."""

import json
import time

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

now = int(time.time())
CLAIMS = {
    "iss": "https://idp.demo.toolgate.example",
    "aud": "http://127.0.0.1:10000/mcp",
    "sub": "alice",
    "iat": now,
    "exp": now + 3600,
    "client_id": "demo-agent",
    "groups": ["finance"],
    "scope": "mcp:tools",
}
KEYS = {
    "RS256": (rsa.generate_private_key(public_exponent=65537, key_size=2048), RSAAlgorithm),
    "ES256": (ec.generate_private_key(ec.SECP256R1()), ECAlgorithm),
    "EdDSA": (ed25519.Ed25519PrivateKey.generate(), OKPAlgorithm),
}
tokens = {}
for name, (key, algorithm) in KEYS.items():
    public = json.loads(algorithm.to_jwk(key.public_key())) | {"kid": name, "use": "sig"}
    token = jwt.encode(CLAIMS, key, algorithm=name, headers={"kid": name, "typ": "at+jwt"})
    tokens[name] = {"jwk": public, "token": token}
print(json.dumps(tokens))
