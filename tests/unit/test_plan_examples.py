"""Whole plans: worked by hand, and as the page shows them; whatever is asked, more hardware never fits less."""

import math
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tritonrag import cli
from tritonrag.planning.index_sizes import gpu_index_bytes, host_bytes
from tritonrag.planning.planner import Plan, make_plan, with_gpus
from tritonrag.planning.report import gpu_memory, limits, to_json
from tritonrag.planning.request import PlanOptions, PlanRequest, read_request
from tritonrag.planning.settings_file import device_groups, environment_of, write_settings
from tritonrag_backends.choices import Kind
from tritonrag_backends.settings import load_settings
from tritonrag_client.errors import BadRequestError

PAGE = Path(__file__).parents[2] / "docs/capacity-planning.md"
EXAMPLES = re.findall(
    r"```console\n\$ (tritonrag plan [^\n]*)\n(.+?)\n```", PAGE.read_text(encoding="utf-8"), re.DOTALL
)
KV_8B, LAYERS_8B, TABLE_8B = 131_072, 6_979_326_848, 128_256 * 4_096


def planned(**options: object) -> Plan:
    return make_plan(read_request(PlanOptions(**options)))  # type: ignore[arg-type]


def test_a_laptop_without_gpu_searches_ten_thousand_passages_exactly() -> None:
    plan = planned(passages="10k", cores=4, memory_gb=16, qps=50)
    assert plan.problems == ()
    assert (plan.profile, plan.retrieval.device, plan.retrieval.kind, plan.generation) == ("cpu", "cpu", "flat", None)
    assert plan.retrieval.words
    assert plan.retrieval.vectors == "fp32"
    assert plan.retrieval.host.vectors == 10_000 * 1_536
    # A question: 1/158 s to embed, 1/1,232 s dense, 0.056 ms of words; 4 cores, 0.8 of them through Triton: 445 a second.
    assert plan.questions_s == pytest.approx(4 * 0.8 / (1 / 158 + 1 / 1_232 + 5.6e-5), rel=1e-9)
    assert environment_of(plan) == {
        "TRITONRAG_PROFILE": "cpu",
        "TRITONRAG_RETRIEVER_DEVICE": "cpu",
        "TRITONRAG_RETRIEVER_INSTANCES": "1",
        "TRITONRAG_RETRIEVER_NUM_PASSAGES": "5",
        "TRITONRAG_GENERATOR_ENGINE": "extractive",
        "TRITONRAG_EMBEDDER_INSTANCES": "1",
    }


def test_one_l4_holds_8b_in_fp8_and_58_answers_at_once() -> None:
    plan = planned(passages="1M", llm="8B-fp8", gpus="1xL4", qps=1)
    assert plan.problems == ()
    assert (plan.retrieval.device, plan.retrieval.kind) == ("cpu", "ivf_pq")
    generation = plan.generation
    assert generation is not None
    # 24 GB - encoder (2 x (10.6M + 30,522 x 384) + 1 GiB) - weights - 2 GiB, times 0.9, over 1,376 tokens of 128 KiB.
    encoder = 2 * (10_616_832 + 30_522 * 384) + 2**30
    room = 0.9 * (24_000_000_000 - encoder - LAYERS_8B - 4 * TABLE_8B - 2 * 2**30)
    # The table's 8.030G parameters are rounded: a thousandth.
    assert generation.kv_bytes == pytest.approx(room, rel=1e-3)
    assert generation.sequences == math.floor(room / (1_376 * KV_8B)) == 58
    # A step of 58: weights and 58 x 1,248 tokens of keys and values over 300 GB/s: 61.9 ms; 256 of them for 58 answers, and
    # 1,120 tokens read at 242 TFLOP/s: 0.066 s.
    step = (LAYERS_8B + 4 * TABLE_8B + 58 * 1_248 * KV_8B) / 300e9
    reading = (2 * LAYERS_8B * 1_120 + 2 * 32 * 4_096 * 1_120**2) / 242e12
    share = 1 - (2 * 10_616_832 * 32 + 4 * 6 * 32**2 * 384) / 121e12
    assert generation.limit_s == pytest.approx(share / (reading + 256 * step / 58), rel=1e-3)
    assert generation.expected_s == pytest.approx(generation.limit_s / 2)
    assert environment_of(plan)["TRITONRAG_TRTLLM_DEVICES"] == "0"


def test_four_h200_serve_fifty_million_passages_with_the_search_on_the_cpu() -> None:
    plan = planned(passages="50M", llm="8B-fp8", gpus="4xH200", qps=70)
    assert plan.problems == ()
    assert (plan.retrieval.device, plan.retrieval.kind, plan.retrieval.words) == ("cpu", "ivf_pq", False)
    assert plan.retrieval.host.vectors == 50_000_000 * 1_536
    assert plan.generation is not None
    assert (plan.generation.instances, plan.generation.tensor_parallel) == (4, 1)
    environment = environment_of(plan)
    assert environment["TRITONRAG_GENERATOR_INSTANCES"] == "4"
    assert environment["TRITONRAG_TRTLLM_DEVICES"] == "0;1;2;3"
    assert "TRITONRAG_TRTLLM_KV_FRACTION" not in environment


def test_fifty_million_passages_are_dealt_out_over_four_gpus_where_they_must_be_searched_there() -> None:
    plan = planned(passages="50M", llm="8B-fp8", gpus="4xH200", qps=70, retrieval="gpu")
    retrieval = plan.retrieval
    # Whole, 38.4 GB take 8 ms to read; a quarter takes 2 ms.
    assert (retrieval.gpu_kind, retrieval.placement) == ("flat", "shard")
    assert retrieval.gpu_bytes == 12_500_000 * 768 + 256 * 2**20 + 2**29
    assert retrieval.search_s == pytest.approx(12_500_000 * 768 / 4.8e12)
    environment = environment_of(plan)
    assert environment["TRITONRAG_RETRIEVER_PLACEMENT"] == "shard"
    assert environment["TRITONRAG_RETRIEVER_DEVICES"] == "0,1,2,3"
    assert load_settings(environment).retriever.gpu_temp_bytes == 256 * 2**20


def test_two_hundred_questions_a_second_need_ten_such_gpus_and_the_plan_says_so() -> None:
    plan = planned(passages="50M", llm="8B-fp8", gpus="4xH200", qps=200)
    assert len(plan.problems) == 1
    assert "200 asked for (bandwidth binds)" in plan.problems[0]
    assert plan.nearest == "nearest that does: --gpus 10xH200"
    assert planned(passages="50M", llm="8B-fp8", gpus="10xH200", qps=200).problems == ()
    assert planned(passages="50M", llm="8B-fp8", gpus="9xH200", qps=200).problems


def test_70b_in_fp8_goes_over_two_h100_where_one_leaves_too_little_for_keys_and_values() -> None:
    plan = planned(passages="300k", llm="70B-fp8", gpus="2xH100", qps=2)
    generation = plan.generation
    assert plan.problems == ()
    assert generation is not None
    assert (generation.instances, generation.tensor_parallel) == (1, 2)
    # (80 - 1.12 - 72.65 / 2 - 2.15) x 0.9 on each: 36.4 GB, over 1,376 tokens of 320 KiB, of which each holds half: 161.
    weights = 70_550_000_000 + 2 * 128_256 * 8_192
    room = 0.9 * (80e9 - (2 * (10_616_832 + 30_522 * 384) + 2**30) - weights / 2 - 2 * 2**30)
    assert generation.sequences == math.floor(2 * room / (1_376 * 327_680)) == 161
    assert environment_of(plan)["TRITONRAG_TRTLLM_TENSOR_PARALLEL"] == "2"
    assert environment_of(plan)["TRITONRAG_TRTLLM_DEVICES"] == "0,1"


def test_70b_in_16_bits_does_not_fit_one_l4_and_the_error_names_what_does() -> None:
    with pytest.raises(
        BadRequestError, match=r"70B-bf16 takes 141 GB and does not fit .* in 1xL4; nearest that does: --gpus \d+xL4"
    ):
        planned(passages="1M", llm="70B-bf16", gpus="1xL4", qps=0.1)


def test_a_smaller_precision_is_named_where_that_is_enough() -> None:
    with pytest.raises(BadRequestError, match="--llm 14B-int4-awq"):
        planned(passages="1M", llm="14B-bf16", gpus="1xL4", qps=0.01)


def test_a_cpu_writes_with_a_small_model_as_fast_as_one_did() -> None:
    # docs/benchmarks/genai-cpu.md: 43 to 46 tokens/s on 2 cores, prompts of 170 tokens, answers of 48.
    options = {
        "passages": "10k",
        "cores": 2,
        "memory_gb": 20,
        "llm": "135M-int8",
        "prompt_tokens": 170,
        "answer_tokens": 48,
    }
    plan = planned(qps=0.001, **options)
    assert plan.generation is not None
    assert 43 <= plan.generation.expected_s * 48 <= 46
    assert environment_of(plan)["TRITONRAG_GENERATOR_ENGINE"] == "onnxruntime_genai"


def test_cpu_and_search_are_as_fast_as_served_ones_were() -> None:
    # docs/benchmarks/index-kinds-served.md, dense: 241/s at 1M (ivf_pq), 213 at 100,000 (hnsw), 230 at 10,000 (flat), 2 cores.
    for passages, served in (("1M", 241), ("100k", 213), ("10k", 230)):
        plan = planned(passages=passages, cores=2, memory_gb=20, mode="dense")
        assert plan.questions_s == pytest.approx(served, rel=0.25)


def test_exact_search_is_planned_for_where_every_neighbour_is_asked_for() -> None:
    plan = planned(passages="50M", gpus="2xH200", qps=10, recall=1)
    assert plan.retrieval.kind == "flat"
    assert plan.retrieval.gpu_kind == "flat"


def test_vectors_are_stored_narrower_before_the_host_is_too_small() -> None:
    found = [planned(passages="10M", cores=8, memory_gb=memory).retrieval.vectors for memory in (40, 15, 9)]
    assert found == ["fp32", "fp16", "int8"]
    problems = planned(passages="10M", cores=8, memory_gb=4).problems
    assert any("--memory-gb" in problem for problem in problems)


def test_a_first_token_that_comes_too_late_is_a_problem_and_more_gpus_an_instance_help() -> None:
    base = {"passages": "1M", "llm": "70B-fp8", "gpus": "4xH200", "qps": 0.5}
    usual = planned(**base)
    assert usual.generation is not None
    limit_ms = usual.generation.first_token_s * 1000 * 0.6
    hurried = planned(first_token_ms=limit_ms, **base)
    assert hurried.problems == ()
    assert hurried.generation is not None
    assert hurried.generation.tensor_parallel > usual.generation.tensor_parallel
    assert any("first token" in problem for problem in planned(first_token_ms=1, **base).problems)


def test_gpus_that_make_no_whole_group_are_left_out() -> None:
    assert device_groups(5, 2) == ["0,1", "2,3"]
    assert device_groups(4, 1) == ["0", "1", "2", "3"]


@pytest.mark.parametrize(("command", "shown"), EXAMPLES, ids=[command for command, _ in EXAMPLES])
def test_the_pages_examples_print_what_it_shows(
    command: str, shown: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    status = cli.run_command(shlex.split(command)[1:])
    if not shown.startswith("$"):
        assert capsys.readouterr().out.rstrip() == shown
        assert status == ("does not fit" in shown)
    else:
        assert (tmp_path / "plan.env").exists()


def test_the_page_has_its_examples() -> None:
    assert len(EXAMPLES) >= 6


GPUS = st.sampled_from(["H100", "H200", "B200", "A100-80G", "L4", "L40S", "T4", "RTX4090"])
MODELS = st.sampled_from(
    ["none", "135M-int8", "1.5B-bf16", "8B-bf16", "8B-int4-awq", "14B-int8", "70B-int4-awq", "70B-bf16"]
)
ROWS = st.integers(1, 4_000_000_000)


@st.composite
def requests(draw: st.DrawFn) -> PlanRequest:
    """Anything on GPUs."""
    return read_request(
        PlanOptions(
            passages=str(draw(ROWS)),
            dim=draw(st.sampled_from([64, 384, 768, 1024])),
            llm=draw(MODELS),
            gpus=f"{draw(st.integers(1, 9))}x{draw(GPUS)}",
            qps=draw(st.floats(0.01, 500)),
            answer_tokens=draw(st.integers(1, 2000)),
            first_token_ms=draw(st.none() | st.floats(10, 10_000)),
            recall=draw(st.sampled_from([0.9, 0.95, 0.985, 0.99, 1])),
            fp16=draw(st.booleans()),
            kv=draw(st.sampled_from(["auto", "fp8"])),
            mode=draw(st.sampled_from(["auto", "dense", "hybrid"])),
            retrieval=draw(st.sampled_from(["auto", "cpu", "gpu"])),
        )
    )


def plan_or_none(request: PlanRequest) -> Plan | None:
    try:
        return make_plan(request)
    except BadRequestError as error:
        assert "fit" in error.message  # noqa: PT017 - no other error may come of a request that was read
        return None


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(request=requests(), more=st.integers(1, 16), given_host=st.booleans())
def test_more_gpus_never_fit_less(request: PlanRequest, more: int, *, given_host: bool) -> None:
    request = replace(request, assumed_host=not given_host)
    plan = plan_or_none(request)
    larger = plan_or_none(with_gpus(request, request.gpus + more))
    if plan is not None:
        assert larger is not None
        assert plan.problems or not larger.problems


@settings(max_examples=150, deadline=None)
@given(request=requests())
def test_whatever_is_planned_fits_its_gpus_and_its_settings_can_be_read(request: PlanRequest) -> None:
    plan = plan_or_none(request)
    if plan is None:
        return
    card, generation = request.card, plan.generation
    assert card is not None
    assert plan.retrieval.build_bytes + plan.encoder.gpu_bytes <= card.memory_bytes
    if generation is not None:
        taken = (
            plan.retrieval.gpu_bytes
            + plan.encoder.gpu_bytes
            + generation.weight_bytes
            + generation.kv_bytes
            + 2 * 2**30
        )
        assert taken <= card.memory_bytes
        assert generation.expected_s <= generation.limit_s
        assert generation.instances * generation.tensor_parallel <= request.gpus
    environment = environment_of(plan)
    found = load_settings(environment)
    assert found.retriever.num_passages == request.num_passages
    if generation is not None:
        groups = [group.split(",") for group in found.trtllm.devices.split(";")]
        assert len(groups) == found.generator.instances
        assert {len(group) for group in groups} == {found.trtllm.tensor_parallel}
        assert {int(gpu) for group in groups for gpu in group} <= set(range(request.gpus))
    assert limits(plan)
    assert gpu_memory(plan)[-1][0] == "left"
    assert to_json(plan)["settings"] == environment


@given(
    kind=st.sampled_from(["flat", "sq8", "hnsw", "ivf_flat", "ivf_sq8", "ivf_pq", "ivf_rabitq"]),
    rows=st.tuples(ROWS, ROWS),
    dims=st.integers(1, 4096),
    vectors=st.sampled_from(["fp32", "fp16", "int8"]),
)
def test_more_passages_never_take_less_memory(kind: Kind, rows: tuple[int, int], dims: int, vectors: str) -> None:
    fewer, more = (
        host_bytes(kind=kind, rows=count, dims=dims, vectors=vectors, text_bytes=500)  # type: ignore[arg-type]
        for count in sorted(rows)
    )
    assert fewer.disk <= more.disk
    assert fewer.searched(words=True) <= more.searched(words=True)


@given(
    kind=st.sampled_from(["flat", "cagra", "ivf_flat", "ivf_pq"]),
    rows=st.tuples(st.integers(1_000, 10**10), st.integers(1_000, 10**10)),
    dims=st.sampled_from([64, 96, 384, 768, 1024]),
    fp16=st.booleans(),
)
def test_more_passages_never_take_less_of_a_gpu(kind: str, rows: tuple[int, int], dims: int, *, fp16: bool) -> None:
    fewer, more = (
        gpu_index_bytes(kind, rows=count, dims=dims, fp16=fp16)  # type: ignore[arg-type]
        for count in sorted(rows)
    )
    assert fewer <= more


def test_the_written_file_is_what_a_shell_and_the_settings_read(tmp_path: Path) -> None:
    plan = planned(passages="50M", llm="8B-fp8", gpus="4xH200", qps=70, retrieval="gpu", kv="fp8")
    write_settings(plan, tmp_path / "plan.env")
    lines = shlex.split((tmp_path / "plan.env").read_text(encoding="utf-8"), comments=True)
    assert dict(line.split("=", 1) for line in lines) == environment_of(plan)
    assert load_settings(dict(line.split("=", 1) for line in lines)).trtllm.kv_dtype == "fp8"
