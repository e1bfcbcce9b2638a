"""What a server is given to serve: the source's files as they are, with the settings' instances on the GPUs that there are."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from model_repository_checks import flaws

from tritonrag.encoder_choice import choose_encoder
from tritonrag.instances import Instances, Machine, instances_of, searches_on_gpus
from tritonrag.repository import Rendering, prepare, read_config, render
from tritonrag.triton_command import CHECKOUT_REPOSITORY, ServeOptions
from tritonrag.triton_home import TritonHome
from tritonrag.triton_parts import find_wheel
from tritonrag_backends.embedding.format import ENCODER_FILE, PLAN_FILE, EmbedderManifest, Parity, PlanRecord
from tritonrag_backends.generation.genai.settings import GenaiSettings
from tritonrag_backends.generation.tensorrt_llm.settings import TrtllmSettings
from tritonrag_backends.model_folder import record_file
from tritonrag_backends.models.threads import count_instances
from tritonrag_backends.settings import (
    EmbedderSettings,
    EncoderSettings,
    GeneratorSettings,
    RetrieverSettings,
    RetrieveSettings,
    Settings,
)
from tritonrag_client.contract import (
    ATTENTION_MASK,
    EMBEDDER,
    ENCODER,
    GENERATOR,
    INPUT_IDS,
    RETRIEVE,
    RETRIEVER,
    TOKENIZER,
)
from tritonrag_client.errors import BadRequestError, InternalError, NotFoundError, RagError

PYTHON, ALL = frozenset({"python"}), frozenset({"python", "onnxruntime", "tensorrt"})
CPU, LAPTOP, TWO = Machine.of("cpu", 2), Machine.of("gpu", 0), Machine.of("gpu", 2)


def make_embedder(folder: Path, *files: str, plan: PlanRecord | None = None, dim: int = 2) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in files:
        (folder / name).write_text(name)
    EmbedderManifest(
        name="toy",
        architecture="none",
        dim=dim,
        max_tokens=64,
        pooling="mean",
        fingerprint="f" * 64,
        files={name: record_file(folder / name) for name in files},
        parity=Parity(texts=1, fp32_max_abs_difference=0.0, int8_min_cosine=1.0, int8_mean_cosine=1.0),
        plan=plan,
    ).save(folder)
    return folder


PLAN = PlanRecord(tensorrt="10.13", gpu="H200", compute_capability="9.0", buckets=(16, 32, 64), max_batch=64)


@pytest.fixture
def embedder(tmp_path: Path) -> Path:
    return make_embedder(tmp_path / "embedder", ENCODER_FILE, PLAN_FILE, plan=PLAN)


@pytest.fixture
def settings(tmp_path: Path, embedder: Path) -> Settings:
    return Settings(
        embedder=EmbedderSettings(model=embedder),
        encoder=EncoderSettings(cache_dir=tmp_path / "cache", buckets="16,32"),
    )


Render = Callable[..., dict[str, Any]]


@pytest.fixture
def rendered(tmp_path: Path) -> Render:
    """Renders our repository into `models` and gives the configurations."""

    def make(settings: Settings, machine: Machine, backends: frozenset[str] = PYTHON) -> dict[str, Any]:
        models = tmp_path / "models"
        models.mkdir()
        render(CHECKOUT_REPOSITORY, models, Rendering(settings=settings, machine=machine, backends=backends))
        return {folder.name: read_config(folder / "config.pbtxt") for folder in models.iterdir()}

    return make


def groups(config: Any) -> list[tuple[int, int, list[int]]]:
    kinds = type(config.instance_group[0]).Kind if config.instance_group else None
    return [(kinds.Name(group.kind), group.count, list(group.gpus)) for group in config.instance_group]


def with_encoder(settings: Settings, **fields: Any) -> Settings:
    return settings.model_copy(update={"encoder": settings.encoder.model_copy(update=fields)})


class TestProfileCpu:
    def test_as_it_stands_is_served_byte_for_byte(self, rendered: Render, tmp_path: Path) -> None:
        rendered(Settings(embedder=EmbedderSettings(instances=2)), CPU)
        for model in CHECKOUT_REPOSITORY.iterdir():
            served = (tmp_path / "models" / model.name / "config.pbtxt").read_bytes()
            assert served == (model / "config.pbtxt").read_bytes()

    def test_has_the_instances_of_the_settings_and_touches_no_gpu(self, rendered: Render) -> None:
        settings = Settings(
            embedder=EmbedderSettings(instances=5),
            retriever=RetrieverSettings(instances=3),
            generator=GeneratorSettings(instances=2),
        )
        configs = rendered(settings, CPU)
        assert [groups(configs[model]) for model in (EMBEDDER, RETRIEVE, RETRIEVER, GENERATOR)] == [
            [("KIND_CPU", 5, [])],
            [("KIND_CPU", 5, [])],
            [("KIND_CPU", 3, [])],
            [("KIND_CPU", 2, [])],
        ]
        assert flaws(configs) == []

    @pytest.mark.parametrize(("cores", "threads", "count"), [(1, 1, 1), (6, 1, 6), (64, 1, 16), (8, 2, 4), (2, 4, 1)])
    def test_embeds_in_one_process_a_core_where_nobody_says(
        self, rendered: Render, cores: int, threads: int, count: int
    ) -> None:
        settings = Settings(embedder=EmbedderSettings(threads=threads))
        configs = rendered(settings, dataclasses.replace(CPU, cores=cores))
        assert [groups(configs[model]) for model in (EMBEDDER, RETRIEVE)] == [[("KIND_CPU", count, [])]] * 2

    def test_a_retrieve_that_is_not_fused_is_the_ensemble_of_profile_gpu(self, rendered: Render) -> None:
        configs = rendered(Settings(retrieve=RetrieveSettings(fused=False)), CPU)
        assert [step.model_name for step in configs[RETRIEVE].ensemble_scheduling.step] == [EMBEDDER, RETRIEVER]
        assert groups(configs[RETRIEVE]) == []
        assert flaws(configs) == []

    def test_refuses_a_retriever_that_is_to_be_on_a_gpu(self) -> None:
        with pytest.raises(BadRequestError, match=r"TRITONRAG_RETRIEVER_DEVICE is gpu.*--profile gpu"):
            instances_of(RETRIEVER, Settings(retriever=RetrieverSettings(device="gpu")), CPU)


def test_files_are_links_so_that_nothing_of_the_source_is_copied_or_written_to(
    rendered: Render, tmp_path: Path
) -> None:
    rendered(Settings(), CPU)
    models = tmp_path / "models"
    for model in CHECKOUT_REPOSITORY.iterdir():
        assert (models / model.name / "1").resolve() == (model / "1").resolve()
    assert not any((models / model.name / "configs").exists() for model in models.iterdir())


def test_models_that_are_not_ours_are_served_as_they_stand(tmp_path: Path) -> None:
    source, models = tmp_path / "source", tmp_path / "models"
    for folder in (source / "reranker/1", source / "bare/1", source / ".git", models):
        folder.mkdir(parents=True)
    (source / "reranker/config.pbtxt").write_text("# not even a configuration {")
    render(source, models, Rendering(settings=Settings(), machine=CPU, backends=PYTHON))
    assert sorted(path.name for path in models.iterdir()) == ["bare", "reranker"]
    assert (models / "reranker/config.pbtxt").read_text() == "# not even a configuration {"
    assert not (models / "bare/config.pbtxt").exists()


class TestProfileGpuWithoutAGpu:
    def test_runs_every_model_on_the_cpu_and_the_encoder_in_python(self, rendered: Render, settings: Settings) -> None:
        configs = rendered(settings, LAPTOP, ALL)
        assert flaws(configs) == []
        assert configs[ENCODER].backend == "python"
        assert all(kind == "KIND_CPU" for config in configs.values() for kind, _, _ in groups(config))
        assert configs[EMBEDDER].platform == "ensemble"

    def test_has_as_many_encoders_as_profile_cpu_has_embedders(self, settings: Settings) -> None:
        settings = settings.model_copy(update={"embedder": settings.embedder.model_copy(update={"instances": 3})})
        assert instances_of(ENCODER, settings, LAPTOP) == instances_of(EMBEDDER, settings, CPU)

    @pytest.mark.parametrize(
        ("fields", "named"),
        [
            ({"execution": "cuda"}, "TRITONRAG_ENCODER_EXECUTION is cuda.*no GPU"),
            ({"execution": "tensorrt"}, "TRITONRAG_ENCODER_EXECUTION is tensorrt.*no GPU"),
            ({"runtime": "tensorrt"}, "TRITONRAG_ENCODER_RUNTIME is tensorrt.*no GPU"),
        ],
    )
    def test_refuses_what_needs_one(self, settings: Settings, fields: dict[str, Any], named: str) -> None:
        with pytest.raises(BadRequestError, match=named):
            choose_encoder(with_encoder(settings, **fields), LAPTOP, ALL)

    def test_gives_the_onnx_runtime_backend_no_accelerator(self, rendered: Render, settings: Settings) -> None:
        config = rendered(with_encoder(settings, runtime="onnxruntime"), LAPTOP, ALL)[ENCODER]
        assert groups(config) == [("KIND_CPU", 2, [])]
        assert not config.HasField("optimization")


class TestTheEncoderOnGpus:
    def test_is_tensorrts_plan_where_there_is_one_and_a_backend_for_it(
        self, rendered: Render, settings: Settings, embedder: Path, tmp_path: Path
    ) -> None:
        configs = rendered(settings, TWO, ALL)
        config = configs[ENCODER]
        assert config.backend == "tensorrt"
        assert (tmp_path / "models/encoder/1/model.plan").resolve() == embedder / PLAN_FILE
        assert [list(group.profile) for group in config.instance_group] == [["0", "1", "2"]] * 2
        assert groups(config) == [("KIND_GPU", 1, [0]), ("KIND_GPU", 1, [1])]
        assert flaws(configs) == []

    def test_is_the_fp16_graph_by_onnx_runtime_and_tensorrt_else(
        self, rendered: Render, settings: Settings, embedder: Path, tmp_path: Path
    ) -> None:
        configs = rendered(settings, TWO, ALL - {"tensorrt"})
        config = configs[ENCODER]
        assert config.backend == "onnxruntime"
        assert not config.platform
        assert [path.name for path in (tmp_path / "models/encoder/1").iterdir()] == ["model.onnx"]
        assert (tmp_path / "models/encoder/1/model.onnx").resolve() == embedder / ENCODER_FILE
        (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
        assert accelerator.name == "tensorrt"
        assert accelerator.parameters["precision_mode"] == "FP16"
        assert accelerator.parameters["trt_profile_max_shapes"] == "input_ids:64x64,attention_mask:64x64"
        cache = Path(accelerator.parameters["trt_engine_cache_path"])
        assert cache.is_dir()
        assert cache.parent == tmp_path / "cache"
        assert flaws(configs) == []

    def test_has_the_parameters_that_the_file_on_disk_shows(self, rendered: Render, settings: Settings) -> None:
        def parameters(config: Any) -> set[str]:
            return set(config.optimization.execution_accelerators.gpu_execution_accelerator[0].parameters)

        on_disk = read_config(CHECKOUT_REPOSITORY / ENCODER / "configs/gpu.pbtxt")
        assert parameters(rendered(settings, TWO, ALL - {"tensorrt"})[ENCODER]) == parameters(on_disk)

    def test_leaves_tensorrt_out_on_request(self, rendered: Render, settings: Settings, tmp_path: Path) -> None:
        config = rendered(with_encoder(settings, execution="cuda"), TWO, ALL)[ENCODER]
        assert config.backend == "onnxruntime"
        assert not config.HasField("optimization"), "CUDA is what the backend takes by itself"
        assert not (tmp_path / "cache").exists()

    def test_is_the_python_model_where_triton_has_no_backend_for_it(self, rendered: Render, settings: Settings) -> None:
        config = rendered(settings, TWO, PYTHON)[ENCODER]
        assert config.backend == "python"
        assert groups(config) == [("KIND_GPU", 1, [0]), ("KIND_GPU", 1, [1])]

    def test_stays_on_the_cpu_on_request(self, rendered: Render, settings: Settings) -> None:
        config = rendered(with_encoder(settings, execution="cpu"), TWO, ALL)[ENCODER]
        assert (config.backend, groups(config)) == ("python", [("KIND_CPU", 2, [])])

    @pytest.mark.parametrize("backends", [ALL, ALL - {"tensorrt"}])
    def test_is_warmed_up_with_one_text_and_many_of_every_length(
        self, rendered: Render, settings: Settings, tmp_path: Path, backends: frozenset[str]
    ) -> None:
        config = rendered(settings, TWO, backends)[ENCODER]
        seen = set()
        for sample in config.model_warmup:
            ids, mask = sample.inputs[INPUT_IDS], sample.inputs[ATTENTION_MASK]
            assert ids.dims == mask.dims
            assert ids.data_type == mask.data_type == config.input[0].data_type
            assert ids.zero_data, "whatever the vocabulary, it has a token 0"
            ones = np.fromfile(tmp_path / "models/encoder/warmup" / mask.input_data_file, np.int32)
            assert ones.tolist() == [1] * mask.dims[0]
            seen.add((sample.batch_size, mask.dims[0]))
        assert seen == {(batch, length) for batch in (1, 64) for length in (16, 32, 64)}

    def test_has_the_embedders_dimensions_which_a_backend_compares_with_its_file(
        self, rendered: Render, settings: Settings, embedder: Path
    ) -> None:
        make_embedder(embedder, ENCODER_FILE, dim=768)
        configs = rendered(settings, TWO, ALL)
        assert list(configs[ENCODER].output[0].dims) == [768]
        assert flaws(configs) == []

    def test_has_several_instances_on_each_gpu_on_request(self, settings: Settings) -> None:
        found = instances_of(ENCODER, with_encoder(settings, instances=3), TWO)
        assert found == [Instances(kind="KIND_GPU", count=3, gpu=gpu) for gpu in (0, 1)]


class TestAnEncoderThatWasAskedForAndCanNotRun:
    @pytest.mark.parametrize(("runtime", "to"), [("onnxruntime", "onnx-fp16"), ("tensorrt", "tensorrt")])
    def test_for_want_of_its_file(self, settings: Settings, embedder: Path, runtime: str, to: str) -> None:
        make_embedder(embedder)
        for name in (ENCODER_FILE, PLAN_FILE):
            (embedder / name).unlink()
        with pytest.raises(NotFoundError, match=f"tritonrag export embedder --to {to}"):
            choose_encoder(with_encoder(settings, runtime=runtime), TWO, ALL)

    def test_on_a_gpu_for_want_of_the_graph_that_python_would_run_there(
        self, settings: Settings, embedder: Path
    ) -> None:
        (embedder / ENCODER_FILE).unlink()
        with pytest.raises(NotFoundError, match=r"--to onnx-fp16, or set TRITONRAG_ENCODER_EXECUTION to cpu"):
            choose_encoder(settings, TWO, PYTHON)
        assert choose_encoder(settings, LAPTOP, PYTHON).runtime == "python"

    @pytest.mark.parametrize("runtime", ["onnxruntime", "tensorrt"])
    def test_for_want_of_a_backend(self, settings: Settings, runtime: str) -> None:
        with pytest.raises(NotFoundError, match=rf"{runtime}, and this Triton has no such backend \(it has python\)"):
            choose_encoder(with_encoder(settings, runtime=runtime), TWO, PYTHON)

    @pytest.mark.parametrize(
        "plan", [None, dataclasses.replace(PLAN, max_batch=8), dataclasses.replace(PLAN, buckets=(16, 32))]
    )
    def test_because_its_plan_is_for_something_else(
        self, settings: Settings, embedder: Path, plan: PlanRecord | None
    ) -> None:
        make_embedder(embedder, ENCODER_FILE, PLAN_FILE, plan=plan)
        with pytest.raises(BadRequestError, match="export embedder --to tensorrt"):
            choose_encoder(with_encoder(settings, runtime="tensorrt"), TWO, ALL)
        assert choose_encoder(settings, TWO, ALL).runtime == "onnxruntime", "auto takes the next that can run"

    def test_because_its_file_is_damaged(self, settings: Settings, embedder: Path) -> None:
        (embedder / PLAN_FILE).write_text("x")
        with pytest.raises(InternalError, match="damaged"):
            choose_encoder(settings, TWO, ALL)

    def test_because_its_engines_can_not_be_kept(self, settings: Settings, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        settings = with_encoder(settings, cache_dir=tmp_path / "file/cache")
        (tmp_path / "models").mkdir()
        rendering = Rendering(settings=settings, machine=TWO, backends=ALL - {"tensorrt"})
        with pytest.raises(BadRequestError, match="TRITONRAG_ENCODER_CACHE_DIR"):
            render(CHECKOUT_REPOSITORY, tmp_path / "models", rendering)


class TestTheRetrieverOnGpus:
    def test_has_instances_on_each_by_names_of_their_own(self, rendered: Render, settings: Settings) -> None:
        settings = settings.model_copy(update={"retriever": RetrieverSettings(instances=2)})
        config = rendered(settings, TWO)[RETRIEVER]
        assert groups(config) == [("KIND_GPU", 2, [0]), ("KIND_GPU", 2, [1])]
        as_triton_hands_it_on = {
            "instance_group": [{"count": g.count, "gpus": list(g.gpus)} for g in config.instance_group]
        }
        assert count_instances(json.dumps(as_triton_hands_it_on)) == 4

    def test_is_on_those_that_the_settings_name(self) -> None:
        settings = Settings(retriever=RetrieverSettings(devices="2,0"))
        assert [group.gpu for group in instances_of(RETRIEVER, settings, Machine.of("gpu", 3))] == [2, 0]

    @pytest.mark.parametrize("devices", ["2", "0,0", "a", "0,", "-1", "0;1"])
    def test_is_refused_on_those_that_are_not_there(self, devices: str) -> None:
        settings = Settings(retriever=RetrieverSettings(devices=devices))
        with pytest.raises(BadRequestError, match=r"TRITONRAG_RETRIEVER_DEVICES.*from 0 to 1"):
            instances_of(RETRIEVER, settings, TWO)

    def test_picks_them_itself_where_they_share_the_index(self) -> None:
        settings = Settings(retriever=RetrieverSettings(placement="shard"))
        assert instances_of(RETRIEVER, settings, TWO) == [Instances(kind="KIND_MODEL", count=1)]

    def test_stays_on_the_cpu_on_request(self) -> None:
        settings = Settings(retriever=RetrieverSettings(device="cpu", instances=2))
        assert instances_of(RETRIEVER, settings, TWO) == [Instances(kind="KIND_CPU", count=2)]


class TestTheGenerator:
    @pytest.mark.parametrize(
        ("engine", "section"),
        [
            ("tensorrt_llm", {"trtllm": TrtllmSettings(devices="0,1;2,3;4,5", tensor_parallel=2)}),
            ("onnxruntime_genai", {"genai": GenaiSettings(execution="cuda", devices="0;1;2")}),
        ],
    )
    def test_has_one_instance_for_each_group_of_gpus(self, engine: Any, section: dict[str, Any]) -> None:
        settings = Settings(generator=GeneratorSettings(engine=engine), **section)
        assert instances_of(GENERATOR, settings, TWO) == [Instances(kind="KIND_MODEL", count=3)]

    def test_is_refused_with_another_number_of_instances(self) -> None:
        settings = Settings(
            generator=GeneratorSettings(engine="tensorrt_llm", instances=2), trtllm=TrtllmSettings(devices="0;1;2")
        )
        with pytest.raises(BadRequestError, match="INSTANCES is 2, and TRITONRAG_TRTLLM_DEVICES names 3"):
            instances_of(GENERATOR, settings, TWO)

    def test_heeds_no_devices_of_another_engine(self) -> None:
        settings = Settings(generator=GeneratorSettings(instances=2), trtllm=TrtllmSettings(devices="0;1;2"))
        assert instances_of(GENERATOR, settings, TWO) == [Instances(kind="KIND_CPU", count=2)]


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    gpus=st.integers(0, 4),
    profile=st.sampled_from(["cpu", "gpu"]),
    counts=st.tuples(*[st.integers(1, 4)] * 4),
    device=st.sampled_from(["auto", "cpu", "gpu"]),
    shard=st.booleans(),
    execution=st.sampled_from(["auto", "cpu", "cuda", "tensorrt"]),
)
def test_whatever_is_set_there_is_an_instance_of_every_model_and_only_on_gpus_that_are_there(
    *, gpus: int, profile: str, counts: tuple[int, ...], device: Any, shard: bool, execution: Any
) -> None:
    machine = Machine.of(profile, gpus)
    settings = Settings(
        embedder=EmbedderSettings(instances=counts[0]),
        encoder=EncoderSettings(instances=counts[1], execution=execution),
        retriever=RetrieverSettings(instances=counts[2], device=device, placement="shard" if shard else "replicate"),
        generator=GeneratorSettings(instances=counts[3]),
    )
    for model in (ENCODER, RETRIEVER, GENERATOR, *([EMBEDDER] if profile == "cpu" else [])):
        try:
            found = instances_of(model, settings, machine)
        except BadRequestError:
            assert (model, device, machine.gpus) == (RETRIEVER, "gpu", 0)
            continue
        assert found
        assert all(group.count >= 1 for group in found)
        assert all((group.gpu is not None) == (group.kind == "KIND_GPU") for group in found)
        assert {group.gpu for group in found if group.gpu is not None} <= set(range(machine.gpus))
        assert machine.gpus or {group.kind for group in found} == {"KIND_CPU"}
    assert instances_of(TOKENIZER, settings, machine) == []
    assert searches_on_gpus(settings, machine) == (profile == "gpu" and gpus > 0 and device != "cpu")


class TestTheGeneratorsWait:
    @pytest.fixture(autouse=True)
    def _gpus(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tritonrag.triton_command.count_gpus", lambda: 2)

    def prepared(self, options: ServeOptions) -> dict[str, Any] | None:
        home = TritonHome(find_wheel())
        try:
            prepare(options, find_wheel(), home)
            told = list(home.run.glob("gpu-memory-expected*"))
            return json.loads(told[0].read_text()) if told else None
        finally:
            home.remove()

    def test_is_for_every_retriever_and_python_encoder_on_a_gpu_and_ends_before_the_servers_patience(
        self, settings: Settings
    ) -> None:
        settings = settings.model_copy(update={"retriever": RetrieverSettings(instances=2)})
        told = self.prepared(ServeOptions(settings=settings, profile="gpu", ready_timeout_s=100))
        assert told is not None
        assert told["instances"] == {"retriever": 4, "encoder": 2}
        assert 0 < told["wait_s"] < 100

    def test_is_for_no_encoder_that_stays_on_the_cpu(self, settings: Settings) -> None:
        settings = settings.model_copy(update={"encoder": EncoderSettings(execution="cpu")})
        told = self.prepared(ServeOptions(settings=settings, profile="gpu"))
        assert told is not None
        assert told["instances"] == {"retriever": 2}

    @pytest.mark.parametrize(
        "fields",
        [{"profile": "cpu"}, {"profile": "gpu", "models": (EMBEDDER,)}],
        ids=["profile cpu", "no retriever"],
    )
    def test_is_for_nobody_where_no_index_goes_to_a_gpu(self, settings: Settings, fields: dict[str, Any]) -> None:
        assert self.prepared(ServeOptions(settings=settings, **fields)) is None


def test_a_setting_that_can_not_be_served_is_told_before_triton_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    from tritonrag.launcher import TritonServer  # noqa: PLC0415

    monkeypatch.setattr("tritonrag.launcher._spawn", lambda *_: pytest.fail("Triton was started"))
    server = TritonServer()
    with pytest.raises(RagError, match="TRITONRAG_RETRIEVER_DEVICE"):
        server.start(ServeOptions(settings=Settings(retriever=RetrieverSettings(device="gpu"))))
    assert server.check_left_behind() == []
