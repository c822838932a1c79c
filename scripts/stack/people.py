"""Signs tokens for the people of the demo. Runs inside the virtual environment of `tools`.

`python people.py NAME... [--expires-in SECONDS] [--claims JSON]` prints {"NAME": "token", ...}.
The key is demo-key.json, which signs nothing but the demo (see demo-key.md).
`python people.py --jwks` prints the public half, as it stands in demo-jwks.json.
"""

import argparse
import json
import time
from pathlib import Path

import jwt

KEY_FILE = Path(__file__).resolve().parent / "demo-key.json"
ISSUER = "https://idp.demo.toolgate.example"
AUDIENCE = "http://127.0.0.1:10000/mcp"
CLIENT = "demo-agent"
PEOPLE = {
    "alice": {"groups": ["finance"], "scope": "mcp:tools"},
    "bob": {"groups": ["engineering"], "scope": "mcp:tools"},
}


def main() -> None:
    arguments = argparse.ArgumentParser(description="Signs tokens for the people of the demo.")
    arguments.add_argument("names", nargs="*", help=f"of {', '.join(PEOPLE)}, or any other name, who is in no group")
    arguments.add_argument("--expires-in", type=int, default=3600, metavar="SECONDS")
    arguments.add_argument("--claims", type=json.loads, default={}, metavar="JSON", help="claims to add or replace")
    arguments.add_argument("--jwks", action="store_true", help="print the public key set instead")
    given = arguments.parse_args()
    key = json.loads(KEY_FILE.read_text())
    if given.jwks:
        print(json.dumps({"keys": [{name: value for name, value in key.items() if name != "d"}]}, indent=2))
    else:
        print(json.dumps({name: token(key, name, given.expires_in, given.claims) for name in given.names}))


def token(key: dict[str, str], name: str, expires_in: int, extra: dict[str, object]) -> str:
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": name, "iat": now, "exp": now + expires_in, "client_id": CLIENT}
    claims |= PEOPLE.get(name, {"groups": [], "scope": "mcp:tools"}) | extra
    signed: str = jwt.encode(claims, jwt.PyJWK(key).key, algorithm=key["alg"], headers={"kid": key["kid"]})
    return signed


if __name__ == "__main__":
    main()
