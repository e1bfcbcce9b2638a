"""Why a client and a server do not come together where TLS is the cause, in words that gRPC does not find.

gRPC tells a person "Socket closed" or the innards of a TLS library. A second look at the address, with Python's own TLS, tells
the cases apart.
"""

import socket
import ssl
from contextlib import suppress
from time import monotonic
from typing import Final

from tritonrag.tls import EXPIRED, reason_of
from tritonrag_client.errors import BadRequestError, DeniedError
from tritonrag_client.options import TlsOptions

_ALPN: Final = ["h2"]  # what gRPC speaks; its servers refuse a handshake without it
# OpenSSL's numbers, x509_vfy.h.
_NAME_ERRORS: Final = (62, 64)  # host name, IP address
_ALERT: Final = "ALERT"  # the other side's word for what it does not like, within the names of OpenSSL's reasons
_SPEAKS_TLS: Final = "speaks TLS; give --tls-ca FILE, the authority that signed its certificate"


def refuse_for_tls(url: str, tls: TlsOptions | None, *, timeout_s: float) -> None:
    """Raises DeniedError, with the option that helps, where something listens at `url` and TLS is why it does not answer.

    Raises BadRequestError for files that Python can't use. Returns where the reason is another one, and where `timeout_s` is over.
    """
    host, _, port = url.rpartition(":")
    host, end_s = host.strip("[]"), monotonic() + timeout_s
    try:
        with _connect(host, int(port), end_s) as connection:
            reason = _reason(connection, host, tls, end_s)
    except OSError:
        return
    if reason:
        raise DeniedError(f"the server at {url} {reason}")


def _left_s(end_s: float) -> float:
    left_s = end_s - monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _connect(host: str, port: int, end_s: float) -> socket.socket:
    """To the first address of the name that takes a connection. Raises OSError where none does."""
    for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        with suppress(OSError):
            return socket.create_connection((str(address[0]), port), timeout=_left_s(end_s))
    raise ConnectionRefusedError


def _reason(connection: socket.socket, host: str, tls: TlsOptions | None, end_s: float) -> str:
    try:
        connection.settimeout(_left_s(end_s))
        with _context(tls).wrap_socket(connection, server_hostname=host) as wrapped:
            if tls is None:
                return _SPEAKS_TLS
            # A gRPC server speaks first. With TLS 1.3 it looks at a client's certificate, or at the want of one, only after the
            # handshake, and Triton's then hangs up without a word.
            wrapped.settimeout(_left_s(end_s))
            return "" if wrapped.recv(1) else _refused(tls)
    except ssl.SSLCertVerificationError as error:
        return _untrusted(error)
    except ssl.SSLError as error:
        if tls is None:
            return _SPEAKS_TLS if _ALERT in reason_of(error) else ""
        return (
            _refused(tls)
            if _ALERT in reason_of(error)
            else "speaks no TLS; leave --tls-ca, --tls-cert and --tls-key out"
        )


def _context(tls: TlsOptions | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(_ALPN)
    if tls is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context
    try:
        if tls.root_certificates is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(tls.root_certificates)
        if tls.certificate_chain is not None:
            context.load_cert_chain(tls.certificate_chain, tls.private_key)
    except ssl.SSLError as error:
        raise BadRequestError(
            f"--tls-ca, --tls-cert and --tls-key can't be used together: {reason_of(error)}; give PEM files, a certificate"
            " with its own key"
        ) from None
    return context


def _untrusted(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code == EXPIRED:
        return "shows a certificate that has expired; it needs a new one"
    if error.verify_code in _NAME_ERRORS:
        return f"shows a certificate for another name ({error.verify_message}); give --url with a name that it bears"
    return (
        f"shows a certificate that --tls-ca does not vouch for ({error.verify_message}); give the authority that signed it,"
        " unless somebody stands in between"
    )


def _refused(tls: TlsOptions) -> str:
    if tls.certificate_chain is None:
        return "asks for a certificate of ours; give --tls-cert and --tls-key"
    return "refuses our certificate; give --tls-cert one that is valid and that the server's --tls-client-ca signed"
