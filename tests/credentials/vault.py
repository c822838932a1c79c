"""An OpenBao as it is run in earnest: reached by TLS, sealed when it starts, with what it holds on disk."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from stack import tools
from stack.console import ROOT
from stack.servers import VaultClient
from stack.supervisor import Child, Supervisor

NAME = "vault.example"


@dataclass
class OpenBao:
    """Its files, root token and unseal key are in `home`."""

    supervisor: Supervisor
    home: Path
    port: int
    cluster_port: int
    root_token: str = ""
    unseal_key: str = ""

    def __post_init__(self) -> None:
        self.certificate, self.certificate_key = self.home / "vault.crt", self.home / "vault.key"
        self.storage = self.home / "vault"

    @property
    def address(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def client(self) -> VaultClient:
        return VaultClient(self.root_token, self.address, self.certificate)

    def begin(self) -> None:
        """Starts one that holds nothing, and opens it for the first time."""
        shutil.rmtree(self.storage, ignore_errors=True)
        self.storage.mkdir()
        self.make_certificate()
        self.start()
        made = self.client.put("sys/init", {"secret_shares": 1, "secret_threshold": 1})
        self.root_token, self.unseal_key = made["root_token"], made["keys"][0]
        self.unseal()

    def start(self) -> None:
        """Starts it; what it holds is behind its seal."""
        config = self.home / "vault.json"
        config.write_text(json.dumps(self.configuration()))
        command = [str(tools.openbao()), "server", f"-config={config}"]
        child = self.supervisor.start("vault", command, cwd=ROOT)
        self.supervisor.wait_until_answers(child, self.health, authority=self.certificate)

    def kill(self) -> None:
        """Leaves it no time to put anything in order."""
        process = self.child.process
        process.kill()
        process.wait()
        self.supervisor.stop("vault")

    def seal(self) -> None:
        self.client.put("sys/seal")

    def unseal(self) -> None:
        """Opens it, and waits until it does its work."""
        self.client.put("sys/unseal", {"key": self.unseal_key})
        self.supervisor.wait_until_answers(self.child, self.health, status=200, authority=self.certificate)

    @property
    def child(self) -> Child:
        return self.supervisor.children["vault"]

    @property
    def health(self) -> str:
        return f"{self.address}/v1/sys/health"

    def configuration(self) -> object:
        listener = {
            "address": f"127.0.0.1:{self.port}",
            "cluster_address": f"127.0.0.1:{self.cluster_port}",
            "tls_cert_file": str(self.certificate),
            "tls_key_file": str(self.certificate_key),
        }
        return {
            "storage": {"raft": {"path": str(self.storage), "node_id": "only"}},
            "listener": [{"tcp": listener}],
            "api_addr": self.address,
            "cluster_addr": f"https://127.0.0.1:{self.cluster_port}",
        }

    def make_certificate(self) -> None:
        """A certificate that is its own authority."""
        if self.certificate.exists():
            return
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        command += ["-days", "1", "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME},IP:127.0.0.1"]
        command += ["-keyout", str(self.certificate_key), "-out", str(self.certificate)]
        subprocess.run(command, check=True, capture_output=True)
