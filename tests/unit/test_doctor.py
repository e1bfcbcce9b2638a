"""The doctor names what is amiss and says what to do; what is well needs no advice."""

import socket
from pathlib import Path

import pytest
from tests.unit.deploy_dockerfile import parse_command

from tritonrag import machine_checks as machine
from tritonrag import triton_checks as triton
from tritonrag.checks import Check
from tritonrag.commands import doctor
from tritonrag.triton_parts import TritonParts, find_wheel
from tritonrag_backends.embedding.format import EmbedderManifest, Parity
from tritonrag_backends.settings import EmbedderSettings, Settings


def make_embedder(folder: Path) -> Path:
    folder.mkdir()
    EmbedderManifest(
        name="toy",
        architecture="none",
        dim=2,
        max_tokens=8,
        pooling="mean",
        fingerprint="f" * 64,
        files={},
        parity=Parity(texts=1, fp32_max_abs_difference=0.0, int8_min_cosine=1.0, int8_mean_cosine=1.0),
    ).save(folder)
    return folder


def has_advice(check: Check) -> bool:
    return bool(check.advice)


@pytest.mark.parametrize(
    ("version", "status"), [((3, 10), "fail"), ((3, 11), "ok"), ((3, 12), "ok"), ((3, 13), "fail")]
)
def test_python_is_one_of_those_that_we_are_tested_with(version: tuple[int, int], status: str) -> None:
    check = machine.python_check(version, "/usr/bin/python3")
    assert check.status == status
    assert has_advice(check) is (status != "ok")


@pytest.mark.parametrize(
    ("library", "version", "processor", "status"),
    [
        ("glibc", "2.36", "x86_64", "ok"),
        ("glibc", "2.35", "x86_64", "ok"),
        ("glibc", "2.31", "x86_64", "fail"),
        ("glibc", "2.36", "aarch64", "fail"),
        ("", "", "x86_64", "fail"),
        ("glibc", "strange", "x86_64", "fail"),
    ],
)
def test_the_c_library_can_run_the_wheel(library: str, version: str, processor: str, status: str) -> None:
    assert machine.glibc_check(library, version, machine=processor).status == status


@pytest.mark.parametrize(("gib", "status"), [(8.0, "ok"), (1.0, "warn"), (0.2, "fail")])
def test_memory_is_graded(gib: float, status: str) -> None:
    check = machine.memory_check(int(gib * machine.GIB))
    assert check.status == status
    assert has_advice(check) is (status != "ok")


def test_available_memory_is_read_from_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  100 kB\nMemAvailable:   42 kB\n")
    assert machine.available_bytes(tmp_path / "meminfo") == 42 * 1024
    assert machine.available_bytes() > 0


def test_missing_shared_memory_fails(tmp_path: Path) -> None:
    assert machine.shared_memory_check(tmp_path / "shm").status == "fail"


def test_the_disk_is_looked_at_where_the_folder_will_be(tmp_path: Path) -> None:
    assert str(tmp_path / "not" / "yet") in machine.disk_check(tmp_path / "not" / "yet").found


def test_a_taken_port_is_a_warning_with_the_way_out() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        check = machine.port_check("grpc", taken.getsockname()[1])
    assert check.status == "warn"
    assert "--grpc-port 0" in check.advice


@pytest.mark.usefixtures("nothing_set")
def test_the_ports_that_are_looked_at_are_those_that_serve_takes() -> None:
    options = parse_command(["serve"])
    taken = {name.removesuffix("_port"): value for name, value in options.items() if name.endswith("_port")}
    assert taken == doctor.PORTS


def test_no_gpu_is_fine() -> None:
    assert machine.gpu_check(None).status == "ok"


@pytest.mark.parametrize(
    ("script", "status", "found"),
    [
        ("echo 'NVIDIA H200, 143771 MiB, 570.1'", "ok", "NVIDIA H200, 143771 MiB, 570.1"),
        ("echo 'driver mismatch'; exit 9", "warn", "driver mismatch"),
    ],
)
def test_a_gpu_is_named_and_a_broken_driver_is_told(tmp_path: Path, script: str, status: str, found: str) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    check = machine.gpu_check(str(program))
    assert check.status == status
    assert found in check.found


def test_the_installed_triton_runs_and_finds_its_libraries() -> None:
    wheel = find_wheel()
    assert triton.binary_check(wheel).status == "ok"
    assert triton.libraries_check("stub", wheel.stub, wheel).status == "ok"


def test_a_triton_that_does_not_run_fails_with_what_it_said(tmp_path: Path) -> None:
    program = tmp_path / "tritonserver"
    program.write_text("#!/bin/sh\necho 'libfoo.so: cannot open' >&2\nexit 127\n")
    program.chmod(0o700)
    wheel = TritonParts(
        tritonserver=program, backends=tmp_path, caches=tmp_path, stub=tmp_path, libraries=tmp_path, advice="reinstall"
    )
    check = triton.binary_check(wheel)
    assert check.status == "fail"
    assert "libfoo.so" in check.found


def test_a_stub_whose_libraries_are_not_found_fails_by_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ldd = tmp_path / "ldd"
    ldd.write_text("#!/bin/sh\necho '\tlibpython3.11.so.1.0 => not found'\n")
    ldd.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    check = triton.libraries_check("stub", Path("/bin/true"), find_wheel())
    assert check.status == "fail"
    assert "libpython3.11.so.1.0" in check.found
    assert "--enable-shared" in check.advice


def test_a_missing_perf_analyzer_is_only_a_warning(tmp_path: Path) -> None:
    assert triton.perf_analyzer_check(tmp_path / "perf_analyzer").status == "warn"


def test_a_missing_embedder_and_index_are_warnings_that_name_the_command(tmp_path: Path) -> None:
    settings = Settings(index=tmp_path / "index", embedder=EmbedderSettings(model=tmp_path / "embedder"))
    embedder, index = triton.embedder_check(settings), triton.index_check(settings)
    assert (embedder.status, index.status) == ("warn", "warn")
    assert "tritonrag export embedder" in embedder.advice
    assert "tritonrag index build" in index.advice


def test_what_would_run_the_encoder_is_told_and_without_a_gpu_that_is_the_stand_in(tmp_path: Path) -> None:
    settings = Settings(embedder=EmbedderSettings(model=make_embedder(tmp_path / "embedder")))
    check = triton.encoder_check(settings, frozenset({"python", "onnxruntime"}))
    assert (check.status, check.found) == ("ok", "profile gpu: the Python model, on the CPU")


def test_an_encoder_that_lacks_its_file_is_a_warning_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton, "count_gpus", lambda: 1)
    settings = Settings(embedder=EmbedderSettings(model=make_embedder(tmp_path / "embedder")))
    check = triton.encoder_check(settings, frozenset({"python"}))
    assert check.status == "warn"
    assert "tritonrag export embedder --to onnx-fp16" in check.advice


def test_tritons_backends_are_named() -> None:
    (check,) = (check for check in triton.triton_checks(Settings()) if check.name == "backends")
    assert "python" in check.found


def test_a_triton_that_is_not_whole_fails_with_the_missing_part(tmp_path: Path) -> None:
    check = next(triton.triton_checks(Settings(), tmp_path))
    assert (check.status, check.name) == ("fail", "Triton")
    assert "bin/tritonserver is missing" in check.found
    assert "--triton-dir" in check.advice


def test_gpus_without_nvidia_smi_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "count_gpus", lambda: 2)
    assert machine.gpu_check(None).found.startswith("2 visible")
