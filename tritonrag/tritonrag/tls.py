"""TLS as the options ask for it: of Triton's gRPC, and of a client.

The server's files are looked at before Triton starts, for it would say that its port is "already in use". Triton's HTTP and its
metrics know no TLS, so with it they stay on the loopback address.
"""

import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from tritonrag_client.errors import BadRequestError
from tritonrag_client.options import TlsOptions

_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
_PRIVATE_KEY: Final = b"PRIVATE KEY-----"
_ENCRYPTED: Final = b"ENCRYPTED"
# OpenSSL's numbers, x509_vfy.h.
_NOT_YET_VALID: Final = 9
EXPIRED: Final = 10
_FLIGHTS: Final = 4  # rounds of an in-memory handshake; TLS 1.3 needs two


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """Files in PEM form. With `client_ca` the server talks to those alone who show a certificate that it signed (mutual TLS)."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    @classmethod
    def of(cls, certificate: Path | None, key: Path | None, client_ca: Path | None) -> Self | None:
        """From the options; None where none is given. Raises BadRequestError where one is missing."""
        _require_pair(certificate, key, client_ca)
        if certificate is None or key is None:
            return None
        return cls(certificate=certificate, key=key, client_ca=client_ca)

    def check(self) -> None:
        """Raises BadRequestError, with option and file, for what a client could not be served with."""
        if _CERTIFICATE not in _read("--tls-cert", self.certificate):
            raise BadRequestError(
                f"--tls-cert {self.certificate} holds no certificate in PEM form; give the chain, leaf first"
            )
        self._check_key()
        context = self._context()
        _check_dates(self.certificate, context)
        if self.client_ca is not None:
            _check_client_ca(self.client_ca)

    def arguments(self) -> list[str]:
        """Triton's options."""
        arguments = ["--grpc-use-ssl=true", f"--grpc-server-cert={self.certificate.absolute()}"]
        arguments.append(f"--grpc-server-key={self.key.absolute()}")
        if self.client_ca is not None:
            arguments += ["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={self.client_ca.absolute()}"]
        return arguments

    def _check_key(self) -> None:
        key = _read("--tls-key", self.key)
        if _PRIVATE_KEY not in key:
            raise BadRequestError(f"--tls-key {self.key} holds no private key in PEM form")
        if _ENCRYPTED in key:
            raise BadRequestError(
                f"--tls-key {self.key} is encrypted, and Triton can't ask for its passphrase; give it decrypted, in a file"
                " that only this user can read"
            )

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.certificate, self.key)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise BadRequestError(
                    f"--tls-key {self.key} is not the key of the certificate in --tls-cert {self.certificate}, whose first"
                    " certificate must be the server's own"
                ) from None
            raise BadRequestError(
                f"--tls-cert {self.certificate} and --tls-key {self.key} can't be used: {reason_of(error)}"
            ) from None
        return context


def to_tls(ca: Path | None, certificate: Path | None, key: Path | None) -> TlsOptions | None:
    """How a client talks TLS; None where no option speaks of it. Raises BadRequestError where one is missing."""
    _require_pair(certificate, key)
    if ca is None and certificate is None:
        return None
    return TlsOptions(root_certificates=ca, private_key=key, certificate_chain=certificate)


def reason_of(error: ssl.SSLError) -> str:
    """OpenSSL's word for it."""
    return error.reason or str(error)


def _require_pair(certificate: Path | None, key: Path | None, client_ca: Path | None = None) -> None:
    """Raises BadRequestError where one of the two is missing, and the other or what needs both is given."""
    options = {"--tls-cert": certificate, "--tls-key": key, "--tls-client-ca": client_ca}
    given = [option for option, path in options.items() if path is not None]
    missing = [option for option in ("--tls-cert", "--tls-key") if option not in given]
    if given and missing:
        raise BadRequestError(
            f"{' and '.join(given)} without {' and '.join(missing)}: a certificate and its key go together; give both"
        )


def _read(option: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadRequestError(f"{option} is {path}, which can't be read: {error.strerror}") from error


def _check_dates(certificate: Path, server: ssl.SSLContext) -> None:
    """Shake hands as a client that trusts this very certificate: what is wrong then is its own fault."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(certificate)
    try:
        _shake_hands(server, client)
    except ssl.SSLCertVerificationError as error:
        fault = {EXPIRED: "has expired", _NOT_YET_VALID: "is not valid yet"}.get(
            error.verify_code, f"would be refused by clients: {error.verify_message}"
        )
        raise BadRequestError(
            f"--tls-cert {certificate} {fault}; give a valid one, and see that the clock is right"
        ) from None
    except ssl.SSLError as error:
        raise BadRequestError(
            f"--tls-cert {certificate} would be refused by clients: {reason_of(error)}; give one of a usual kind, such as RSA or"
            " ECDSA P-256"
        ) from None


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """A handshake without a network. Raises what a client of this server would meet."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True))
    for _ in range(_FLIGHTS):
        for side in sides:
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()


def _check_client_ca(path: Path) -> None:
    if _CERTIFICATE not in _read("--tls-client-ca", path):
        raise BadRequestError(f"--tls-client-ca {path} holds no certificate in PEM form")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise BadRequestError(f"--tls-client-ca {path} can't be used: {reason_of(error)}") from None
    authorities: list[dict[str, Any]] = context.get_ca_certs()
    if not authorities:
        raise BadRequestError(
            f"--tls-client-ca {path} holds no certificate of an authority (CA:TRUE); give the one that signs clients'"
        )
    if all(ssl.cert_time_to_seconds(one["notAfter"]) < time.time() for one in authorities):
        raise BadRequestError(f"--tls-client-ca {path} has expired; give a valid one, and see that the clock is right")
