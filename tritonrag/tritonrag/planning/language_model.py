"""A language model as arithmetic sees it: how many bytes its weights take, how many a token's keys and values."""

import re
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

from tritonrag.planning.cards import Card
from tritonrag_client.errors import BadRequestError

Precision = Literal["fp32", "bf16", "fp16", "int8", "fp8", "int4-awq", "nvfp4"]
PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)

# Bytes a weight of a quantised layer. int4-awq: 4 bits and an FP16 scale for each 128 weights; nvfp4: 4 bits and an FP8 scale for
# each 16. Scales of fp8 and int8 are one a tensor or a channel: too few to count.
_WEIGHT_BYTES: Final[dict[Precision, float]] = {
    "fp32": 4.0,
    "bf16": 2.0,
    "fp16": 2.0,
    "int8": 1.0,
    "fp8": 1.0,
    "int4-awq": 0.5 + 2 / 128,
    "nvfp4": 0.5 + 1 / 16,
}
_NOT_QUANTISED_BYTES: Final = 2.0
_NEAR: Final = 1.25  # a size further than that from any in the table has a shape that we don't know
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([bm])-([a-z0-9-]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageModel:
    """A dense decoder. `table_params`: of the input embedding and the output projection, which quantisation leaves in 16 bits.

    `weight_bytes` where files say it, else None: by formula. `kv_value_bytes`: of one value in the KV cache.
    """

    name: str
    precision: Precision
    params: int
    table_params: int
    tied: bool
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    kv_value_bytes: float = 2.0
    stored_bytes: int | None = None
    source: str

    @property
    def layer_params(self) -> int:
        """Weights that every token, read or written, is multiplied by."""
        return self.params - self.table_params

    @property
    def output_params(self) -> int:
        """Weights of the output projection, which a written token alone is multiplied by."""
        return self.table_params if self.tied else self.table_params // 2

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights: layers in their precision, tables in 16 bits (as ModelOpt leaves them), FP32 all in FP32."""
        if self.stored_bytes is not None:
            return self.stored_bytes
        bytes_a_weight = _WEIGHT_BYTES[self.precision]
        tables = max(_NOT_QUANTISED_BYTES, bytes_a_weight)
        return round(self.layer_params * bytes_a_weight + self.table_params * tables)

    @property
    def kv_bytes_per_token(self) -> float:
        """Keys and values of one token: 2 x layers x KV heads x head size x bytes a value (Pope et al. 2022, section 2.1)."""
        return 2 * self.layers * self.kv_heads * self.head_size * self.kv_value_bytes

    def flops_s(self, card: Card) -> float:
        """The card's arithmetic for this precision, FLOP/s. Weights of int8 and int4-awq are turned into FP16 to be multiplied.

        Raises BadRequestError where the card can't compute in it.
        """
        if self.precision not in {"fp8", "nvfp4"}:
            return card.fp16_flops / (2 if self.precision == "fp32" else 1)
        found = card.fp8_flops if self.precision == "fp8" else card.fp4_flops
        if not found:
            raise BadRequestError(
                f"{card.name} has no {self.precision.upper()} arithmetic, which {self.name} needs; take int4-awq or bf16,"
                f" or another GPU ({'Ada, Hopper or newer' if self.precision == 'fp8' else 'Blackwell'})"
            )
        return found


def _shape(  # noqa: PLR0917 - a table's columns
    source: str,
    billions: float,
    layers: int,
    hidden: int,
    heads: int,
    kv_heads: int,
    head_size: int,
    vocabulary: int,
    tied: int,
) -> LanguageModel:
    return LanguageModel(
        name=source,
        precision="bf16",
        params=round(billions * 10**9),
        table_params=vocabulary * hidden * (1 if tied else 2),
        tied=bool(tied),
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        source=source,
    )


# From the models' published config.json: parameters in billions, layers, hidden size, heads, KV heads, head size, vocabulary, tied.
KNOWN: Final = (
    _shape("SmolLM2-135M", 0.1345, 30, 576, 9, 3, 64, 49_152, 1),
    _shape("SmolLM2-360M", 0.3618, 32, 960, 15, 5, 64, 49_152, 1),
    _shape("Qwen2.5-0.5B", 0.494, 24, 896, 14, 2, 64, 151_936, 1),
    _shape("Llama-3.2-1B", 1.236, 16, 2048, 32, 8, 64, 128_256, 1),
    _shape("Qwen2.5-1.5B", 1.544, 28, 1536, 12, 2, 128, 151_936, 1),
    _shape("Llama-3.2-3B", 3.213, 28, 3072, 24, 8, 128, 128_256, 1),
    _shape("Mistral-7B-v0.3", 7.248, 32, 4096, 32, 8, 128, 32_768, 0),
    _shape("Llama-3.1-8B", 8.030, 32, 4096, 32, 8, 128, 128_256, 0),
    _shape("Qwen2.5-14B", 14.77, 48, 5120, 40, 8, 128, 152_064, 0),
    _shape("Qwen2.5-32B", 32.76, 64, 5120, 40, 8, 128, 152_064, 0),
    _shape("Llama-3.1-70B", 70.55, 80, 8192, 64, 8, 128, 128_256, 0),
    _shape("Qwen2.5-72B", 72.71, 80, 8192, 64, 8, 128, 152_064, 0),
    _shape("Llama-3.1-405B", 405.9, 126, 16_384, 128, 8, 128, 128_256, 0),
)


def parse_size(text: str) -> LanguageModel:
    """A model by size and precision, as in 8B-fp8, 70B-int4-awq, 135M-int8: the shape is that of a well-known one near that size.

    Raises BadRequestError where the text can't be read, or no such model is known.
    """
    match = _SIZE.fullmatch(text.strip())
    precision = next((known for known in PRECISIONS if match and match[3].lower() == known), None)
    if match is None or precision is None:
        raise BadRequestError(
            f"--llm is {text!r}; write SIZE-PRECISION as in 8B-fp8 (precisions: {', '.join(PRECISIONS)}), a folder with a"
            " config.json, or none"
        )
    params = float(match[1]) * (10**9 if match[2].lower() == "b" else 10**6)
    nearest = min(KNOWN, key=lambda known: _ratio(known.params, params))
    if params <= 0 or _ratio(nearest.params, params) > _NEAR:
        names = ", ".join(known.name for known in KNOWN)
        raise BadRequestError(f"no shape of {text!r} is known ({names} are); give the folder with its config.json")
    return replace(nearest, name=f"{match[1]}{match[2].upper()}-{precision}", precision=precision)


def _ratio(one: float, other: float) -> float:
    return max(one, other) / min(one, other) if min(one, other) > 0 else float("inf")
