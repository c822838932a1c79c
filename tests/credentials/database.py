"""A Valkey, in which the vault makes users that live as long as their lease."""

import json
import secrets
import socket
from dataclasses import dataclass, field
from pathlib import Path

from stack import tools
from stack.supervisor import Supervisor
from vault import OpenBao

ANSWER_SECONDS = 60
PLUGIN = "valkey-database-plugin"


@dataclass
class Valkey:
    """Holds nothing but its users."""

    supervisor: Supervisor
    home: Path
    port: int
    password: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    def start(self) -> None:
        config = self.home / "valkey.conf"
        config.write_text(f'bind 127.0.0.1\nport {self.port}\nrequirepass {self.password}\nsave ""\ndir "{self.home}"\n')
        self.supervisor.start("valkey", [str(tools.valkey()), str(config)], cwd=self.home)

    def opens(self, user: str, password: str) -> bool:
        """Whether somebody can log in at this moment."""
        with socket.create_connection(("127.0.0.1", self.port), ANSWER_SECONDS) as connection:
            connection.sendall(command("AUTH", user, password))
            return connection.recv(64).startswith(b"+OK")

    def lend_by(self, vault: OpenBao, roles: dict[str, int]) -> None:
        """Has the vault's database engine make users here: each role for as many seconds."""
        engine = vault.client
        engine.post("sys/mounts/database", {"type": "database"})
        admin = {"username": "default", "password": self.password}
        place = {"plugin_name": PLUGIN, "host": "127.0.0.1", "port": self.port, "allowed_roles": list(roles)}
        engine.post("database/config/valkey", place | admin)
        for role, lent in roles.items():
            rights = json.dumps(["~*", "+@read"])
            engine.post(
                f"database/roles/{role}",
                {"db_name": "valkey", "creation_statements": rights, "default_ttl": f"{lent}s", "max_ttl": "1h"},
            )


def command(*words: str) -> bytes:
    """A command in the form of the protocol that takes any byte."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in words)
