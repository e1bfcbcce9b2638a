"""TLS files are looked at before anything starts; what is wrong is named with its option and its file."""

import json
import shlex
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from deploy_dockerfile import parse_command
from tests.security.certificates import Authority, Pair, encrypted
from tests.unit.running import running_server

from tritonrag import cli
from tritonrag.commands.serve import ServeRequest, _announce
from tritonrag.launcher import TritonServer
from tritonrag.preflight import Served
from tritonrag.supervising.health_watch import HealthWatch
from tritonrag.tls import ServerTls, to_tls
from tritonrag.triton_command import ServeOptions, plain_address, require_access
from tritonrag_client import TlsOptions
from tritonrag_client.errors import BadRequestError

EVERYWHERE = "0.0.0.0"  # noqa: S104 - nothing is bound
BEYOND = "127.0.0.2"  # stands for an address that other machines reach


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.sign("server")


@pytest.fixture(scope="module")
def other(authority: Authority) -> Pair:
    return authority.sign("other")


def test_what_fits_together_passes(pair: Pair, authority: Authority) -> None:
    ServerTls(certificate=pair.certificate, key=pair.key).check()
    ServerTls(certificate=pair.certificate, key=pair.key, client_ca=authority.certificate).check()


def test_a_chain_with_the_authority_behind_the_leaf_passes(pair: Pair, authority: Authority, tmp_path: Path) -> None:
    chain = tmp_path / "chain.pem"
    chain.write_text(pair.certificate.read_text() + authority.certificate.read_text())
    ServerTls(certificate=chain, key=pair.key).check()


Wrong = Callable[[Pair, Pair, Authority, Path], ServerTls]
WRONG: dict[str, tuple[Wrong, str]] = {
    "a certificate that is not there": (
        lambda pair, _other, _authority, tmp: ServerTls(certificate=tmp / "none.pem", key=pair.key),
        r"--tls-cert is .*none\.pem, which can't be read: No such file",
    ),
    "a folder for a key": (
        lambda pair, _other, _authority, tmp: ServerTls(certificate=pair.certificate, key=tmp),
        r"--tls-key is .*, which can't be read: Is a directory",
    ),
    "a key for a certificate": (
        lambda pair, _other, _authority, _tmp: ServerTls(certificate=pair.key, key=pair.key),
        r"--tls-cert .*server-key\.pem holds no certificate",
    ),
    "a certificate for a key": (
        lambda pair, _other, _authority, _tmp: ServerTls(certificate=pair.certificate, key=pair.certificate),
        r"--tls-key .*server\.pem holds no private key",
    ),
    "another certificate's key": (
        lambda pair, other, _authority, _tmp: ServerTls(certificate=pair.certificate, key=other.key),
        r"--tls-key .*other-key\.pem is not the key of .*server\.pem",
    ),
    "an encrypted key": (
        lambda pair, _other, _authority, tmp: ServerTls(
            certificate=pair.certificate, key=encrypted(pair.key, tmp / "encrypted.pem")
        ),
        r"--tls-key .*encrypted\.pem is encrypted",
    ),
    "a certificate that has expired": (
        lambda _pair, _other, authority, _tmp: _served(authority.sign("expired", days=-1)),
        r"--tls-cert .*expired\.pem has expired",
    ),
    "a certificate on a curve that no client takes": (
        lambda _pair, _other, authority, _tmp: _served(authority.sign("curve", curve="secp256k1")),
        r"--tls-cert .*curve\.pem would be refused by clients: NO_SHARED_CIPHER",
    ),
    "a damaged certificate": (
        lambda pair, _other, _authority, tmp: ServerTls(certificate=_damaged(pair, tmp / "damaged.pem"), key=pair.key),
        r"--tls-cert .*damaged\.pem and --tls-key .* can't be used",
    ),
    "an authority that is not there": (
        lambda pair, _other, _authority, tmp: _served(pair, client_ca=tmp / "none.pem"),
        r"--tls-client-ca is .*none\.pem, which can't be read",
    ),
    "a key for an authority": (
        lambda pair, _other, _authority, _tmp: _served(pair, client_ca=pair.key),
        r"--tls-client-ca .*server-key\.pem holds no certificate",
    ),
    "a leaf for an authority": (
        lambda pair, _other, _authority, _tmp: _served(pair, client_ca=pair.certificate),
        r"--tls-client-ca .*server\.pem holds no certificate of an authority",
    ),
}


def _served(pair: Pair, client_ca: Path | None = None) -> ServerTls:
    return ServerTls(certificate=pair.certificate, key=pair.key, client_ca=client_ca)


def _damaged(pair: Pair, target: Path) -> Path:
    lines = pair.certificate.read_text().splitlines()
    target.write_text("\n".join([lines[0], lines[1][::-1], *lines[2:]]))
    return target


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_is_refused_by_option_and_file(
    case: str, pair: Pair, other: Pair, authority: Authority, tmp_path: Path
) -> None:
    make, named = WRONG[case]
    tls = make(pair, other, authority, tmp_path)
    with pytest.raises(BadRequestError, match=named):
        tls.check()
    with pytest.raises(BadRequestError, match=named):
        require_access(ServeOptions(tls=tls))


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"tls_cert": Path("a")}, "--tls-cert without --tls-key"),
        ({"tls_key": Path("a")}, "--tls-key without --tls-cert"),
        ({"tls_client_ca": Path("a")}, "--tls-client-ca without --tls-cert and --tls-key"),
        ({"tls_cert": Path("a"), "tls_client_ca": Path("b")}, "--tls-cert and --tls-client-ca without --tls-key"),
    ],
)
def test_half_of_tls_is_refused(given: dict[str, Path], missing: str) -> None:
    with pytest.raises(BadRequestError, match=missing):
        ServeRequest(**given).serve_options()  # type: ignore[arg-type]


def test_without_a_word_of_it_there_is_none() -> None:
    assert ServeRequest().serve_options().tls is None


def test_triton_is_told_of_the_files_and_of_clients_certificates_where_they_are_wanted(pair: Pair) -> None:
    plain, mutual = _served(pair).arguments(), _served(pair, client_ca=Path("/ca.pem")).arguments()
    assert plain == [
        "--grpc-use-ssl=true",
        f"--grpc-server-cert={pair.certificate}",
        f"--grpc-server-key={pair.key}",
    ]
    assert mutual == [*plain, "--grpc-use-ssl-mutual=true", "--grpc-root-cert=/ca.pem"]


@pytest.mark.parametrize(
    ("address", "with_tls"),
    [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), (EVERYWHERE, "127.0.0.1"), ("::", "::1"), ("192.0.2.1", "127.0.0.1")],
)
def test_what_knows_no_tls_stays_on_this_machine_beside_what_does(pair: Pair, address: str, with_tls: str) -> None:
    assert plain_address(ServeOptions(), address) == address
    assert plain_address(ServeOptions(tls=_served(pair)), address) == with_tls


def test_a_client_talks_tls_once_an_option_speaks_of_it() -> None:
    ca, cert, key = Path("ca"), Path("cert"), Path("key")
    assert to_tls(None, None, None) is None
    assert to_tls(ca, None, None) == TlsOptions(root_certificates=ca)
    assert to_tls(None, cert, key) == TlsOptions(certificate_chain=cert, private_key=key)
    assert to_tls(ca, cert, key) == TlsOptions(root_certificates=ca, certificate_chain=cert, private_key=key)


@pytest.mark.parametrize(("files", "missing"), [((Path("a"), None), "--tls-key"), ((None, Path("a")), "--tls-cert")])
def test_half_of_a_clients_certificate_is_refused(files: tuple[Path | None, Path | None], missing: str) -> None:
    with pytest.raises(BadRequestError, match=f"without {missing}"):
        to_tls(None, *files)


def test_the_commands_of_the_page_are_commands() -> None:
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    commands = [shlex.split(line)[2:] for line in page.splitlines() if line.startswith("$ tritonrag ")]
    assert [command[0] for command in commands] == ["serve", "ask"]
    for command in commands:
        assert parse_command(command)["tls_cert"] is not None


@pytest.mark.parametrize("service", ["http", "metrics"])
def test_a_port_of_what_stays_on_this_machine_is_looked_for_there(
    service: str, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tritonrag.triton_command.is_loopback", lambda address: address != BEYOND)
    options = ServeOptions(tls=_served(pair), host=BEYOND)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused, wanted = rf"--{service}-port {port} can't be had on 127\.0\.0\.1", {f"{service}_port": port}
        with pytest.raises(BadRequestError, match=refused):
            HealthWatch(replace(options, **wanted), port=0, as_json=True, verbose=False)  # type: ignore[arg-type]
        with TritonServer() as server, pytest.raises(BadRequestError, match=refused):
            server.start(replace(options, **wanted))  # type: ignore[arg-type]
        with HealthWatch(replace(options, grpc_port=port), port=0, as_json=True, verbose=False) as watch:
            assert watch.port != port


@pytest.mark.usefixtures("nothing_set")
@pytest.mark.parametrize(
    ("command", "variable"),
    [(["serve"], f"TRITONRAG_TLS_{file}") for file in ("CERT", "KEY", "CLIENT_CA")]
    + [
        ([word, "why?"], f"TRITONRAG_CLIENT_TLS_{file}") for word in ("ask", "search") for file in ("CA", "CERT", "KEY")
    ],
)
def test_a_variable_that_is_set_and_empty_is_refused_rather_than_taken_for_no_tls(
    command: list[str], variable: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "")
    assert cli.run_command(command) == 2
    assert f"{variable} is set and empty; name a file, or unset it" in capsys.readouterr().err


def test_an_option_counts_over_a_variable_that_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONRAG_TLS_CLIENT_CA", "")
    assert parse_command(["serve", "--tls-client-ca", "ca.pem"])["tls_client_ca"] == Path("ca.pem")


CERTIFICATE = {"tls_cert": Path("cert.pem"), "tls_key": Path("key.pem")}


@pytest.mark.parametrize(
    ("files", "named", "tls", "mutual"),
    [
        ({}, "127.0.0.1:2\n", False, False),
        (CERTIFICATE, "127.0.0.1:2, TLS\n", True, False),
        ({**CERTIFICATE, "tls_client_ca": Path("ca.pem")}, "127.0.0.1:2, mutual TLS\n", True, True),
    ],
)
def test_serve_says_who_may_connect(
    files: dict[str, Path], named: str, tls: bool, mutual: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    running = running_server(grpc_port=2)
    served = Served(index=Path("index"), index_version=1, passages=1)
    _announce(ServeRequest(**files), running, served, start_s=1.0, health_port=5)  # type: ignore[arg-type]
    out = capsys.readouterr().out
    assert f"gRPC     {named}" in out
    assert ("--tls-ca FILE" in out, "--tls-key FILE" in out) == (tls, mutual)
    _announce(ServeRequest(**files, json=True), running, served, start_s=1.0, health_port=5)  # type: ignore[arg-type]
    said = json.loads(capsys.readouterr().out)
    assert (said["tls"], said["mutual_tls"]) == (tls, mutual)
