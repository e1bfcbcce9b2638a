"""The doctor's look at Triton and what it would serve: its libraries and backends, perf_analyzer, embedding model, index."""

import os
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from tritonrag.checks import Check
from tritonrag.encoder_choice import choose_encoder
from tritonrag.gpus import count_gpus
from tritonrag.instances import GPU_PROFILE, Machine
from tritonrag.preflight import look_at, look_at_embedder, look_at_generator
from tritonrag.triton_parts import TritonParts, find_triton
from tritonrag_backends.index.store import read_current
from tritonrag_backends.settings import Settings
from tritonrag_client.errors import RagError

_PROBE_TIMEOUT_S = 30


def triton_checks(settings: Settings, triton_dir: Path | None = None) -> Iterator[Check]:
    """All of them; what hangs on a missing Triton is left out."""
    try:
        triton = find_triton(triton_dir)
    except RagError as error:
        problem, _, advice = error.message.partition("; ")
        yield Check(name="Triton", status="fail", found=problem, advice=advice)
        backends = frozenset[str]()
    else:
        yield binary_check(triton)
        yield libraries_check("stub", triton.stub, triton)
        yield libraries_check("Python backend", triton.python_backend / "libtriton_python.so", triton)
        backends = triton.backend_names()
        yield Check(name="backends", status="ok", found=", ".join(sorted(backends)))
    yield perf_analyzer_check(Path(sysconfig.get_path("scripts")) / "perf_analyzer")
    yield embedder_check(settings)
    yield encoder_check(settings, backends)
    yield index_check(settings)
    yield generator_check(settings)


def binary_check(triton: TritonParts) -> Check:
    """Whether tritonserver runs at all."""
    try:
        answer = _run([str(triton.tritonserver), "--help"], triton)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check(name="Triton", status="fail", found=f"{triton.tritonserver}: {error}", advice=triton.advice)
    if "--model-repository" in answer.stdout + answer.stderr:  # its usage goes to stderr, and its status is 1
        return Check(name="Triton", status="ok", found=str(triton.tritonserver))
    said = (answer.stderr or answer.stdout).strip().splitlines()
    found = f"{triton.tritonserver} does not run: {said[0] if said else f'status {answer.returncode}'}"
    return Check(name="Triton", status="fail", found=found, advice=triton.advice)


def libraries_check(name: str, binary: Path, triton: TritonParts) -> Check:
    """Whether every library that a part of Triton is linked with can be found."""
    try:
        answer = _run(["ldd", str(binary)], triton)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check(
            name=name, status="warn", found=f"ldd: {error}", advice="install ldd (libc-bin) to check the libraries"
        )
    missing = [line.split()[0] for line in answer.stdout.splitlines() if "not found" in line]
    if not missing:
        return Check(name=name, status="ok", found=str(binary))
    python = next((library for library in missing if library.startswith("libpython")), None)
    advice = triton.advice
    if python is not None:
        advice = (
            f"this Python was built without {python}: use one with --enable-shared, or install libpython of the system"
        )
    return Check(name=name, status="fail", found=f"{binary} lacks {', '.join(missing)}", advice=advice)


def perf_analyzer_check(program: Path) -> Check:
    """Whether the benchmarks can run; nothing else needs it."""
    if os.access(program, os.X_OK):
        return Check(name="perf_analyzer", status="ok", found=str(program))
    advice = "for benchmarks only: pip install 'tritonclient[all]==2.51.0'"
    return Check(name="perf_analyzer", status="warn", found="not there", advice=advice)


def embedder_check(settings: Settings) -> Check:
    """Whether the embedding model was exported."""
    try:
        model = look_at_embedder(settings)
    except RagError as error:
        return _not_made("embedder", error, "tritonrag export embedder")
    return Check(name="embedder", status="ok", found=f"{settings.embedder.model}: {model.name}, {model.dim} dimensions")


def encoder_check(settings: Settings, backends: frozenset[str]) -> Check:
    """What would run the encoder in profile gpu, which a machine without a GPU has no need of."""
    try:
        choice = choose_encoder(settings, Machine.of(GPU_PROFILE, count_gpus()), backends)
    except RagError as error:
        problem, _, advice = error.message.partition("; ")
        return Check(name="encoder", status="warn", found=f"profile gpu: {problem}", advice=advice)
    return Check(name="encoder", status="ok", found=f"profile gpu: {choice.describe()}")


def index_check(settings: Settings) -> Check:
    """Whether there is an index, and of this embedding model."""
    try:
        index = read_current(settings.index)
        if embedder_check(settings).status == "ok":
            look_at(settings)
    except RagError as error:
        return _not_made("index", error, "tritonrag index build PATH...")
    found = f"{settings.index}: version {index.index_version}, {index.counts.passages:,} passages"
    return Check(name="index", status="ok", found=found)


def generator_check(settings: Settings) -> Check:
    """Whether what the engine needs is there, as far as that can be seen without opening it."""
    try:
        found = look_at_generator(settings)
    except RagError as error:
        problem, _, advice = error.message.partition("; ")
        return Check(name="generator", status="warn", found=problem, advice=advice)
    return Check(name="generator", status="ok", found=found)


def _not_made(name: str, error: RagError, command: str) -> Check:
    """A warning: what can still be made is no fault of the machine."""
    return Check(name=name, status="warn", found=error.message.partition(";")[0], advice=command)


def _run(command: list[str], triton: TritonParts) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LD_LIBRARY_PATH": triton.library_path()}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=False
    )
