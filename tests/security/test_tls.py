"""TLS between real certificates: who fits is answered, who does not is told why, and what knows no TLS leaves nobody in."""

import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import grpc
import psutil
import pytest
from tritonclient.grpc import service_pb2_grpc

from tests.security.certificates import Authority, Pair
from tests.server import toy
from tritonrag import cli
from tritonrag.launcher import RunningServer, TritonServer
from tritonrag.talking import connected
from tritonrag.tls import ServerTls
from tritonrag.triton_command import ServeOptions
from tritonrag_backends.settings import Settings
from tritonrag_client import DeniedError, RagClient, RetryPolicy, Timeouts, TlsOptions, UnavailableError
from tritonrag_client.errors import BadRequestError

QUESTION = "How do I parse a JSON document?"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - what is tested
QUICK = {"timeouts": Timeouts(connect_s=5, total_s=10), "retry": RetryPolicy(attempts=1)}


def of(ca: Authority | None, pair: Pair | None = None) -> TlsOptions:
    return TlsOptions(
        root_certificates=ca and ca.certificate,
        certificate_chain=pair and pair.certificate,
        private_key=pair and pair.key,
    )


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.sign("server")


@pytest.fixture(scope="module")
def ours(authority: Authority) -> Pair:
    """A client's certificate."""
    return authority.sign("client")


@pytest.fixture(scope="module")
def one_way(tmp_path_factory: pytest.TempPathFactory, pair: Pair) -> Iterator[RunningServer]:
    """A server that shows its certificate and asks for none, reachable from outside for its gRPC."""
    repository = toy.make_repository(tmp_path_factory.mktemp("toy") / "repository")
    triton = TritonServer()
    with triton:
        yield triton.start(
            ServeOptions(
                model_repository=repository,
                models=("wait",),
                host=EVERYWHERE,
                tls=ServerTls(certificate=pair.certificate, key=pair.key),
            )
        )
    assert triton.check_left_behind() == []


@pytest.fixture(scope="module")
def mutual(settings: Settings, pair: Pair, authority: Authority) -> Iterator[RunningServer]:
    """The real models behind mutual TLS."""
    triton = TritonServer()
    with triton:
        tls = ServerTls(certificate=pair.certificate, key=pair.key, client_ca=authority.certificate)
        yield triton.start(ServeOptions(settings=settings, tls=tls))
    assert triton.check_left_behind() == []


def failure(url: str, tls: TlsOptions | None) -> UnavailableError:
    """What the library's client raises, with gRPC's own words for the reason."""
    with RagClient(url, tls=tls, **QUICK) as client, pytest.raises(UnavailableError) as caught:  # type: ignore[arg-type]
        client.search(QUESTION)
    assert url in caught.value.message
    return caught.value


def denial(url: str, tls: TlsOptions | None) -> str:
    """What the command says."""
    with pytest.raises(DeniedError) as caught, connected(url, timeout_s=10, tls=tls):
        pass
    return caught.value.message


def test_with_the_right_authority_it_answers(one_way: RunningServer, authority: Authority) -> None:
    with RagClient(one_way.grpc_url, tls=of(authority)) as client:
        assert client.health().live


def test_with_certificates_on_both_sides_questions_are_answered(
    mutual: RunningServer, authority: Authority, ours: Pair
) -> None:
    with RagClient(mutual.grpc_url, tls=of(authority, ours)) as client:
        assert client.search(QUESTION).passages
        assert "[1]" in client.ask(QUESTION).text
        assert "".join(delta.text for delta in client.stream(QUESTION))


def test_the_command_asks_over_mutual_tls_by_options_and_by_variables(
    mutual: RunningServer,
    authority: Authority,
    ours: Pair,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = {"ca": authority.certificate, "cert": ours.certificate, "key": ours.key}
    options = [text for name, path in files.items() for text in (f"--tls-{name}", str(path))]
    for command in ("search", "ask"):
        assert cli.run_command([command, QUESTION, "--url", mutual.grpc_url, *options]) == 0
        assert "json" in capsys.readouterr().out
    for name, path in files.items():
        monkeypatch.setenv(f"TRITONRAG_CLIENT_TLS_{name.upper()}", str(path))
    assert cli.run_command(["search", QUESTION, "--url", mutual.grpc_url]) == 0


def test_a_plain_client_is_told_that_the_server_speaks_tls(one_way: RunningServer, mutual: RunningServer) -> None:
    for running in (one_way, mutual):
        failure(running.grpc_url, None)
        assert "speaks TLS; give --tls-ca" in denial(running.grpc_url, None)


def test_a_client_of_another_authority_is_told_so(one_way: RunningServer, stranger: Authority) -> None:
    assert "CERTIFICATE_VERIFY_FAILED" in failure(one_way.grpc_url, of(stranger)).message
    assert "does not vouch for" in denial(one_way.grpc_url, of(stranger))


def test_a_client_without_a_certificate_is_told_that_one_is_asked_for(
    mutual: RunningServer, authority: Authority
) -> None:
    failure(mutual.grpc_url, of(authority))
    assert "asks for a certificate of ours" in denial(mutual.grpc_url, of(authority))


def test_a_client_whose_certificate_a_stranger_signed_is_refused(
    mutual: RunningServer, authority: Authority, stranger: Authority
) -> None:
    theirs = of(authority, stranger.sign("client"))
    failure(mutual.grpc_url, theirs)
    assert "refuses our certificate" in denial(mutual.grpc_url, theirs)


def test_a_client_whose_certificate_has_expired_is_refused(mutual: RunningServer, authority: Authority) -> None:
    old = of(authority, authority.sign("old-client", days=-1))
    failure(mutual.grpc_url, old)
    assert "refuses our certificate" in denial(mutual.grpc_url, old)


def test_a_tls_client_of_a_plain_server_is_told_so(server: RunningServer, authority: Authority) -> None:
    failure(server.grpc_url, of(authority))
    assert "speaks no TLS" in denial(server.grpc_url, of(authority))


@pytest.fixture
def shown(request: pytest.FixtureRequest, authority: Authority) -> Iterator[str]:
    """A server with a certificate that `serve` itself would refuse, or that bears another name."""
    pair = authority.sign("shown", **request.param)
    credentials = grpc.ssl_server_credentials([(pair.key.read_bytes(), pair.certificate.read_bytes())])
    with ThreadPoolExecutor() as pool:
        other = grpc.server(pool)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
            service_pb2_grpc.GRPCInferenceServiceServicer(), other
        )
        port = other.add_secure_port("127.0.0.1:0", credentials)
        other.start()
        yield f"127.0.0.1:{port}"
        other.stop(None).wait()


@pytest.mark.parametrize(
    ("shown", "named"),
    [({"days": -1}, "has expired"), ({"alternative": "DNS:elsewhere.example"}, "certificate for another name")],
    indirect=["shown"],
)
def test_a_server_with_a_certificate_that_is_no_good_is_not_talked_to(
    shown: str, named: str, authority: Authority
) -> None:
    failure(shown, of(authority))
    assert named in denial(shown, of(authority))


def test_an_expired_certificate_is_refused_before_anything_starts(authority: Authority, repository: Path) -> None:
    old = authority.sign("old", days=-1)
    tls = ServerTls(certificate=old.certificate, key=old.key)
    server = TritonServer()
    with server, pytest.raises(BadRequestError, match="has expired"):
        server.start(ServeOptions(model_repository=repository, models=("wait",), tls=tls))
    assert server.check_left_behind() == []


def test_files_that_triton_alone_can_not_use_are_told_and_not_taken_for_a_lost_port(
    pair: Pair, ours: Pair, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ServerTls, "check", lambda _: None)
    tls, log = ServerTls(certificate=pair.certificate, key=ours.key), tmp_path / "triton.log"
    server = TritonServer()
    with server, pytest.raises(BadRequestError, match=r"Triton can't use the files of --tls-cert.*Invalid private key"):
        server.start(ServeOptions(model_repository=repository, models=("wait",), tls=tls, log_file=log))
    assert server.check_left_behind() == []


def test_beside_tls_only_grpc_leaves_this_machine(one_way: RunningServer) -> None:
    listening = {
        connection.laddr.port: connection.laddr.ip
        for connection in psutil.Process(one_way.pid).net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening.pop(one_way.grpc_port) in {EVERYWHERE, "::"}  # gRPC takes both families
    assert listening == {one_way.http_port: "127.0.0.1", one_way.metrics_port: "127.0.0.1"}
    with urllib.request.urlopen(f"{one_way.http_url}/v2/health/ready", timeout=20) as answer:
        assert answer.status == 200


def test_an_answer_that_runs_can_be_left_over_tls(mutual: RunningServer, authority: Authority, ours: Pair) -> None:
    with RagClient(mutual.grpc_url, tls=of(authority, ours)) as client:
        stream = client.stream(QUESTION)
        next(iter(stream))
        stream.close()
        assert client.health().ready


def test_a_server_is_told_apart_from_one_that_is_not_there(one_way: RunningServer, authority: Authority) -> None:
    gone = replace(one_way, grpc_port=1)
    with (
        pytest.raises(UnavailableError, match="no server answers"),
        connected(gone.grpc_url, timeout_s=5, tls=of(authority)),
    ):
        pass
