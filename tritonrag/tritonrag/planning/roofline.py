"""How fast a language model can be: two numbers, bytes over bandwidth and FLOPs over peak, whichever takes longer.

Source: Williams et al. 2009, "Roofline"; for transformers Pope et al. 2022, "Efficiently Scaling Transformer Inference", section 2.
Nothing here knows of kernels, schedulers and networks: these are limits. `EFFICIENCY` says how near real servers come.
"""

from dataclasses import dataclass
from typing import Final, Literal

from tritonrag.planning.language_model import LanguageModel

# What TensorRT-LLM 1.0 reached of `answers_a_second`, by NVIDIA's performance overview for that release, FP8 models, ten pairs of
# lengths: 0.41 to 0.79 of the limit for Llama-3.1-8B on an H200 and an H100, 0.53 to 0.72 for Llama-3.3-70B on an H200. With
# prompts and answers as RAG has them (2048/128): 0.52, 0.57, 0.57. docs/capacity-planning.md has the table; a test computes it.
EFFICIENCY: Final = 0.5
MOST_SEQUENCES: Final = 2048  # TensorRT-LLM's own max_batch_size

Bound = Literal["compute", "bandwidth", "KV memory"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Bytes and floating point operations in a second, of one GPU or of all that share a model."""

    bytes_s: float
    flops_s: float

    def times(self, factor: float) -> "Speed":
        """As many times as fast; for N GPUs of tensor parallelism N times (their talk is not counted)."""
        return Speed(bytes_s=self.bytes_s * factor, flops_s=self.flops_s * factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Lengths of one answer's prompt and text, in tokens."""

    prompt_tokens: int
    answer_tokens: int

    @property
    def tokens(self) -> int:
        """Tokens whose keys and values are held when the answer is complete."""
        return self.prompt_tokens + self.answer_tokens

    @property
    def mean_context(self) -> float:
        """Tokens that a written token looks back on, averaged over the answer."""
        return self.prompt_tokens + self.answer_tokens / 2


def prefill_flops(model: LanguageModel, tokens: int) -> float:
    """To read a prompt: 2 x weights of layers x tokens (Kaplan et al. 2020), and attention's 4 x layers x width x tokens^2 / 2.

    The halving is because a token looks only back; the output projection, for the last token alone, is left out.
    """
    width = model.heads * model.head_size
    return 2.0 * model.layer_params * tokens + 2.0 * model.layers * width * float(tokens) ** 2


def decode_flops(model: LanguageModel, context: float) -> float:
    """To write one token: 2 x (weights of layers + output projection), and attention over the context."""
    width = model.heads * model.head_size
    return 2.0 * (model.layer_params + model.output_params) + 4.0 * model.layers * width * context


def prefill_s(model: LanguageModel, tokens: int, speed: Speed) -> float:
    """Seconds to read a prompt: FLOPs over peak, but at least one reading of the weights."""
    return max(prefill_flops(model, tokens) / speed.flops_s, model.weight_bytes / speed.bytes_s)


def decode_step_s(model: LanguageModel, sequences: int, context: float, speed: Speed) -> float:
    """Seconds in which `sequences` answers get a token each: the weights once and each one's keys and values, or the FLOPs."""
    moved = model.weight_bytes + sequences * context * model.kv_bytes_per_token
    return max(moved / speed.bytes_s, sequences * decode_flops(model, context) / speed.flops_s)


def sequences_that_fit(model: LanguageModel, answer: Answer, kv_bytes: float) -> int:
    """Answers whose keys and values fit to their end: KV memory / (tokens x bytes a token), at most what the library batches."""
    return max(0, min(MOST_SEQUENCES, int(kv_bytes / (answer.tokens * model.kv_bytes_per_token))))


def answers_a_second(model: LanguageModel, answer: Answer, sequences: int, speed: Speed) -> float:
    """Answers/s while `sequences` are in work: 1 / (prompt + answer tokens x step / sequences). 0 sequences: 0.

    By Little's law: each of n answers is in work for n prompts' reading (everybody waits for it) and its own tokens' steps, so
    rate = n / (n x prefill + tokens x step(n)).
    """
    if sequences == 0:
        return 0.0
    step = decode_step_s(model, sequences, answer.mean_context, speed)
    # With many in work a prompt is read beside others, so the weights' reading is shared: FLOPs alone count.
    reading = prefill_flops(model, answer.prompt_tokens) / speed.flops_s
    return 1.0 / (reading + answer.answer_tokens * step / sequences)


def sequences_for(model: LanguageModel, answer: Answer, rate: float, *, most: int, speed: Speed) -> int | None:
    """The fewest answers in work at which `rate` answers/s come out; None where `most` do not suffice."""
    if answers_a_second(model, answer, most, speed) < rate:
        return None
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        if answers_a_second(model, answer, middle, speed) >= rate:
            high = middle
        else:
            low = middle + 1
    return low


def bound_of(model: LanguageModel, answer: Answer, sequences: int, speed: Speed) -> Bound:
    """What more of would help most: arithmetic, bandwidth, or memory for more answers at once to share a reading of the weights."""
    context = answer.mean_context
    computed = sequences * decode_flops(model, context) / speed.flops_s
    weights = model.weight_bytes / speed.bytes_s
    keys = sequences * context * model.kv_bytes_per_token / speed.bytes_s
    reading = prefill_flops(model, answer.prompt_tokens) / speed.flops_s
    writing = answer.answer_tokens * max(computed, weights + keys) / max(sequences, 1)
    if reading >= writing or computed >= weights + keys:
        return "compute"
    return "KV memory" if weights > keys and sequences < MOST_SEQUENCES else "bandwidth"


def first_token_s(reading_s: float, load: float) -> float:
    """Mean seconds to the first token at this load (0 to 1): one prompt's reading, and the wait for those before it.

    M/D/1 (Pollaczek and Khinchine): load / (2 x (1 - load)) readings of wait. At a load of 1 and more the queue grows without end.
    """
    return float("inf") if load >= 1 else reading_s * (1 + load / (2 * (1 - load)))
