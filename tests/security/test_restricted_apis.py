"""What an operator may do, nobody else may: every restricted API, over both protocols, with and without the key."""

import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from tests.server import toy
from tests.waiting import wait_until
from tritonrag.admin_key import ADMIN_HEADER, RESTRICTED_APIS
from tritonrag.launcher import RunningServer, TritonServer
from tritonrag.processes import session_members
from tritonrag.triton_command import ServeOptions

KEYS = ("none", "wrong", "empty", "right")
DENIED = "restricted, expecting header"

# Every call of Triton's gRPC service that is restricted, by the API that it belongs to.
GRPC: dict[str, tuple[tuple[str, Any], ...]] = {
    "model-repository": (
        ("RepositoryIndex", pb.RepositoryIndexRequest()),
        ("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="wait")),
        ("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="oracle")),
    ),
    "model-config": (("ModelConfig", pb.ModelConfigRequest(name="wait")),),
    "shared-memory": (
        ("SystemSharedMemoryStatus", pb.SystemSharedMemoryStatusRequest()),
        ("SystemSharedMemoryRegister", pb.SystemSharedMemoryRegisterRequest(name="a", key="/none", byte_size=1)),
        ("SystemSharedMemoryUnregister", pb.SystemSharedMemoryUnregisterRequest(name="a")),
        ("CudaSharedMemoryStatus", pb.CudaSharedMemoryStatusRequest()),
        ("CudaSharedMemoryRegister", pb.CudaSharedMemoryRegisterRequest(name="a", raw_handle=b"0", byte_size=1)),
        ("CudaSharedMemoryUnregister", pb.CudaSharedMemoryUnregisterRequest(name="a")),
    ),
    "statistics": (("ModelStatistics", pb.ModelStatisticsRequest(name="wait")),),
    "trace": (("TraceSetting", pb.TraceSettingRequest()), ("TraceSetting", pb.TraceSettingRequest(model_name="wait"))),
    "logging": (("LogSettings", pb.LogSettingsRequest()),),
}
# And every path of its HTTP; None is a GET, else the body of a POST.
HTTP: dict[str, tuple[tuple[str, dict[str, Any] | None], ...]] = {
    "model-repository": (
        ("/v2/repository/index", {}),
        ("/v2/repository/models/wait/load", {}),
        ("/v2/repository/models/oracle/unload", {}),
    ),
    "model-config": (("/v2/models/wait/config", None), ("/v2/models/wait/versions/1/config", None)),
    "shared-memory": (
        ("/v2/systemsharedmemory/status", None),
        ("/v2/systemsharedmemory/region/a/status", None),
        ("/v2/systemsharedmemory/region/a/register", {"key": "/none", "byte_size": 1}),
        ("/v2/systemsharedmemory/region/a/unregister", {}),
        ("/v2/systemsharedmemory/unregister", {}),
        ("/v2/cudasharedmemory/status", None),
        ("/v2/cudasharedmemory/region/a/register", {"raw_handle": {"b64": "AA=="}, "byte_size": 1, "device_id": 0}),
        ("/v2/cudasharedmemory/unregister", {}),
    ),
    "statistics": (
        ("/v2/models/stats", None),
        ("/v2/models/wait/stats", None),
        ("/v2/models/wait/versions/1/stats", None),
    ),
    "trace": (
        ("/v2/trace/setting", None),
        ("/v2/trace/setting", {"trace_level": ["OFF"]}),
        ("/v2/models/wait/trace/setting", None),
        ("/v2/models/wait/trace/setting", {"trace_level": ["OFF"]}),
    ),
    "logging": (("/v2/logging", None), ("/v2/logging", {"log_info": True})),
}


@pytest.fixture(scope="module")
def toy_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.make_repository(tmp_path_factory.mktemp("toy") / "repository")


def started(**options: Any) -> Iterator[RunningServer]:
    triton = TritonServer()
    with triton:
        yield triton.start(ServeOptions(models=("wait",), **options))
    assert triton.check_left_behind() == []


@pytest.fixture(scope="module")
def closed(toy_repository: Path) -> Iterator[RunningServer]:
    """A server as it comes, but one that logs all that Triton can log."""
    yield from started(model_repository=toy_repository, triton_arguments=("--log-verbose=2",))


@pytest.fixture(scope="module")
def opened(toy_repository: Path) -> Iterator[RunningServer]:
    """A server that leaves one open."""
    yield from started(model_repository=toy_repository, open_apis=("statistics",))


def headers_of(server: RunningServer, key: str) -> Mapping[str, str]:
    right = server.admin_headers[ADMIN_HEADER]
    return {
        "none": {},
        "wrong": {ADMIN_HEADER: right[:-1] + ("a" if right[-1] != "a" else "b")},
        "empty": {ADMIN_HEADER: ""},
        "right": server.admin_headers,
    }[key]


def over_grpc(server: RunningServer, method: str, message: Any, headers: Mapping[str, str]) -> tuple[str, str]:
    """Status and text."""
    with grpc.insecure_channel(server.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        try:
            getattr(stub, method)(message, timeout=20, metadata=tuple(headers.items()))
        except grpc.RpcError as error:
            return error.code().name, error.details()
        return "OK", ""


def over_http(
    server: RunningServer, path: str, body: dict[str, Any] | None, headers: Mapping[str, str]
) -> tuple[int, str]:
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(server.http_url + path, data=data, headers=dict(headers))
    try:
        with urllib.request.urlopen(asked, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("api", GRPC)
def test_over_grpc_only_the_key_opens(closed: RunningServer, api: str, key: str) -> None:
    for method, message in GRPC[api]:
        status, text = over_grpc(closed, method, message, headers_of(closed, key))
        assert (DENIED in text) is (key != "right"), (method, status, text)
        assert (status == "UNAVAILABLE") is (key != "right"), (method, status, text)
        assert closed.admin_headers[ADMIN_HEADER] not in text


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("api", HTTP)
def test_over_http_only_the_key_opens(closed: RunningServer, api: str, key: str) -> None:
    for path, body in HTTP[api]:
        status, text = over_http(closed, path, body, headers_of(closed, key))
        assert (DENIED in text) is (key != "right"), (path, status, text)
        assert (status == 403) is (key != "right"), (path, status, text)
        assert closed.admin_headers[ADMIN_HEADER] not in text


# Other ways to write a path, which a front end and its guard might read differently.
DETOURS: dict[str, Callable[[str], str]] = {
    "trailing slash": lambda path: f"{path}/",
    "double slash": lambda path: f"/{path}",
    "inner double slash": lambda path: path.replace("/v2/", "/v2//"),
    "dot": lambda path: path.replace("/v2/", "/v2/./"),
    "up and down": lambda path: path.replace("/v2/", "/v2/health/../"),
    "encoded slash": lambda path: path.replace("/v2/", "/v2%2f"),
    "encoded letter": lambda path: path.replace("/v2/", "/%76%32/"),
    "capitals": str.upper,
    "query": lambda path: f"{path}?a=b",
    "semicolon": lambda path: f"{path};a=b",
    "fragment": lambda path: f"{path}%23a",
    "absolute": lambda path: f"http://127.0.0.1{path}",
}
METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH")


@pytest.mark.parametrize("detour", DETOURS)
@pytest.mark.parametrize("api", HTTP)
def test_no_detour_over_http_leads_in(closed: RunningServer, api: str, detour: str) -> None:
    for path, body in HTTP[api]:
        for method in METHODS:
            connection = http.client.HTTPConnection(closed.plain_host, closed.http_port, timeout=20)
            connection.request(method, DETOURS[detour](path), body=None if body is None else json.dumps(body))
            status = connection.getresponse().status
            connection.close()
            assert status in {400, 403, 404, 405}, (method, DETOURS[detour](path), status)


def test_the_table_leaves_no_api_and_no_call_out() -> None:
    assert set(GRPC) == set(HTTP) == set(RESTRICTED_APIS)
    everybody = {
        "ServerLive",
        "ServerReady",
        "ModelReady",
        "ServerMetadata",
        "ModelMetadata",
        "ModelInfer",
        "ModelStreamInfer",
    }
    service = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert {method for calls in GRPC.values() for method, _ in calls} | everybody == set(service.methods_by_name)


@pytest.mark.parametrize("api", RESTRICTED_APIS)
def test_an_open_one_is_open_on_both_protocols_and_the_others_are_not(opened: RunningServer, api: str) -> None:
    answers = [over_grpc(opened, method, message, {})[1] for method, message in GRPC[api]]
    answers += [over_http(opened, path, body, {})[1] for path, body in HTTP[api]]
    assert {DENIED in text for text in answers} == {api != "statistics"}


def test_what_everybody_may_do_needs_no_key(closed: RunningServer) -> None:
    for method, message in (
        ("ServerLive", pb.ServerLiveRequest()),
        ("ServerReady", pb.ServerReadyRequest()),
        ("ServerMetadata", pb.ServerMetadataRequest()),
        ("ModelReady", pb.ModelReadyRequest(name="wait")),
        ("ModelMetadata", pb.ModelMetadataRequest(name="wait")),
    ):
        assert over_grpc(closed, method, message, {}) == ("OK", "")
    for path in ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/wait", "/v2/models/wait/ready"):
        assert over_http(closed, path, None, {})[0] == 200
    assert toy.sleep_for(closed.http_url, 0.0) == 0.0


def test_a_key_of_one_server_opens_no_other(closed: RunningServer, opened: RunningServer) -> None:
    assert DENIED in over_grpc(closed, "LogSettings", pb.LogSettingsRequest(), opened.admin_headers)[1]
    assert over_http(closed, "/v2/logging", None, opened.admin_headers)[0] == 403


def test_a_model_that_was_loaded_with_the_key_serves(closed: RunningServer) -> None:
    for change in ("unload", "load"):
        assert over_http(closed, f"/v2/repository/models/wait/{change}", {}, closed.admin_headers)[0] == 200
    assert wait_until(lambda: over_http(closed, "/v2/models/wait/ready", None, {})[0] == 200)


FOUND: dict[str, Callable[[Path], bytes]] = {
    "command line": lambda process: (process / "cmdline").read_bytes(),
    "environment": lambda process: (process / "environ").read_bytes(),
}


@pytest.mark.parametrize("place", FOUND)
def test_no_process_of_a_ready_server_shows_its_key(closed: RunningServer, place: str) -> None:
    key = closed.admin_headers[ADMIN_HEADER].encode()
    members = session_members(closed.pid)
    assert len(members) > 1, "its stubs were not looked at"
    for member in members:
        with suppress(FileNotFoundError, ProcessLookupError):  # a stub of the model that was unloaded, just gone
            assert key not in FOUND[place](Path(f"/proc/{member.pid}")), member


def test_the_place_where_the_key_was_is_starred_out(closed: RunningServer) -> None:
    line = Path(f"/proc/{closed.pid}/cmdline").read_bytes().decode()
    assert re.findall(r"tritonrag-admin=([^\0]*)", line) == ["*" * 43] * 2


def test_neither_the_log_nor_any_file_of_the_server_holds_the_key(closed: RunningServer) -> None:
    key, home = closed.admin_headers[ADMIN_HEADER].encode(), closed.log_path.parent
    files = [path for path in home.rglob("*") if path.is_file()]
    assert closed.log_path in files
    assert not [path for path in files if key in path.read_bytes()]
