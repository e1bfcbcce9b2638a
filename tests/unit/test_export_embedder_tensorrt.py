"""Ordering a TensorRT engine: what TensorRT is told, and what people are told where there is none. TensorRT itself is not here."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorrt_stand_in import StandIn
from tiny_embedders import change, write_tiny_bert

from tritonrag_backends.embedding.encoder import Encoder
from tritonrag_backends.embedding.format import EmbedderManifest, PlanRecord
from tritonrag_client.errors import BadRequestError, InternalError, NotFoundError
from tritonrag_export.embedder import tensorrt_builder
from tritonrag_export.embedder.exporter import ExportOptions, export_embedder
from tritonrag_export.embedder.tensorrt_builder import (
    Gpu,
    PlanBuilder,
    PlanOrder,
    find_gpu,
    profiles_of,
    trtexec_command,
    version_in_log,
)

GPU = Gpu(name="NVIDIA H100 80GB HBM3", compute_capability="9.0")
Program = Callable[[str, str], Path]

ascending = st.lists(st.integers(1, 2000), min_size=1, max_size=8, unique=True).map(sorted)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Puts a program of this name on a PATH that holds nothing else; a shell script that keeps its arguments; gives where."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def put(name: str, script: str) -> Path:
        path = folder / name
        # One argument a line: none of ours has a line end.
        path.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{folder}/{name}.arguments"\n{script}\n')
        path.chmod(0o755)
        return folder / f"{name}.arguments"

    return put


@pytest.fixture
def order(tmp_path: Path) -> PlanOrder:
    (tmp_path / "encoder.onnx").write_bytes(b"a graph")
    return PlanOrder(
        onnx=tmp_path / "encoder.onnx",
        plan=tmp_path / "encoder.plan",
        timing_cache=tmp_path / "kept.timing",
        buckets=(16, 64),
        max_batch=64,
    )


@given(buckets=ascending, max_batch=st.integers(1, 256))
def test_every_shape_that_a_server_may_send_has_exactly_one_profile(buckets: list[int], max_batch: int) -> None:
    profiles = profiles_of(buckets, max_batch)
    for tokens in range(1, buckets[-1] + 1):
        for batch in (1, max_batch):
            fitting = [
                number
                for number, profile in enumerate(profiles)
                if profile.least[0] <= batch <= profile.most[0] and profile.least[1] <= tokens <= profile.most[1]
            ]
            assert len(fitting) == 1


@given(buckets=ascending, max_batch=st.integers(1, 256))
def test_kernels_are_picked_for_texts_that_fill_their_bucket(buckets: list[int], max_batch: int) -> None:
    for bucket, profile in zip(buckets, profiles_of(buckets, max_batch), strict=True):
        assert profile.tuned[1] == profile.most[1] == bucket
        assert 1 <= profile.tuned[0] <= profile.most[0] == max_batch


def test_trtexec_is_told_of_every_profile_and_of_nothing_that_was_not_ordered(order: PlanOrder) -> None:
    assert trtexec_command("/opt/trtexec", order) == [
        "/opt/trtexec",
        f"--onnx={order.onnx}",
        f"--saveEngine={order.plan}",
        f"--timingCacheFile={order.timing_cache}",
        "--stronglyTyped",
        "--noTF32",
        "--skipInference",
        "--profile=0",
        "--minShapes=input_ids:1x1,attention_mask:1x1",
        "--optShapes=input_ids:32x16,attention_mask:32x16",
        "--maxShapes=input_ids:64x16,attention_mask:64x16",
        "--profile=1",
        "--minShapes=input_ids:1x17,attention_mask:1x17",
        "--optShapes=input_ids:32x64,attention_mask:32x64",
        "--maxShapes=input_ids:64x64,attention_mask:64x64",
    ]


def test_trtexec_builds_where_there_is_no_package(program: Program, order: PlanOrder) -> None:
    arguments = program(
        "trtexec", f'echo "&&&& RUNNING TensorRT.trtexec [TensorRT v101303] [b9]"; echo engine > "{order.plan}"'
    )
    program("nvidia-smi", 'echo "NVIDIA H100 80GB HBM3, 9.0"')
    record = PlanBuilder.find().build(order)
    assert record == PlanRecord(
        tensorrt="10.13.3", gpu=GPU.name, compute_capability="9.0", buckets=(16, 64), max_batch=64
    )
    assert arguments.read_text().splitlines() == trtexec_command("trtexec", order)[1:]


def test_what_trtexec_complains_of_is_told(program: Program, order: PlanOrder) -> None:
    program("trtexec", 'echo "[I] starting"; echo "[E] Error[9]: no such operator" ; exit 1')
    program("nvidia-smi", 'echo "A card, 9.0"')
    with pytest.raises(
        InternalError, match=r"could not build the engine: \[E\] Error\[9\]: no such operator; --to onnx"
    ):
        PlanBuilder.find().build(order)


def test_a_trtexec_that_writes_nothing_is_found_out(program: Program, order: PlanOrder) -> None:
    program("trtexec", 'echo "[TensorRT v110400]"')
    program("nvidia-smi", 'echo "A card, 9.0"')
    with pytest.raises(InternalError, match=r"TensorRT 11\.4\.0 wrote no engine"):
        PlanBuilder.find().build(order)


def test_a_banner_without_a_version_is_told() -> None:
    with pytest.raises(InternalError, match="did not tell its version"):
        version_in_log("hello")


def test_the_package_builds_a_strongly_typed_network_with_every_profile(order: PlanOrder) -> None:
    tensorrt = StandIn()
    record = PlanBuilder(gpu=GPU, tensorrt=tensorrt, trtexec=None).build(order)
    (config,) = tensorrt.built
    assert [profile.shapes for profile in config.profiles] == [
        dict.fromkeys(("input_ids", "attention_mask"), ((1, 1), (32, 16), (64, 16))),
        dict.fromkeys(("input_ids", "attention_mask"), ((1, 17), (32, 64), (64, 64))),
    ]
    assert config.cleared == ["TF32"]
    assert order.plan.read_bytes() == b"engine"
    assert record == PlanRecord(
        tensorrt="11.4.0.106", gpu=GPU.name, compute_capability="9.0", buckets=(16, 64), max_batch=64
    )


def test_what_was_measured_is_kept_for_the_next_build(order: PlanOrder) -> None:
    builder = PlanBuilder(gpu=GPU, tensorrt=StandIn(), trtexec=None)
    builder.build(order)
    builder.build(order)
    assert order.timing_cache.read_bytes() == b"+measured+measured"


@pytest.mark.parametrize("found", [b"another GPU", b"garbage"])
def test_timings_that_tensorrt_refuses_are_begun_anew(order: PlanOrder, found: bytes) -> None:
    order.timing_cache.write_bytes(found)
    PlanBuilder(gpu=GPU, tensorrt=StandIn(), trtexec=None).build(order)
    assert order.timing_cache.read_bytes() == b"+measured"


@pytest.mark.parametrize(
    ("tensorrt", "message"),
    [
        (StandIn(parser_errors=("node 3: no importer", "node 4: neither")), "node 3: no importer; node 4: neither;"),
        (StandIn(plan=None), "it built no engine"),
    ],
)
def test_what_the_package_complains_of_is_told(order: PlanOrder, tensorrt: StandIn, message: str) -> None:
    with pytest.raises(InternalError, match=message):
        PlanBuilder(gpu=GPU, tensorrt=tensorrt, trtexec=None).build(order)
    assert not order.plan.exists()


def test_where_neither_is_installed_the_way_out_is_told(program: Program) -> None:
    program("nvidia-smi", 'echo "A card, 9.0"')
    with pytest.raises(
        NotFoundError, match=r"needs the Python package tensorrt .* or trtexec .* --to onnx-fp16 needs neither"
    ):
        PlanBuilder.find()


def test_a_package_whose_libraries_are_missing_is_as_good_as_none(
    program: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program("nvidia-smi", 'echo "A card, 9.0"')
    (tmp_path / "tensorrt.py").write_text("raise OSError('libnvinfer.so.11: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(NotFoundError, match="neither is here"):
        PlanBuilder.find()


def test_without_a_gpu_nothing_is_built(program: Program) -> None:
    program("trtexec", "exit 0")
    with pytest.raises(NotFoundError, match="no GPU to build an engine for: nvidia-smi is not on the PATH"):
        PlanBuilder.find()
    program("nvidia-smi", 'echo "No devices were found"; exit 6')
    with pytest.raises(NotFoundError, match="nvidia-smi says 'No devices were found'"):
        PlanBuilder.find()


def test_the_gpu_is_the_first_that_this_process_may_use(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = program("nvidia-smi", 'echo "NVIDIA H200, 9.0"')
    assert find_gpu() == Gpu(name="NVIDIA H200", compute_capability="9.0")
    assert arguments.read_text().split()[-2:] == ["-i", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    find_gpu()
    assert arguments.read_text().split()[-2:] == ["-i", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(NotFoundError, match="CUDA_VISIBLE_DEVICES is set and names none"):
        find_gpu()


@pytest.fixture
def tiny_bert(tmp_path: Path) -> Path:
    return write_tiny_bert(tmp_path / "tiny")


@pytest.fixture
def with_tensorrt(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    tensorrt = StandIn()
    builder = PlanBuilder(gpu=GPU, tensorrt=tensorrt, trtexec=None)
    monkeypatch.setattr(tensorrt_builder.PlanBuilder, "find", classmethod(lambda _: builder))
    return tensorrt


def test_an_export_to_tensorrt_keeps_the_engine_with_its_facts_and_the_timings_beside(
    tiny_bert: Path, tmp_path: Path, with_tensorrt: StandIn
) -> None:
    output = tmp_path / "out"
    manifest = export_embedder(tiny_bert, output, options=ExportOptions(target="tensorrt", buckets="4,8,99"))
    assert (output / "encoder.plan").read_bytes() == with_tensorrt.plan
    assert EmbedderManifest.load(output) == manifest
    assert manifest.plan is not None
    assert manifest.plan.buckets == (4, 8, 16)  # the model reads 16 tokens
    assert (tmp_path / "out.timing").is_file()
    assert Encoder.open(output).encode(["abc"]).vectors.shape == (1, 32)  # and CPUs are served as before


def test_buckets_that_are_none_are_refused_before_any_work(
    tiny_bert: Path, tmp_path: Path, with_tensorrt: StandIn
) -> None:
    with pytest.raises(BadRequestError, match="'64,16'"):
        export_embedder(tiny_bert, tmp_path / "out", options=ExportOptions(target="tensorrt", buckets="64,16"))
    assert with_tensorrt.built == []
    assert not (tmp_path / "out").exists()


def test_a_machine_without_tensorrt_is_told_before_any_work_and_nothing_is_written(
    tiny_bert: Path, tmp_path: Path, program: Program
) -> None:
    program("something-else", "exit 0")
    with pytest.raises(NotFoundError, match="neither is here"):
        export_embedder(tiny_bert, tmp_path / "out", options=ExportOptions(target="tensorrt"))
    assert not (tmp_path / "out").exists()


def test_a_manifest_with_a_spoilt_plan_is_damage(tiny_bert: Path, tmp_path: Path, with_tensorrt: StandIn) -> None:
    del with_tensorrt
    export_embedder(tiny_bert, tmp_path / "out", options=ExportOptions(target="tensorrt"))
    change(tmp_path / "out" / "embedder.json", plan={"tensorrt": "11"})
    with pytest.raises(InternalError, match="damaged"):
        EmbedderManifest.load(tmp_path / "out")
