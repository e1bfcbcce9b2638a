"""What Triton is started with: our settings and nothing that would confuse it."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from tritonrag.admin_key import AdminKey
from tritonrag.commands.serve import ServeRequest
from tritonrag.launcher import _open_log
from tritonrag.tls import ServerTls
from tritonrag.triton_command import (
    ServeOptions,
    find_model_repository,
    require_profile,
    triton_arguments,
    triton_environment,
)
from tritonrag.triton_home import TritonHome
from tritonrag.triton_parts import TRITON_DIR, TritonParts, find_triton, find_wheel
from tritonrag_backends.run_dir import run_dir
from tritonrag_backends.settings import EmbedderSettings, RetrieverSettings, Settings, load_settings
from tritonrag_client.errors import BadRequestError, NotFoundError

PORTS = {"http": 1, "grpc": 2, "metrics": 3}
Arguments = Callable[[ServeOptions], list[str]]


def make_triton(folder: Path, *backends: str) -> Path:
    """A folder laid out as NVIDIA's images lay Triton out, of empty files."""
    for part in ("bin/tritonserver", "lib/libtritonserver.so", *(f"backends/{name}/lib.so" for name in backends)):
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        (folder / part).touch()
    python = folder / "backends/python"
    (python / "__pycache__").mkdir(parents=True)
    for name in ("libtriton_python.so", "triton_python_backend_utils.py", "triton_python_backend_stub"):
        (python / name).touch()
    return folder


@pytest.fixture
def triton(tmp_path: Path) -> TritonParts:
    return find_triton(make_triton(tmp_path / "triton", "onnxruntime"))


@pytest.fixture
def home(triton: TritonParts) -> Iterator[TritonHome]:
    home = TritonHome(triton)
    yield home
    home.remove()


@pytest.fixture
def arguments(triton: TritonParts, home: TritonHome) -> Arguments:
    return lambda options: triton_arguments(
        options, triton, home, address="127.0.0.1", ports=PORTS, admin_key=AdminKey(value="secret")
    )


def test_only_the_models_asked_for_are_loaded_and_every_service_is_bound_to_the_address(arguments: Arguments) -> None:
    line = arguments(ServeOptions(models=("rag", "retrieve"), drain_timeout_s=7))
    assert {
        "--model-control-mode=explicit",
        "--load-model=rag",
        "--load-model=retrieve",
        "--exit-timeout-secs=7",
    } <= set(line)
    for service, port in PORTS.items():
        assert {f"--{service}-address=127.0.0.1", f"--{service}-port={port}"} <= set(line)


def test_what_an_operator_may_do_is_restricted_on_both_protocols_unless_it_is_opened(arguments: Arguments) -> None:
    for options, closed in ((ServeOptions(), True), (ServeOptions(open_apis=("logging",)), False)):
        flags = [argument for argument in arguments(options) if "restricted" in argument]
        assert [flag.partition("=")[0] for flag in flags] == ["--grpc-restricted-protocol", "--http-restricted-api"]
        assert all("trace" in flag and ("logging" in flag) is closed for flag in flags)


def test_with_tls_only_grpc_leaves_this_machine(triton: TritonParts, home: TritonHome) -> None:
    tls = ServerTls(certificate=Path("/c.pem"), key=Path("/k.pem"))
    options = ServeOptions(tls=tls)
    line = triton_arguments(options, triton, home, address="192.0.2.1", ports=PORTS, admin_key=AdminKey())
    assert {"--grpc-address=192.0.2.1", "--http-address=127.0.0.1", "--metrics-address=127.0.0.1"} <= set(line)
    assert "--grpc-use-ssl=true" in line


def test_neither_the_key_nor_what_opens_it_is_in_the_environment_of_the_models(
    triton: TritonParts, home: TritonHome
) -> None:
    assert not [name for name in triton_environment(ServeOptions(), triton, home, {}) if "ADMIN" in name]


def test_what_a_model_calls_is_loaded_with_it(arguments: Arguments) -> None:
    loads = [argument for argument in arguments(ServeOptions(models=("generator",))) if "load-model" in argument]
    assert loads == ["--load-model=generator", "--load-model=retrieve", "--load-model=embedder"]


def test_triton_serves_the_repository_that_was_rendered_for_it(arguments: Arguments, home: TritonHome) -> None:
    line = arguments(ServeOptions(profile="gpu"))
    assert f"--model-repository={home.models}" in line
    assert not any("config-name" in argument for argument in line), "the rendered repository has one profile"


@pytest.mark.parametrize(("gpus", "allowed"), [(0, False), (2, True)])
def test_gpu_metrics_are_allowed_where_a_gpu_is(
    arguments: Arguments, monkeypatch: pytest.MonkeyPatch, gpus: int, allowed: bool
) -> None:
    monkeypatch.setattr("tritonrag.triton_command.count_gpus", lambda: gpus)
    assert ("--allow-gpu-metrics=false" not in arguments(ServeOptions())) is allowed


def test_a_profile_that_no_model_has_is_refused_rather_than_served_as_cpu(tmp_path: Path) -> None:
    (tmp_path / "embedder").mkdir()
    require_profile(tmp_path, "cpu")
    with pytest.raises(BadRequestError, match=r"--profile is gpu.*--profile cpu"):
        require_profile(tmp_path, "gpu")
    (tmp_path / "embedder/configs").mkdir()
    (tmp_path / "embedder/configs/gpu.pbtxt").touch()
    require_profile(tmp_path, "gpu")


def test_a_log_that_can_not_be_written_is_told_with_its_option(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadRequestError, match=r"file/triton\.log.*--log-file"):
        _open_log(tmp_path / "file" / "triton.log")


def test_the_settings_reach_the_models_and_other_variables_of_ours_do_not(
    triton: TritonParts, home: TritonHome
) -> None:
    settings = Settings(index=Path("/data/index"), embedder=EmbedderSettings(threads=3))
    base = {"TRITONRAG_HTTP_PORT": "8000", "TRITONRAG_EMBEDDER_THREADS": "9", "HOME": "/root", "PATH": "/usr/bin"}
    environment = triton_environment(ServeOptions(settings=settings), triton, home, base)
    assert load_settings(environment).index == Path("/data/index")
    assert load_settings(environment).embedder.threads == 3
    assert "TRITONRAG_HTTP_PORT" not in environment
    assert environment["HOME"] == "/root"
    assert run_dir(environment) == home.run


@pytest.mark.parametrize(
    ("profile", "device", "handed"),
    [("cpu", "auto", "cpu"), ("cpu", "gpu", "gpu"), ("gpu", "auto", "auto"), ("gpu", "cpu", "cpu")],
)
def test_only_in_profile_gpu_does_the_retriever_look_for_gpus_by_itself(
    triton: TritonParts, home: TritonHome, profile: str, device: Literal["auto", "cpu", "gpu"], handed: str
) -> None:
    settings = Settings(retriever=RetrieverSettings(device=device))
    environment = triton_environment(ServeOptions(settings=settings, profile=profile), triton, home, {})
    assert load_settings(environment).retriever.device == handed


def test_the_stubs_get_this_python_and_one_thread_unless_told_otherwise(triton: TritonParts, home: TritonHome) -> None:
    environment = triton_environment(ServeOptions(), triton, home, {"PATH": "/usr/bin", "OPENBLAS_NUM_THREADS": "4"})
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["OPENBLAS_NUM_THREADS"] == "4"


def test_a_home_and_its_folders_are_private_and_go_when_removed(triton: TritonParts) -> None:
    home = TritonHome(triton)
    assert {path.stat().st_mode & 0o777 for path in (home.path, home.run, home.models)} == {0o700}
    home.remove()
    assert not home.path.exists()
    assert triton.stub.exists(), "a link's target was removed with it"


def test_a_home_links_every_backend_and_the_files_of_pythons_one_by_one(home: TritonHome, triton: TritonParts) -> None:
    python = home.backends / "python"
    assert {part.name for part in python.iterdir()} == {
        "libtriton_python.so",
        "triton_python_backend_utils.py",
        "triton_python_backend_stub",
    }
    assert all(part.is_symlink() for part in python.iterdir())
    assert (home.backends / "onnxruntime").resolve() == triton.backends / "onnxruntime"
    assert triton.backend_names() == {"python", "onnxruntime"}


def test_the_installed_wheel_has_every_part() -> None:
    assert find_wheel().stub.is_file()


def test_a_missing_wheel_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(NotFoundError, match="pip install nvidia-pytriton"):
        find_wheel()


class TestTheTritonThatIsStarted:
    @pytest.fixture
    def image(self, tmp_path: Path) -> Path:
        return make_triton(tmp_path / "image", "tensorrt")

    def test_is_the_one_in_the_folder_that_was_given(self, tmp_path: Path, image: Path) -> None:
        given = make_triton(tmp_path / "given")
        found = find_triton(given, environment={TRITON_DIR: str(image)})
        assert found.tritonserver == given / "bin/tritonserver"
        assert found.library_path().split(":").count(str(given / "lib")) == 1

    def test_else_the_one_that_the_environment_names(self, image: Path) -> None:
        assert (
            find_triton(environment={TRITON_DIR: str(image)}).stub == image / "backends/python" / find_wheel().stub.name
        )

    def test_else_the_wheels_even_where_the_image_has_one(self, image: Path) -> None:
        assert find_triton(environment={}, image=image) == find_wheel()

    def test_else_the_images(self, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
        assert find_triton(environment={}, image=image).tritonserver == image / "bin/tritonserver"

    @pytest.mark.parametrize("part", ["bin/tritonserver", "backends/python/triton_python_backend_stub"])
    def test_has_every_part_or_the_missing_one_is_named(self, image: Path, part: str) -> None:
        (image / part).unlink()
        with pytest.raises(NotFoundError, match=rf"{part} is missing.*--triton-dir"):
            find_triton(image)


def test_the_given_repository_counts_else_ours_and_a_missing_one_is_named(tmp_path: Path) -> None:
    assert find_model_repository(tmp_path) == tmp_path
    assert (find_model_repository(None) / "rag" / "config.pbtxt").is_file()
    with pytest.raises(NotFoundError, match="nowhere"):
        find_model_repository(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("fields", "seconds"), [({}, 300), ({"profile": "gpu"}, 1800), ({"profile": "gpu", "ready_timeout_s": 7.0}, 7)]
)
def test_a_start_on_gpus_may_take_longer_unless_told_otherwise(fields: dict[str, Any], seconds: float) -> None:
    assert ServeRequest(**fields).serve_options().ready_timeout_s == seconds
