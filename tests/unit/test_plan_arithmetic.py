"""The planner's formulas, each held to a sum done by hand, to a file that was measured, or to a figure that was published."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonrag.planning.cards import CARDS, Card, parse_gpus
from tritonrag.planning.cpu_rates import lexical_s, searches_a_second
from tritonrag.planning.encoder_load import Encoder
from tritonrag.planning.generation import KV_FRACTION, RUNTIME_BYTES, kv_room, tensor_parallels
from tritonrag.planning.index_sizes import ann_bytes, gpu_build_bytes, gpu_index_bytes, host_bytes, stored_vector_bytes
from tritonrag.planning.language_model import KNOWN, LanguageModel, parse_size
from tritonrag.planning.model_config import read_model_folder
from tritonrag.planning.quantities import gb, parse_count
from tritonrag.planning.request import prompt_tokens
from tritonrag.planning.roofline import (
    EFFICIENCY,
    Answer,
    Speed,
    answers_a_second,
    bound_of,
    decode_flops,
    decode_step_s,
    first_token_s,
    prefill_flops,
    prefill_s,
    sequences_for,
    sequences_that_fit,
)
from tritonrag_backends.choices import Kind
from tritonrag_client.errors import BadRequestError

MIB = 2**20
ROOT = Path(__file__).parents[2]
LLAMA_8B = parse_size("8B-fp8")
LENGTHS = (
    (128, 128), (128, 2048), (128, 4096), (500, 2000), (1000, 1000), (1000, 2000), (2048, 128), (2048, 2048), (5000, 500),
    (20_000, 2000),
)  # fmt: skip
# Output tokens/s of NVIDIA's performance overview for TensorRT-LLM 1.0 (docs/source/performance/perf-overview.md), by LENGTHS.
PUBLISHED = {
    ("8B-fp8", "H200"): (27_911, 26_221, 18_027, 20_770, 17_744, 16_828, 3_538, 12_194, 3_902, 1_804),
    ("8B-fp8", "H100"): (28_312, 22_714, 14_325, 17_660, 15_220, 13_899, 3_450, 9_305, 3_459, 1_351),
    ("70B-fp8", "H200"): (3_803, 4_336, 2_872, 3_666, 2_909, 2_994, 442, 2_003, 566, 283),
}


def shares_reached(model: LanguageModel, card_name: str, published: tuple[int, ...]) -> list[float]:
    """Published output tokens/s over our limit, on one GPU with nothing else on it."""
    card = CARDS[card_name]
    speed = Speed(bytes_s=card.bytes_s, flops_s=model.flops_s(card))
    room = kv_room(card, weights=model.weight_bytes, taken=0)
    shares = []
    for (prompt, written), tokens_s in zip(LENGTHS, published, strict=True):
        answer = Answer(prompt_tokens=prompt, answer_tokens=written)
        rate = answers_a_second(model, answer, sequences_that_fit(model, answer, room), speed)
        shares.append(tokens_s / (rate * written))
    return shares


@pytest.mark.parametrize(("size", "card"), PUBLISHED)
def test_no_published_figure_is_above_the_limit_and_none_below_0_4_of_it(size: str, card: str) -> None:
    model = replace(parse_size(size), kv_value_bytes=1.0)
    shares = shares_reached(model, card, PUBLISHED[size, card])
    assert min(shares) >= 0.40
    assert max(shares) <= 0.80


@pytest.mark.parametrize(("size", "card"), PUBLISHED)
def test_the_efficiency_is_what_published_figures_of_prompts_like_rag_reach_or_less(size: str, card: str) -> None:
    model = replace(parse_size(size), kv_value_bytes=1.0)
    shares = dict(zip(LENGTHS, shares_reached(model, card, PUBLISHED[size, card]), strict=True))
    assert EFFICIENCY <= shares[2048, 128] <= EFFICIENCY + 0.1


def test_the_published_figures_can_only_come_from_an_fp8_kv_cache() -> None:
    assert max(shares_reached(LLAMA_8B, "H200", PUBLISHED["8B-fp8", "H200"])) > 1


def test_the_page_shows_how_far_the_limits_are_from_the_published_figures() -> None:
    page = (ROOT / "docs/capacity-planning.md").read_text(encoding="utf-8")
    columns = [
        shares_reached(replace(parse_size(size), kv_value_bytes=1.0), card, figures)
        for (size, card), figures in PUBLISHED.items()
    ]
    for number, (prompt, written) in enumerate(LENGTHS):
        cells = [
            f"{figures[number]:,} ({column[number]:.2f})"
            for figures, column in zip(PUBLISHED.values(), columns, strict=True)
        ]
        assert f"| {prompt:,} / {written:,} | {' | '.join(cells)} |" in page


def test_weights_of_llama_8b_in_fp8_take_what_nvidias_checkpoint_takes() -> None:
    # 6.98G weights of layers at 1 byte, 2 tables of 128,256 x 4,096 at 2: 6.979 + 2.101 GB.
    assert LLAMA_8B.weight_bytes == 8_030_000_000 - 2 * 128_256 * 4_096 + 2 * 128_256 * 4_096 * 2
    assert gb(LLAMA_8B.weight_bytes) == "9.08 GB"


def test_weights_by_precision_are_in_the_order_of_their_bits() -> None:
    sizes = [parse_size(f"8B-{precision}").weight_bytes for precision in ("nvfp4", "fp8", "bf16", "fp32")]
    assert sizes == sorted(sizes)
    assert parse_size("8B-bf16").weight_bytes == 16_060_000_000
    assert parse_size("8B-fp32").weight_bytes == 32_120_000_000
    # int4-awq: 6.979G x (1/2 + 2/128) + 2.101 GB
    assert gb(parse_size("8B-int4-awq").weight_bytes) == "5.70 GB"


def test_a_token_of_llama_8b_keeps_128_kib_of_keys_and_values() -> None:
    assert LLAMA_8B.kv_bytes_per_token == 2 * 32 * 8 * 128 * 2 == 128 * 1024
    assert replace(LLAMA_8B, kv_value_bytes=1.0).kv_bytes_per_token == 64 * 1024


def test_reading_a_prompt_is_two_flops_a_weight_and_attention_to_what_came_before() -> None:
    assert prefill_flops(LLAMA_8B, 1) == pytest.approx(2 * 6_979_326_848 + 2 * 32 * 4096)
    assert prefill_flops(LLAMA_8B, 1000) == pytest.approx(13_958_653_696e3 + 2 * 32 * 4096 * 1e6)


def test_writing_a_token_also_multiplies_the_output_table() -> None:
    assert decode_flops(LLAMA_8B, 0) == pytest.approx(2 * (6_979_326_848 + 128_256 * 4_096))
    tied = parse_size("1B-bf16")
    assert tied.output_params == tied.table_params == 128_256 * 2048


def test_a_step_takes_as_long_as_reading_the_weights_while_few_write() -> None:
    h200 = Speed(bytes_s=4.8e12, flops_s=1979e12)
    assert decode_step_s(LLAMA_8B, 1, 0, h200) == pytest.approx(9_080_673_152 / 4.8e12)
    # 64 sequences with 1,000 tokens each: 64 x 131,072,000 bytes more.
    assert decode_step_s(LLAMA_8B, 64, 1000, h200) == pytest.approx((9_080_673_152 + 64 * 131_072_000) / 4.8e12)


def test_a_step_takes_as_long_as_its_arithmetic_where_that_is_longer() -> None:
    slow = Speed(bytes_s=1e18, flops_s=1e12)
    assert decode_step_s(LLAMA_8B, 10, 0, slow) == pytest.approx(10 * decode_flops(LLAMA_8B, 0) / 1e12)


def test_a_short_prompt_takes_one_reading_of_the_weights() -> None:
    assert prefill_s(LLAMA_8B, 1, Speed(bytes_s=1e12, flops_s=1e18)) == pytest.approx(9_080_673_152 / 1e12)


def test_as_many_answers_fit_as_their_tokens_have_room() -> None:
    answer = Answer(prompt_tokens=900, answer_tokens=100)
    assert sequences_that_fit(LLAMA_8B, answer, 1000 * 131_072 * 7.5) == 7
    assert sequences_that_fit(LLAMA_8B, answer, 1000 * 131_072 - 1) == 0
    assert sequences_that_fit(LLAMA_8B, answer, 1e18) == 2048


@given(sequences=st.integers(1, 500), prompt=st.integers(1, 10_000), written=st.integers(1, 4000))
def test_littles_law_holds_answers_in_work_are_rate_times_time(sequences: int, prompt: int, written: int) -> None:
    answer, speed = Answer(prompt_tokens=prompt, answer_tokens=written), Speed(bytes_s=4.8e12, flops_s=1979e12)
    rate = answers_a_second(LLAMA_8B, answer, sequences, speed)
    reading = prefill_flops(LLAMA_8B, prompt) / speed.flops_s
    step = decode_step_s(LLAMA_8B, sequences, answer.mean_context, speed)
    assert rate * (sequences * reading + written * step) == pytest.approx(sequences)


@given(most=st.integers(1, 2000), share=st.floats(0.01, 1.0))
def test_the_fewest_answers_in_work_for_a_rate_are_enough_and_one_less_is_not(most: int, share: float) -> None:
    answer, speed = Answer(prompt_tokens=1000, answer_tokens=200), Speed(bytes_s=4.8e12, flops_s=1979e12)
    rate = answers_a_second(LLAMA_8B, answer, most, speed) * share
    count = sequences_for(LLAMA_8B, answer, rate, most=most, speed=speed)
    assert count is not None
    assert answers_a_second(LLAMA_8B, answer, count, speed) >= rate
    assert answers_a_second(LLAMA_8B, answer, count - 1, speed) < rate
    assert sequences_for(LLAMA_8B, answer, rate / share * 1.01, most=most, speed=speed) is None


def test_what_binds_is_named() -> None:
    h200 = Speed(bytes_s=4.8e12, flops_s=1979e12)
    assert bound_of(LLAMA_8B, Answer(prompt_tokens=8000, answer_tokens=10), 64, h200) == "compute"
    assert bound_of(LLAMA_8B, Answer(prompt_tokens=100, answer_tokens=2000), 8, h200) == "KV memory"
    assert bound_of(LLAMA_8B, Answer(prompt_tokens=100, answer_tokens=4000), 500, h200) == "bandwidth"


def test_waiting_for_the_first_token_grows_with_load_and_without_end_at_the_limit() -> None:
    assert first_token_s(0.1, 0.0) == 0.1
    assert first_token_s(0.1, 0.5) == pytest.approx(0.15)  # half a reading of wait
    assert first_token_s(0.1, 1.0) == float("inf")


@pytest.mark.parametrize("row", ["hnsw", "ivf_flat", "ivf_sq8", "ivf_pq", "ivf_rabitq"])
def test_faiss_files_have_the_size_that_was_measured_at_a_million_passages(row: Kind) -> None:
    page = (ROOT / "docs/benchmarks/index-kinds-1m.md").read_text(encoding="utf-8")
    line = next(line for line in page.splitlines() if line.startswith(f"| `{row}` |"))
    measured_mib = float(line.split("|")[9].replace(",", ""))
    assert ann_bytes(row, rows=1_000_000, dims=384) / MIB == pytest.approx(measured_mib, rel=0.01)


def test_an_index_of_a_million_passages_takes_what_a_built_one_takes() -> None:
    # docs/choosing-a-kind.md: 2,338 MiB with ivf_pq and vectors of 1,536 bytes, so about 800 bytes of passage and words.
    found = host_bytes(kind="ivf_pq", rows=1_000_000, dims=384, vectors="fp32", text_bytes=490)
    assert found.disk / MIB == pytest.approx(2338, rel=0.05)


def test_stored_vectors_take_the_bytes_a_vector_that_the_page_on_kinds_shows() -> None:
    page = (ROOT / "docs/choosing-a-kind.md").read_text(encoding="utf-8")
    shown = {
        match[1]: int(match[2].replace(",", "")) for match in re.finditer(r"\| `--vectors (\w+)` \| ([\d,]+) \|", page)
    }
    assert shown == {kind: stored_vector_bytes(kind, rows=1, dims=384) for kind in ("fp16", "int8")}


def test_flat_on_a_gpu_is_two_bytes_a_value_in_fp16_and_cagra_has_64_edges_more() -> None:
    assert gpu_index_bytes("flat", rows=50_000_000, dims=384, fp16=True) == 38_400_000_000
    assert gpu_index_bytes("flat", rows=50_000_000, dims=384, fp16=False) == 76_800_000_000
    assert gpu_index_bytes("cagra", rows=1_000_000, dims=384, fp16=True) == 768_000_000 + 64 * 4 * 1_000_000
    assert gpu_build_bytes("cagra", rows=1_000_000, dims=384, fp16=True) > 1_024_000_000 + 128 * 4 * 1_000_000
    assert gpu_build_bytes("flat", rows=1_000, dims=8, fp16=True) == gpu_index_bytes(
        "flat", rows=1_000, dims=8, fp16=True
    )


def test_ivf_pq_on_a_gpu_is_the_smallest_of_large_indexes() -> None:
    sizes = [
        gpu_index_bytes(kind, rows=10_000_000, dims=384, fp16=True) for kind in ("ivf_pq", "flat", "cagra", "ivf_flat")
    ]
    assert sizes == sorted(sizes)


def test_cpu_search_passes_through_the_measured_points() -> None:
    assert searches_a_second("ivf_pq", rows=1_000_000, dims=384, recall=0.95) == pytest.approx(741)
    assert searches_a_second("hnsw", rows=100_000, dims=384, recall=0.95) == pytest.approx(3032)
    assert searches_a_second("flat", rows=1_000_000, dims=384, recall=1.0) == pytest.approx(7.8)
    assert searches_a_second("ivf_pq", rows=1_000_000, dims=384, recall=0.99) == pytest.approx(98)
    assert searches_a_second("ivf_pq", rows=1_000_000, dims=768, recall=0.95) == pytest.approx(741 / 2)
    assert lexical_s(1_000_000) == pytest.approx(5.6e-3)


def test_more_recall_than_was_ever_measured_is_refused() -> None:
    with pytest.raises(BadRequestError, match=r"--recall is 0\.995.*or 1 for exact"):
        searches_a_second("ivf_pq", rows=1_000_000, dims=384, recall=0.995)


@given(
    kind=st.sampled_from(["flat", "hnsw", "ivf_pq"]),
    fewer=st.integers(1, 10**10),
    more=st.integers(1, 10**10),
    recall=st.floats(0.5, 0.99),
)
def test_more_passages_are_never_searched_faster(kind: Kind, fewer: int, more: int, recall: float) -> None:
    fewer, more = sorted((fewer, more))
    rates = [searches_a_second(kind, rows=rows, dims=384, recall=recall) for rows in (fewer, more)]
    assert rates[1] <= rates[0] * (1 + 1e-9)


def test_the_encoder_is_minilm_at_384_and_berts_above() -> None:
    assert Encoder(dim=384).layer_params == 10_616_832
    assert [Encoder(dim=dim).layers for dim in (384, 768, 1024)] == [6, 12, 24]
    # 2 x 10.6M x 32 tokens, and attention's 4 x 6 x 32^2 x 384.
    assert Encoder(dim=384).flops_a_question == pytest.approx(679_477_248 + 9_437_184)
    assert Encoder(dim=768).questions_a_core_second == pytest.approx(158 / 8)


def test_prompts_are_as_long_as_measured_ones() -> None:
    # docs/benchmarks/generation.md: 590 to 764 tokens with 5 passages, of 253 bytes on average in that corpus.
    assert 590 <= prompt_tokens(num_passages=5, text_bytes=253) <= 764
    assert prompt_tokens(num_passages=5, text_bytes=640) == 220 + 5 * (160 + 20)


def test_room_for_keys_and_values_is_nine_tenths_of_what_is_left() -> None:
    left = 141_000_000_000 - 9_000_000_000 - 1_000_000_000 - RUNTIME_BYTES
    assert kv_room(CARDS["H200"], weights=9_000_000_000, taken=1_000_000_000) == round(left * KV_FRACTION)
    assert kv_room(CARDS["T4"], weights=16_000_000_000, taken=0) == 0


def test_tensor_parallelism_divides_the_heads() -> None:
    assert tensor_parallels(parse_size("70B-fp8"), 8) == (1, 2, 4, 8)
    assert tensor_parallels(parse_size("70B-fp8"), 3) == (1, 2)
    assert tensor_parallels(parse_size("0.5B-bf16"), 8) == (1, 2)  # 14 heads


@pytest.mark.parametrize(
    ("text", "count"), [("50M", 50_000_000), ("1.2B", 1_200_000_000), ("300k", 300_000), ("7", 7), ("1,000", 1000)]
)
def test_counts_are_read_as_people_write_them(text: str, count: int) -> None:
    assert parse_count(text, what="--passages") == count


@pytest.mark.parametrize("text", ["", "0", "-5", "5T", "1e6", "M", "0.1", "99999999999B"])
def test_other_counts_are_refused_by_name(text: str) -> None:
    with pytest.raises(BadRequestError, match="--passages is"):
        parse_count(text, what="--passages")


@pytest.mark.parametrize(
    ("text", "count", "name"),
    [
        ("4xH200", 4, "H200"),
        ("1xl4", 1, "L4"),
        ("8 x A100-80GB", 8, "A100-80G"),
        ("2xRTX 4090", 2, "RTX4090"),
        ("2xGeForce RTX 5090", 2, "RTX5090"),
    ],
)
def test_gpus_are_read_in_any_spelling(text: str, count: int, name: str) -> None:
    assert parse_gpus(text) == (count, CARDS[name])


def test_a_gpu_of_ones_own_is_read() -> None:
    count, card = parse_gpus("2xcustom:48,900,180,360")
    assert count == 2
    assert card is not None
    assert (card.memory_bytes, card.bytes_s, card.fp16_flops, card.fp8_flops) == (48e9, 900e9, 180e12, 360e12)
    assert parse_gpus("none") == (0, None)


@pytest.mark.parametrize(
    "text",
    ["", "H200", "0xH200", "4xH999", "1xcustom:1,2", "1xcustom:a,b,c", "1xcustom:0,1,1", "2000xL4", "1xcustom:nan,1,1"],
)
def test_other_gpus_are_refused(text: str) -> None:
    with pytest.raises(BadRequestError, match=r"--gpus is|the GPU"):
        parse_gpus(text)


@pytest.mark.parametrize("card", CARDS.values(), ids=list(CARDS))
def test_every_gpu_names_its_source_and_halves_its_bits_for_twice_the_arithmetic(card: Card) -> None:
    assert "NVIDIA" in card.source
    assert card.fp8_flops == 0 or card.fp8_flops == pytest.approx(2 * card.fp16_flops, rel=0.02)


@pytest.mark.parametrize("text", ["8B", "8B-fp7", "fp8", "22B-fp8", "0B-fp8", "8T-fp8", "8B_fp8"])
def test_other_models_are_refused(text: str) -> None:
    with pytest.raises(BadRequestError):
        parse_size(text)


@pytest.mark.parametrize(("size", "card"), [("8B-fp8", "A100-80G"), ("8B-nvfp4", "H200")])
def test_a_precision_that_the_gpu_lacks_is_refused_with_one_that_it_has(size: str, card: str) -> None:
    with pytest.raises(BadRequestError, match="take int4-awq or bf16"):
        parse_size(size).flops_s(CARDS[card])


def write_config(folder: Path, **changes: object) -> Path:
    config = {
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128_256,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**config, **changes}), encoding="utf-8")
    return folder


def test_a_folders_config_gives_the_model_that_it_describes(tmp_path: Path) -> None:
    model = read_model_folder(write_config(tmp_path / "llama"))
    assert model.params == 8_030_261_248  # Llama-3.1-8B, to the weight
    assert (model.precision, model.name) == ("bf16", "llama")
    assert model.kv_bytes_per_token == LLAMA_8B.kv_bytes_per_token


def test_a_quantised_checkpoint_says_so_itself_and_its_files_are_weighed(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "quantised")
    quantised = {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}
    (folder / "hf_quant_config.json").write_text(json.dumps(quantised), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(bytes(1234))
    model = read_model_folder(folder)
    assert (model.precision, model.kv_value_bytes, model.weight_bytes) == ("fp8", 1.0, 1234)


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": None},
        {"num_hidden_layers": "32"},
        {"num_local_experts": 8},
        {"quantization_config": {"quant_method": "odd"}},
        {"vocab_size": 0},
    ],
)
def test_a_config_that_does_not_tell_or_tells_of_another_kind_is_refused(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    with pytest.raises(BadRequestError):
        read_model_folder(write_config(tmp_path / "model", **changes))


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_folder_without_a_readable_config_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(BadRequestError, match=r"config\.json"):
        read_model_folder(tmp_path)


# Hidden size, feed-forward width and vocabulary of the models' published config.json.
WIDTHS = {
    "SmolLM2-135M": (576, 1_536, 49_152),
    "SmolLM2-360M": (960, 2_560, 49_152),
    "Qwen2.5-0.5B": (896, 4_864, 151_936),
    "Llama-3.2-1B": (2048, 8_192, 128_256),
    "Qwen2.5-1.5B": (1536, 8_960, 151_936),
    "Llama-3.2-3B": (3072, 8_192, 128_256),
    "Mistral-7B-v0.3": (4096, 14_336, 32_768),
    "Llama-3.1-8B": (4096, 14_336, 128_256),
    "Qwen2.5-14B": (5120, 13_824, 152_064),
    "Qwen2.5-32B": (5120, 27_648, 152_064),
    "Llama-3.1-70B": (8192, 28_672, 128_256),
    "Qwen2.5-72B": (8192, 29_568, 152_064),
    "Llama-3.1-405B": (16_384, 53_248, 128_256),
}


@pytest.mark.parametrize("known", KNOWN, ids=[known.name for known in KNOWN])
def test_a_known_shape_has_as_many_weights_as_its_config_makes(tmp_path: Path, known: LanguageModel) -> None:
    hidden, width, vocabulary = WIDTHS[known.name]
    folder = write_config(
        tmp_path / "model",
        hidden_size=hidden,
        intermediate_size=width,
        vocab_size=vocabulary,
        num_attention_heads=known.heads,
        num_key_value_heads=known.kv_heads,
        num_hidden_layers=known.layers,
        head_dim=known.head_size,
        tie_word_embeddings=known.tied,
    )
    model = read_model_folder(folder)
    assert model.params == pytest.approx(known.params, rel=0.005)
    assert model.table_params == known.table_params
    assert model.kv_bytes_per_token == known.kv_bytes_per_token
