"""A TensorRT engine of the padded FP16 graph, by the Python package `tensorrt` or by `trtexec`, whichever is there.

One optimisation profile a length bucket: TensorRT picks its kernels for one shape, and a question of 16 tokens wants others than
a passage of 256. Each takes batches of 1 to the most that the server makes, and every length from the bucket below to its own,
so that all lengths up to the longest are served, whatever buckets a server pads to. Kernels are picked for batches of 32: under
load the batcher fills batches, and a lone question costs little on any kernel.

The API is that of TensorRT 10 and 11, where the graph's own types hold (11 knows no other networks; 10 is told so).
What TensorRT measured while it built is kept in a file, for the next build on the same kind of GPU.
"""

import importlib
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from tritonrag_backends.embedding.format import PlanRecord
from tritonrag_client.contract import ATTENTION_MASK, INPUT_IDS
from tritonrag_client.errors import InternalError, NotFoundError

_INPUTS: Final = (INPUT_IDS, ATTENTION_MASK)
_TUNED_BATCH: Final = 32
_VERSION_IN_LOG: Final = re.compile(r"\[TensorRT v(\d+)\]")
_ERRORS_TOLD: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOrder:
    """What is to be built: the graph at `onnx` into `plan`, for texts of up to `buckets[-1]` tokens and `max_batch` rows a call."""

    onnx: Path
    plan: Path
    timing_cache: Path
    buckets: tuple[int, ...]
    max_batch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The shapes [batch, tokens] of both inputs: the least, those that kernels are picked for, the most."""

    least: tuple[int, int]
    tuned: tuple[int, int]
    most: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """The GPU on which engines are built and for which alone they work."""

    name: str
    compute_capability: str


def profiles_of(buckets: Sequence[int], max_batch: int) -> tuple[Profile, ...]:
    """A profile for each bucket, in order; `buckets` are ascending."""
    tuned = min(_TUNED_BATCH, max_batch)
    return tuple(
        Profile(least=(1, below + 1), tuned=(tuned, bucket), most=(max_batch, bucket))
        for below, bucket in pairwise((0, *buckets))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanBuilder:
    """What builds engines here: the package `tensorrt` where it can be imported, else the program at `trtexec`."""

    gpu: Gpu
    tensorrt: Any | None
    trtexec: str | None

    @classmethod
    def find(cls) -> "PlanBuilder":
        """Raises NotFoundError where there is no GPU or neither of the two."""
        tensorrt, trtexec = _import_tensorrt(), shutil.which("trtexec")
        if tensorrt is None and trtexec is None:
            raise NotFoundError(
                "--to tensorrt needs the Python package tensorrt (pip install tensorrt, on a machine with an NVIDIA GPU) or "
                "trtexec on the PATH, as NVIDIA's TensorRT image has it, and neither is here; --to onnx-fp16 needs neither: "
                "Triton's ONNX Runtime backend lets TensorRT build the engine when the server starts"
            )
        return cls(gpu=find_gpu(), tensorrt=tensorrt, trtexec=trtexec)

    def build(self, order: PlanOrder) -> PlanRecord:
        """Build the engine, which takes minutes. Raises InternalError with TensorRT's words where it fails."""
        if self.tensorrt is not None:
            version = _build_by_package(self.tensorrt, order)
        else:
            version = _build_by_trtexec(str(self.trtexec), order)
        if not order.plan.is_file() or not order.plan.stat().st_size:
            raise InternalError(f"TensorRT {version} wrote no engine; build it again, or export with --to onnx-fp16")
        return PlanRecord(
            tensorrt=version,
            gpu=self.gpu.name,
            compute_capability=self.gpu.compute_capability,
            buckets=order.buckets,
            max_batch=order.max_batch,
        )


def find_gpu() -> Gpu:
    """The first GPU that this process may use, by nvidia-smi. Raises NotFoundError where there is none."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        raise NotFoundError(
            "there is no GPU to build an engine for: nvidia-smi is not on the PATH; run this on a machine with one"
        )
    # The numbers in it are nvidia-smi's where CUDA orders devices by their bus (CUDA_DEVICE_ORDER), or where there is one kind.
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if not first:
        raise NotFoundError("there is no GPU to build an engine for: CUDA_VISIBLE_DEVICES is set and names none")
    command = [tool, "--query-gpu=name,compute_cap", "--format=csv,noheader", "-i", first]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    name, comma, capability = result.stdout.strip().rpartition(", ")
    if result.returncode or not comma:
        raise NotFoundError(
            f"there is no GPU to build an engine for: nvidia-smi says {(result.stdout + result.stderr).strip()[:200]!r}; "
            "run this on a machine with one"
        )
    return Gpu(name=name, compute_capability=capability)


def trtexec_command(executable: str, order: PlanOrder) -> list[str]:
    """The words that make trtexec build what is ordered and measure nothing."""
    command = [
        executable,
        f"--onnx={order.onnx}",
        f"--saveEngine={order.plan}",
        f"--timingCacheFile={order.timing_cache}",
        "--stronglyTyped",  # TensorRT 11 takes it without a word: there it is always so
        "--noTF32",
        "--skipInference",
    ]
    for number, profile in enumerate(profiles_of(order.buckets, order.max_batch)):
        command.append(f"--profile={number}")
        for option, shape in (("min", profile.least), ("opt", profile.tuned), ("max", profile.most)):
            spec = ",".join(f"{name}:{shape[0]}x{shape[1]}" for name in _INPUTS)
            command.append(f"--{option}Shapes={spec}")
    return command


def version_in_log(log: str) -> str:
    """TensorRT's version out of trtexec's banner: v101303 is 10.13.3. Raises InternalError where it has none."""
    found = _VERSION_IN_LOG.search(log)
    if found is None:
        raise InternalError("trtexec did not tell its version; is the trtexec on the PATH that of TensorRT 10 or 11?")
    number = int(found[1])
    return f"{number // 10_000}.{number // 100 % 100}.{number % 100}"


def _import_tensorrt() -> Any | None:  # noqa: ANN401  # a module without types
    try:
        return importlib.import_module("tensorrt")
    except (ImportError, OSError):  # the package is not there, or the libraries that it loads are not
        return None


def _build_by_trtexec(executable: str, order: PlanOrder) -> str:
    result = subprocess.run(
        trtexec_command(executable, order), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if result.returncode:
        raise _failed([line for line in result.stdout.splitlines() if "[E]" in line] or result.stdout.splitlines()[-1:])
    return version_in_log(result.stdout)


def _build_by_package(trt: Any, order: PlanOrder) -> str:  # noqa: ANN401
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(order.onnx)):
        raise _failed([str(parser.get_error(number)) for number in range(parser.num_errors)])
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    _begin_with_timings(config, order.timing_cache.read_bytes() if order.timing_cache.is_file() else b"")
    for wanted in profiles_of(order.buckets, order.max_batch):
        profile = builder.create_optimization_profile()
        for name in _INPUTS:
            profile.set_shape(name, wanted.least, wanted.tuned, wanted.most)
        config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _failed(["it built no engine; its messages stand above"])
    order.plan.write_bytes(memoryview(plan))
    order.timing_cache.write_bytes(memoryview(config.get_timing_cache().serialize()))
    return str(trt.__version__)


def _begin_with_timings(config: Any, known: bytes) -> None:  # noqa: ANN401
    """Let the builder use what was measured before; where that was another GPU or version, TensorRT refuses it: then nothing."""
    cache = config.create_timing_cache(known)
    if cache is None or not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _failed(words: Sequence[str]) -> InternalError:
    told = "; ".join(words[:_ERRORS_TOLD])
    return InternalError(f"TensorRT could not build the engine: {told}; --to onnx-fp16 exports the graph without it")
