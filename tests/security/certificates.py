"""Certificates made for a test, by the openssl program."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

_CURVE = "prime256v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A certificate and its key, PEM files."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates. `certificate` is its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.certificate, self._key = folder / "ca.pem", folder / "ca-key.pem"
        _openssl(
            "req",
            "-x509",
            *_new_key(_CURVE),
            "-days",
            "2",
            "-subj",
            f"/CN={folder.name}",
            "-keyout",
            self._key,
            "-out",
            self.certificate,
        )

    def sign(self, name: str, *, alternative: str = "IP:127.0.0.1", days: int = 1, curve: str = _CURVE) -> Pair:
        """A new key and its certificate; one of -1 days has expired."""
        pair = Pair(certificate=self._folder / f"{name}.pem", key=self._folder / f"{name}-key.pem")
        request, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={alternative}\n")
        _openssl("req", "-new", *_new_key(curve), "-subj", f"/CN={name}", "-keyout", pair.key, "-out", request)
        signed_by = ("-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial")
        _openssl(
            "x509",
            "-req",
            "-in",
            request,
            *signed_by,
            "-extfile",
            extensions,
            "-days",
            str(days),
            "-out",
            pair.certificate,
        )
        return pair


def encrypted(key: Path, target: Path) -> Path:
    """The key behind a passphrase."""
    _openssl("pkcs8", "-topk8", "-in", key, "-out", target, "-passout", "pass:secret")
    return target


def _new_key(curve: str) -> tuple[str, ...]:
    return "-newkey", "ec", "-pkeyopt", f"ec_paramgen_curve:{curve}", "-nodes"


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)  # noqa: S607 - the PATH's own
