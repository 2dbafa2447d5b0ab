# SPDX-License-Identifier: GPL-2.0-or-later
"""Keys of one lab run: ssh keys and Ferry's certificates. Made anew each time, worth nothing later."""

import hashlib
import pathlib
import subprocess


class Identity:
    def __init__(self, directory: pathlib.Path) -> None:
        """Reads the keys that `make` put there."""
        self.directory = directory
        self.key_file = directory / "user_key"
        self.known_hosts = directory / "known_hosts"
        self.user_key = self.key_file.read_text()
        self.user_key_public = (directory / "user_key.pub").read_text()
        self.host_key = (directory / "host_key").read_text()
        self.host_key_public = (directory / "host_key.pub").read_text()

    @classmethod
    def make(cls, directory: pathlib.Path, hosts: dict[str, str]) -> "Identity":
        directory.mkdir(mode=0o700)
        for name in ("user_key", "host_key"):
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ferry-lab",
                 "-f", directory / name)
        keys = cls(directory)
        keys.known_hosts.write_text(f"* {keys.host_key_public}")
        keys._make_authority("ca")
        for host, address in hosts.items():
            keys._make_certificate("ca", host, host, address)
        return keys

    def machine_id(self, host: str) -> str:
        return hashlib.sha256((self.host_key_public + host).encode()).hexdigest()[:32]

    def pki(self, host: str) -> dict[str, str]:
        return {"ca-cert.pem": (self.directory / "ca-cert.pem").read_text(),
                "server-cert.pem": (self.directory / f"{host}-cert.pem").read_text(),
                "server-key.pem": (self.directory / f"{host}-key.pem").read_text()}

    def foreign_pki(self, host: str, address: str) -> dict[str, str]:
        """A certificate for `host` that another authority signed: for "wrong key" scenarios."""
        if not (self.directory / "foreign-cert.pem").exists():
            self._make_authority("foreign")
        self._make_certificate("foreign", f"foreign-{host}", host, address)
        files = self.pki(f"foreign-{host}")
        files["ca-cert.pem"] = (self.directory / "foreign-cert.pem").read_text()
        return files

    def _make_authority(self, name: str) -> None:
        base = self.directory / name
        _run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-days", "30", "-subj", f"/CN=Ferry lab {name}",
             "-addext", "basicConstraints=critical,CA:TRUE",
             "-addext", "keyUsage=critical,keyCertSign,cRLSign",
             "-keyout", f"{base}-key.pem", "-out", f"{base}-cert.pem")

    def _make_certificate(self, authority: str, name: str, host: str, address: str) -> None:
        base = self.directory / name
        signer = self.directory / authority
        _run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-subj", f"/CN={host}", "-keyout", f"{base}-key.pem", "-out", f"{base}.csr")
        extensions = self.directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName=DNS:{host},DNS:host{host},IP:{address}\n"
                              "basicConstraints=critical,CA:FALSE\n"
                              "keyUsage=critical,digitalSignature\n"
                              "extendedKeyUsage=serverAuth,clientAuth\n")
        _run("openssl", "x509", "-req", "-in", f"{base}.csr", "-CA", f"{signer}-cert.pem",
             "-CAkey", f"{signer}-key.pem", "-CAcreateserial", "-days", "30",
             "-extfile", extensions, "-out", f"{base}-cert.pem")


def _run(*argv) -> None:
    subprocess.run([str(arg) for arg in argv], check=True, capture_output=True)
