"""TLS, with certificates made for the test."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from client_double import ANSWER, ONCE, ScriptedTriton, Talk, running

from tritonrag_client import BadRequestError, RagClient, TlsOptions, UnavailableError


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A key and its certificate, its own root, for 127.0.0.1."""
    folder = tmp_path_factory.mktemp("tls")
    key, chain = folder / "key.pem", folder / "chain.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "1",
    ]
    names = ["-subj", "/CN=tritonrag", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, *names, "-keyout", str(key), "-out", str(chain)], check=True, capture_output=True)
    return key, chain


@pytest.fixture
def tls_url(triton: ScriptedTriton, certificate: tuple[Path, Path]) -> Iterator[str]:
    """A server that shows the certificate and wants to see it."""
    key, chain = (path.read_bytes() for path in certificate)
    with running(triton, grpc.ssl_server_credentials([(key, chain)], chain, require_client_auth=True)) as address:
        yield address


def test_mutual_tls_works(tls_url: str, triton: ScriptedTriton, certificate: tuple[Path, Path], talk: Talk) -> None:
    triton.script = [ANSWER]
    key, chain = certificate
    tls = TlsOptions(root_certificates=chain, private_key=key, certificate_chain=chain)
    assert talk(tls_url, "ask", "Who?", client={"tls": tls}).text == "Hello world [1]"


def test_a_server_with_an_unknown_root_is_not_talked_to(tls_url: str, triton: ScriptedTriton, talk: Talk) -> None:
    triton.script = [ANSWER]
    with pytest.raises(UnavailableError):
        talk(tls_url, "ask", "Who?", client={"tls": TlsOptions(), **ONCE})
    assert triton.requests == []


def test_a_client_without_its_certificate_is_refused(
    tls_url: str, triton: ScriptedTriton, certificate: tuple[Path, Path], talk: Talk
) -> None:
    triton.script = [ANSWER]
    with pytest.raises(UnavailableError):
        talk(tls_url, "ask", "Who?", client={"tls": TlsOptions(root_certificates=certificate[1]), **ONCE})
    assert triton.requests == []


def test_an_unreadable_certificate_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match=r"root_certificates is .*missing\.pem, which can't be read"):
        RagClient("127.0.0.1:1", tls=TlsOptions(root_certificates=tmp_path / "missing.pem"))
