"""What Triton is started with: our settings and nothing that would confuse it."""

import os
import sys
from pathlib import Path

import pytest

from tritonrag.launcher import _open_log
from tritonrag.triton_command import (
    ServeOptions,
    find_model_repository,
    require_profile,
    triton_arguments,
    triton_environment,
)
from tritonrag.triton_home import TritonHome, TritonWheel, find_wheel
from tritonrag_backends.settings import EmbedderSettings, Settings, load_settings
from tritonrag_client.errors import BadRequestError, NotFoundError

PORTS = {"http": 1, "grpc": 2, "metrics": 3}


@pytest.fixture
def wheel(tmp_path: Path) -> TritonWheel:
    backend = tmp_path / "wheel" / "python"
    (backend / "__pycache__").mkdir(parents=True)
    (backend / "libtriton_python.so").touch()
    stub = tmp_path / "wheel" / "triton_python_backend_stub"
    stub.touch()
    folder = tmp_path / "wheel"
    return TritonWheel(
        tritonserver=folder / "tritonserver", python_backend=backend, caches=folder, stub=stub, libraries=folder
    )


def arguments(wheel: TritonWheel, options: ServeOptions) -> list[str]:
    home = TritonHome(wheel)
    try:
        return triton_arguments(options, wheel, home, address="127.0.0.1", ports=PORTS)
    finally:
        home.remove()


def test_only_the_models_asked_for_are_loaded_and_every_service_is_bound_to_the_address(
    wheel: TritonWheel, tmp_path: Path
) -> None:
    line = arguments(wheel, ServeOptions(model_repository=tmp_path, models=("rag", "retrieve"), drain_timeout_s=7))
    assert {
        "--model-control-mode=explicit",
        "--load-model=rag",
        "--load-model=retrieve",
        "--exit-timeout-secs=7",
    } <= set(line)
    for service, port in PORTS.items():
        assert {f"--{service}-address=127.0.0.1", f"--{service}-port={port}"} <= set(line)


def test_a_profile_other_than_cpu_names_its_configurations(wheel: TritonWheel, tmp_path: Path) -> None:
    assert "--model-config-name=gpu" in arguments(wheel, ServeOptions(model_repository=tmp_path, profile="gpu"))
    assert not any("config-name" in argument for argument in arguments(wheel, ServeOptions(model_repository=tmp_path)))


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


def test_the_settings_reach_the_models_and_other_variables_of_ours_do_not(wheel: TritonWheel) -> None:
    settings = Settings(index=Path("/data/index"), embedder=EmbedderSettings(threads=3))
    base = {"TRITONRAG_HTTP_PORT": "8000", "TRITONRAG_EMBEDDER_THREADS": "9", "HOME": "/root", "PATH": "/usr/bin"}
    environment = triton_environment(ServeOptions(settings=settings), wheel, base)
    assert load_settings(environment).index == Path("/data/index")
    assert load_settings(environment).embedder.threads == 3
    assert "TRITONRAG_HTTP_PORT" not in environment
    assert environment["HOME"] == "/root"


def test_the_stubs_get_this_python_and_one_thread_unless_told_otherwise(wheel: TritonWheel) -> None:
    environment = triton_environment(ServeOptions(), wheel, {"PATH": "/usr/bin", "OPENBLAS_NUM_THREADS": "4"})
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["OPENBLAS_NUM_THREADS"] == "4"


def test_a_home_is_private_links_the_files_of_the_backend_and_goes_when_removed(wheel: TritonWheel) -> None:
    home = TritonHome(wheel)
    assert home.path.stat().st_mode & 0o777 == 0o700
    python = home.backends / "python"
    assert {part.name for part in python.iterdir()} == {"libtriton_python.so", "triton_python_backend_stub"}
    assert all(part.is_symlink() for part in python.iterdir())
    home.remove()
    assert not home.path.exists()


def test_the_installed_wheel_has_every_part() -> None:
    assert find_wheel().stub.is_file()


def test_a_missing_wheel_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(NotFoundError, match="pip install nvidia-pytriton"):
        find_wheel()


def test_the_given_repository_counts_else_ours_and_a_missing_one_is_named(tmp_path: Path) -> None:
    assert find_model_repository(tmp_path) == tmp_path
    assert (find_model_repository(None) / "rag" / "config.pbtxt").is_file()
    with pytest.raises(NotFoundError, match="nowhere"):
        find_model_repository(tmp_path / "nowhere")
